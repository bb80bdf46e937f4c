"""The training loop: steps, validation, selection, checkpoints that survive a kill, metrics."""
