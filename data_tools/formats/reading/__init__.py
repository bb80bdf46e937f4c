"""Episodes of HDF5 files as a dataset: where their parts are, kept as an index, and the reads."""
