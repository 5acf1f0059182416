"""HDF5 file format of the cache: layout, checksums, and safe reading."""
