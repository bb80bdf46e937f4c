"""Checkpoint directories: the whole policy in one place, written at once or not at all."""
