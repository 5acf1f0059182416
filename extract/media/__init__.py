"""Reader of media files: a single pass decodes sound and frames with presentation times."""
