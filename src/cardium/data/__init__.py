"""The tables and arrays of a dataset: manifest, splits, quality checks, renderings, and what data.dvc tracks."""
