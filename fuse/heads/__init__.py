"""Heads: what they are, how many are fitted at once, stacked, and saved."""
