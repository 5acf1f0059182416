"""Labelled clips, their groups and folds; the demo data set."""
