"""How a cache file comes about: sources of rows, a plan of the file, shards and the lock."""
