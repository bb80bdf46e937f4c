"""Bytes on a disk or behind a URL: files, the objects of HDF5 files, frames."""
