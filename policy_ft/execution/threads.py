"""How many threads torch may use while a policy acts."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

ROLLOUT_THREADS = 1
"""Beside one busy program a second thread made a call of the shipped policy 10 times slower."""


@contextmanager
def rollout_threads(count: int = ROLLOUT_THREADS) -> Iterator[None]:
    """Torch on `count` threads inside the block or the decorated function, as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
