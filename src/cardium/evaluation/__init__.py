"""Scores: metrics, test predictions, other collections, published figures."""
