"""Stage two: heads, cross-validation, metrics and the report."""
