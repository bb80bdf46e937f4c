"""The seam for plugs that act during training and carry state of their own."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn


class Hook(Protocol):
    """Something that acts after optimizer steps.

    Its state lies in every checkpoint and comes back when the run is resumed.
    """

    @property
    def name(self) -> str:
        """Names the state in the checkpoint; unique among the hooks of a run."""

    def after_step(self, train_step: int, model: nn.Module) -> None:
        """Called after each optimizer step; `train_step` counts the steps done."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, as tensors."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes up what `state_dict` gave."""


def require_unique_names(hooks: Sequence[Hook]) -> None:
    """ValueError when two hooks would share one place in the checkpoint."""
    names = [hook.name for hook in hooks]
    if len(set(names)) != len(names):
        raise ValueError(
            f"hooks: found the names {names}; expected each name once. Rename one of the hooks."
        )
