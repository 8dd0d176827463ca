"""Many files on the engines that are there: every core of this machine, a Spark cluster, a Ray cluster."""
