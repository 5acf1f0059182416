"""Stratified, group-disjoint folds and splits of clips, and their files."""
