"""Drafts of sidecars: what the structure of a file shows, and blanks for what it cannot."""
