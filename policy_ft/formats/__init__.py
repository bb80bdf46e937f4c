"""Directories that others publish to a policy and back, with every tensor accounted for."""
