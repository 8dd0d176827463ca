"""Renders a record: bytes to pixels to the array that a model takes."""
