"""Training: banks of frozen features, folds, fits and their schedule."""
