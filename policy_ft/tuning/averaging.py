"""The exponential moving average of the weights: steadier than any single step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from policy_ft.ranks import is_sharded, own_part


class Ema:
    """An exponential moving average of parameters, kept in float32 beside them.

    After update t (counted from 0) the average is `d * average + (1 - d) * weights` with
    `d = min(decay, (1 + t) / (10 + t))`: the warm-up forgets the first steps quickly (Martin et
    al., TensorFlow's ExponentialMovingAverage). With decay 0.99: d = 0.1, 0.18, 0.25, ... and 0.99
    from t = 890 on. Parameters that never move need no average. Of a sharded parameter each process
    averages the rows that it holds.

    Args:
        parameters: by name.
        decay: share of the old average kept at every update.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._parameters = dict(parameters)
        self.restart(0)

    def restart(self, num_updates: int) -> None:
        """Takes the weights as they are for the averages after so many updates."""
        self.num_updates = num_updates
        self._averages = {name: own_part(p).float().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Moves every average towards the present weights; call once after each optimizer step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        weights = [own_part(p) for p in self._parameters.values()]
        torch._foreach_lerp_(list(self._averages.values()), weights, 1.0 - decay)
        self.num_updates += 1

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside the block the model computes with the averages; copies nothing that is whole."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, parameter in self._parameters.items():
            if is_sharded(parameter):  # what gathers it knows its memory, and not its `data`
                rows, average = own_part(parameter), self._averages[name]
                kept = rows.clone()
                rows.copy_(average)
                average.copy_(kept)
                continue
            parameter.data, self._averages[name] = self._averages[name], parameter.data
