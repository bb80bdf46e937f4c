"""The exponential moving average of the weights: steadier than any single step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """An exponential moving average of a model's trainable parameters, kept in float32 beside them.

    After update t (counted from 0) the average is `d * average + (1 - d) * weights` with
    `d = min(decay, (1 + t) / (10 + t))`: the warm-up forgets the first steps quickly (Martin et
    al., TensorFlow's ExponentialMovingAverage). With decay 0.99: d = 0.1, 0.18, 0.25, ... and 0.99
    from t = 890 on. Frozen parameters never move and have no average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._averages = {name: p.detach().float().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Moves every average towards the present weights; call once after each optimizer step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        weights = [p.detach() for p in self._parameters.values()]
        torch._foreach_lerp_(list(self._averages.values()), weights, 1.0 - decay)
        self.num_updates += 1

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside the block the model computes with the averages. Copies nothing."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._averages[name] = self._averages[name], parameter.data

    def state_dict(self) -> dict[str, Tensor]:
        """Parameter name -> float32 average; `num_updates` is the other half of the state."""
        return dict(self._averages)

    def load_state_dict(self, averages: Mapping[str, Tensor], num_updates: int) -> None:
        """Continues from saved averages; ValueError when other parameters are trainable."""
        if averages.keys() != self._averages.keys():
            raise ValueError(
                f"averages {sorted(averages.keys() ^ self._averages.keys())} missing or unexpected"
            )
        for name, average in averages.items():
            self._averages[name].copy_(average)
        self.num_updates = num_updates
