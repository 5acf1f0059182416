"""Predictions of new clips by a model folder."""
