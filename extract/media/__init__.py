"""Reader of media files: one pass gives sound and frames at their presentation times."""
