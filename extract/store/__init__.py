"""Working cache: decoded media and descriptors that stage one keeps between epochs and runs."""
