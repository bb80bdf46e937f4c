"""One thread at a time, where a model keeps something between two lines of one call."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from torch import nn


class Turn:
    """`with turn:` one thread is inside, however often it enters; a copy is a turn of its own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        """How copies and pickles are made: locks have neither."""
        return type(self), ()


class EvaluationMode:
    """Evaluation mode of a model while any thread needs it; then each module's own mode again."""

    def __init__(self) -> None:
        self._turn = Turn()
        self._num_inside = 0
        self._in_training: list[nn.Module] = []

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        """How copies and pickles are made: nobody is inside a copied model."""
        return type(self), ()

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """Evaluation mode inside the block.

        The first thread in switches and the last one out switches back: one that restored modes by
        itself would let dropout into the calls of the others.
        """
        with self._turn:
            if self._num_inside == 0:
                self._in_training = [each for each in model.modules() if each.training]
                model.eval()  # whatever the modes: some layers of timm then forget old weights
            self._num_inside += 1
        try:
            yield
        finally:
            with self._turn:
                self._num_inside -= 1
                if self._num_inside == 0:
                    for each in self._in_training:
                        each.training = True
                    self._in_training = []
