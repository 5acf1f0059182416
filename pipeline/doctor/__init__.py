"""Checks of ``mvemo doctor``."""
