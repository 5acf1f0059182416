"""The values of features as heads read them: rows of a matrix, standardised, summed up."""
