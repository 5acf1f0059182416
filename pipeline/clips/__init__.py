"""Media, lengths and tables of a manifest's clips."""
