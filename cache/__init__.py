"""The HDF5 feature cache: all that travels between the two machines."""
