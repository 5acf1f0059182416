"""What stage one keeps between epochs and runs: decoded media, descriptors, workers."""
