"""Near-duplicates: the same recording or the same pictures under two names."""
