"""Commands, settings, and both stages as functions."""
