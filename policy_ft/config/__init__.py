"""The settings of a run: frozen, complete, and refusing what they do not know."""
