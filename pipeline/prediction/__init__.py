"""Predictions of new clips with a model folder."""
