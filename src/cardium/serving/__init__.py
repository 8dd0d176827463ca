"""Trained runs as classifiers of files."""
