"""Real collections, from where their publishers keep them."""
