"""Prefix: what a backbone hands to an action expert."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """The keys and values of everything the policy saw, read by every expert block.

    The prefix never attends to noisy actions, so training with several noise draws, every step of
    the sampling loop and every candidate chunk share one Prefix.

    Letters: b batch, g key-value head, n prefix token, d head size.

    Attributes:
        keys: one float[b, g, n, d] a backbone block, after the rotary embedding.
        values: one float[b, g, n, d] a backbone block.
        mask: bool[b, n], True where the token is real.
        length: int64[b], the number of real tokens: the position of the first suffix token.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    length: Tensor

    def detached(self) -> Self:
        """The same prefix without gradients: what the expert learns stays out of the backbone."""
        return type(self)(
            keys=tuple(key.detach() for key in self.keys),
            values=tuple(value.detach() for value in self.values),
            mask=self.mask,
            length=self.length,
        )
