"""Episodes of HDF5 files as a dataset: what was found in them, its index, and the reads."""
