"""The model folder: what stage one and stage two fitted, for predictions of new clips."""
