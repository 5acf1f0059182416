"""The model folder: the fitted parts of both stages, for predictions of new clips."""
