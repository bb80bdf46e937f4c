"""The codes that benchmarks compare ours with, behind one interface."""
