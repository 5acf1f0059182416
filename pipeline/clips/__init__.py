"""The clips of a manifest, their media and tables."""
