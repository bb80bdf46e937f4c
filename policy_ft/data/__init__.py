"""From episodes to batches: windows, order, noise and workers, all pure functions of the seed."""
