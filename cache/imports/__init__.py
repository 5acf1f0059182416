"""Features of other programs: arrays read from their files, and put into a cache."""
