"""Heads: linear layers over features, many fitted at once, and heads over other heads."""
