"""The only reader of media files: one pass gives sound and frames, at their places in time."""
