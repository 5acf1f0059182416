"""Cross-validation of all models over one cache: folds, heads, out-of-fold predictions."""
