"""Calls in worker processes: a crash of the process costs only one call."""
