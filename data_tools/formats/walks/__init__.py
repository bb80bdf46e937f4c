"""The walk over a file by its layout: which episodes and cameras there are, and their faults."""
