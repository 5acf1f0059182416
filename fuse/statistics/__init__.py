"""Uncertainty of scores: resampling, intervals, tests between models, learning curves."""
