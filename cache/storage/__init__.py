"""What lies where in the HDF5 file: its parts, their checksums, and how it is opened."""
