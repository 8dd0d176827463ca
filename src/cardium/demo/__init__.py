"""Generated look-alikes of the collections, and the truth about them."""
