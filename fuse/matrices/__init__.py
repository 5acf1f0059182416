"""Feature values as heads read them: rows of a matrix, standardised or summarised."""
