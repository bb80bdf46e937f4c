"""What a run minimises: objectives, each of which turns the model's outputs into named terms."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from policy_ft.models.batch import Batch
from policy_ft.models.prefix import Prefix


class Term(NamedTuple):
    """Errors that are not reduced yet, and how much each of them counts.

    The term's part of the loss is `weight * sum(mask * values) / sum(mask)`, the sums running over
    all micro-batches and processes of a step.
    """

    values: Tensor
    """float[n, ...], or one number of the weights alone; where n is the batch, a value that is not
    finite is traced to its sample."""
    mask: Tensor
    """bool, or float weights of at least 0, of the shape of values. What is masked (False or 0) is
    replaced by zero and not multiplied by it: whatever lies there has no loss and no gradient."""
    weight: float = 1.0
    """Of the term in the loss; 0 only reports it."""


class Objective:
    """Something to be minimised. The first of a run is the one that validation's loss tells.

    One that remembers something, or needs the weights that the run began with, is a Hook as well.
    Called without more, it counts once per micro-batch, as a penalty on the weights does.

    Attributes:
        name: names the objective in messages, and its term where it has one.
        columns: names of the batch's columns that it reads where they are there.
        works_on_shards: whether it computes the same where each process holds a part of every
            weight (training.shard): true of one that only calls the model.
    """

    name: str
    columns: frozenset[str] = frozenset()
    works_on_shards: bool = False

    def reaches(self, model: Any) -> frozenset[str]:
        """Names of the parameters that learn for its sake: its errors depend on what they compute.

        What no objective of a run reaches is dormant, and frozen. A penalty on the weights reaches
        none: it draws at what learns anyway.
        """
        return frozenset()

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """Term -> the sum of its mask, float64 scalar, known before the model runs.

        A step is divided into micro-batches and processes that hold unequal numbers of valid
        elements: each is divided by the count of the whole step, which must be known by then.
        """
        return {self.name: torch.ones((), dtype=torch.float64, device=batch.actions.device)}

    def __call__(self, model: Any, prefix: Prefix, batch: Batch) -> Mapping[str, Term]:
        """Its terms by name, those of `counts`.

        Args:
            model: the VLAModel.
            prefix: what its backbone made of the batch's observations, with gradients.
            batch: b samples.
        """
        raise NotImplementedError(
            f"objective {self.name!r}: found no __call__; expected one that returns its terms. "
            "Write it; policy_ft/objectives/flow.py is an example."
        )

    def penalty(self, value: Tensor, weight: float) -> Mapping[str, Term]:
        """The one term of a penalty: a number that does not depend on the batch.

        Args:
            value: float scalar.
            weight: of the term in the loss.
        """
        return {self.name: Term(value, torch.ones_like(value, dtype=torch.bool), weight)}


def reached(objectives: Iterable[Objective], model: Any) -> frozenset[str]:
    """Names of the parameters that any of the objectives reaches; the others are dormant."""
    return frozenset().union(*(objective.reaches(model) for objective in objectives))


def terms_of(
    objectives: Iterable[Objective], model: Any, prefix: Prefix, batch: Batch
) -> dict[str, Term]:
    """The terms of all objectives by name.

    Raises:
        ValueError: two terms of one name, or values and mask of different shapes.
    """
    terms: dict[str, Term] = {}
    for objective in objectives:
        for name, term in objective(model, prefix, batch).items():
            if name in terms:
                raise ValueError(
                    f"objective {objective.name!r}: found the term {name!r} for a second time; "
                    "expected each name once. Rename one of the two."
                )
            if term.values.shape != term.mask.shape:
                raise ValueError(
                    f"objective {objective.name!r}, term {name!r}: found values "
                    f"{list(term.values.shape)} and a mask {list(term.mask.shape)}; expected one "
                    "shape. Expand the mask to the values."
                )
            terms[name] = term
    return terms
