"""Calls in worker processes; if a process crashes, only its current call is lost."""
