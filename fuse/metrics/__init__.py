"""Scores of predictions, a module for each kind of task, and calibration."""
