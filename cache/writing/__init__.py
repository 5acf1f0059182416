"""Writing of cache files: sources of rows, plans of files, shards and the lock."""
