"""Models that come with mvemo, found by name, and the cards of these and others."""
