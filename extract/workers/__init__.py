"""Calls in processes of their own, so that what breaks a process costs one call."""
