"""The objects of an HDF5 file, looked at before they are trusted: links, storage, attributes."""
