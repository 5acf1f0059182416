"""Folds and splits of clips: stratified, groups whole, and written down."""
