"""The same recording or pictures under two names."""
