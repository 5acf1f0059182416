"""Import of features that other programs made."""
