"""Scores of predictions, with one module per kind of task, and calibration."""
