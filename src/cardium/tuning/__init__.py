"""Searches: the queue of trials and what a trial may set."""
