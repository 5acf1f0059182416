"""Heads: linear layers over features, fitted together, and heads over other heads."""
