"""The model folder: the fitted parts of both stages, to predict new clips."""
