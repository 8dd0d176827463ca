"""Trained runs: their folders, members and predictions."""
