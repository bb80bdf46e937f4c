"""Planting: a copy of a dataset with one known fault in it, to see whether it is found."""
