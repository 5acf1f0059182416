"""Clips of a manifest: their media, lengths and tables."""
