"""One file per verb of the pipeline; each has `run(settings, item)` and reads and writes files only."""
