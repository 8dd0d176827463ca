"""What runs stages: DVC, and experiments beside it."""
