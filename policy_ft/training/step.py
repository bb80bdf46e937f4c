"""One optimizer step: micro-batches in, loss, terms and gradient norm out, or an error."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from data_tools.columns import WEIGHT
from policy_ft.data.windows import COLUMN
from policy_ft.errors import UserError, describe
from policy_ft.models.batch import Batch
from policy_ft.models.objective import Objective, Term
from policy_ft.models.prefix import Prefix
from policy_ft.ranks import whole
from policy_ft.training.features import FeatureCache
from policy_ft.transforms import Transforms

MAX_NAMED_SAMPLES = 8


def to_device(samples: Mapping[str, Tensor], transforms: Transforms, device: torch.device) -> Batch:
    """A Batch from the loader's stacked samples: the second stage of encoding."""
    action_mask = samples["action_mask"].to(device, non_blocking=True)
    columns = samples["action_columns"] & torch.from_numpy(transforms.action_dim_mask)
    columns = columns.to(device, non_blocking=True)
    return Batch(
        inputs=transforms.encode_batch(samples, device),
        actions=samples["actions"].to(device, non_blocking=True),
        valid=action_mask[:, None, :, None] & columns[:, None, None, :],
        noise=samples["noise"].to(device, non_blocking=True),
        time=samples["time"].to(device, non_blocking=True),
        sample_id=samples["sample_id"],
        epoch=samples["epoch"],
        columns={
            name.removeprefix(COLUMN): values.to(device, non_blocking=True)
            for name, values in samples.items()
            if name.startswith(COLUMN)
        },
    )


def row_sums(term: Term) -> Tensor:
    """float32[n]: the masked sum of each row of a term; a scalar of a term that is one.

    Masked elements are replaced by zero, not multiplied by it, so that whatever lies there has a
    zero gradient.
    """
    values, mask = term.values.float(), term.mask
    if mask.dtype != torch.bool:
        values, mask = values * mask, mask > 0
    kept = values.masked_fill(~mask, 0.0)
    return kept.flatten(1).sum(1) if kept.ndim > 1 else kept


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast | nullcontext[None]:
    """Computes in `dtype` where that is safe, weights staying float32; None does nothing."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step saw, over the global batch.

    Attributes:
        loss: the sum of the terms, each with its weight.
        grad_norm: of all gradients, before clipping.
        terms: name -> mean over the term's mask.
        effective_samples: (sum of weights)^2 / sum of squared weights: as many samples of equal
            weight would tell as much; None where samples have no weights.
    """

    loss: float
    grad_norm: float
    terms: Mapping[str, float]
    effective_samples: float | None = None


class _Part(NamedTuple):
    """What one micro-batch found of one term."""

    rows: Tensor
    """float32[n] or a scalar, its masked sums."""
    mass: Tensor
    """float64 scalar, the sum of its mask."""
    weight: float


@dataclass
class TrainStep:
    """Takes optimizer steps whose loss is the mean over the valid elements of the global batch.

    Ranks and micro-batches hold unequal numbers of valid elements, so no mean of means is ever
    taken: the sum of each micro-batch is divided by the count over all ranks and micro-batches of
    the step, for each term of the loss by its own.

    Attributes:
        accelerator: of this process.
        model: as the accelerator wrapped it.
        objectives: what is minimised.
        optimizer: over the parameters that learn.
        locate: sample id -> its episode and step, for messages.
        clip_norm: gradients are scaled down to this total norm when above it.
        autocast_dtype: of the computation; None for the weights' own.
        features: what it keeps of a frozen backbone; None computes everything at every step.
        after_backward: called with the number of the step when its gradients are there, before
            they are clipped.
    """

    accelerator: Accelerator
    model: nn.Module
    objectives: Sequence[Objective]
    optimizer: torch.optim.Optimizer
    locate: Callable[[int], tuple[str, int]]
    clip_norm: float
    autocast_dtype: torch.dtype | None
    features: FeatureCache | None = None
    after_backward: Callable[[int], None] = lambda train_step: None
    _parameters: list[nn.Parameter] = field(init=False)
    _is_first: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]

    def __call__(self, train_step: int, batches: Sequence[Batch]) -> StepResult:
        """The loss and its terms (global means) and the gradient norm before clipping.

        Waits for the device once, to see that they are finite; with a feature cache also when it
        meets a window for the first time.

        Raises:
            UserError: the loss or the gradient norm is not finite; the weights have not been
                touched.
            ValueError: a term's mask is not what its objective announced.
        """
        counts = self._counts(batches)
        scales = {
            name: torch.where(count > 0, self.accelerator.num_processes / count, 0.0).float()
            for name, count in counts.items()
        }
        parts = [
            self._backward(batch, scales, is_last=place == len(batches) - 1)
            for place, batch in enumerate(batches)
        ]
        if self._is_first:
            self._require_gradients()
        self.after_backward(train_step)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        grad_norm = whole(get_total_norm(gradients))
        result = self._result(counts, parts, grad_norm, _weights(batches))
        if not (math.isfinite(result.loss) and math.isfinite(result.grad_norm)):
            raise UserError(self._diagnose(train_step, result, batches, parts))
        clip_grads_with_norm_(self._parameters, self.clip_norm, grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return result

    def _counts(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Term -> float64 scalar, what its sum over the whole step is divided by."""
        announced = [_announced(self.objectives, batch) for batch in batches]
        names = list(announced[0])
        own = torch.stack([torch.stack([part[name] for part in announced]).sum() for name in names])
        return dict(zip(names, self.accelerator.reduce(own, reduction="sum"), strict=True))

    def _backward(
        self, batch: Batch, scales: Mapping[str, Tensor], *, is_last: bool
    ) -> dict[str, _Part]:
        synchronize = nullcontext() if is_last else self.accelerator.no_sync(self.model)
        with synchronize:
            with autocast(self.accelerator.device, self.autocast_dtype):
                terms = self.model(batch, self.objectives, self._features(batch))
            rows = {name: row_sums(term) for name, term in terms.items()}
            weighted = [
                rows[name].sum() * (scales[name] * term.weight)
                for name, term in terms.items()
                if term.weight
            ]
            self.accelerator.backward(torch.stack(weighted).sum())
        return {
            name: _Part(rows[name].detach(), term.mask.sum(dtype=torch.float64), term.weight)
            for name, term in terms.items()
        }

    def _features(self, batch: Batch) -> Prefix | Tensor | None:
        if self.features is None:
            return None
        return self.features(batch.inputs, batch.sample_id.tolist())

    def _result(
        self,
        counts: Mapping[str, Tensor],
        parts: Sequence[Mapping[str, _Part]],
        grad_norm: Tensor,
        weights: Tensor,
    ) -> StepResult:
        """What the step found over all ranks, in one wait for the device."""
        names = list(parts[0])
        sums = [torch.cat([part[name].rows.flatten() for part in parts]) for name in names]
        masses = [torch.stack([part[name].mass for part in parts]).sum() for name in names]
        of_weights = [weights.sum(), weights.square().sum()]
        own = torch.stack([*(each.sum(dtype=torch.float64) for each in sums), *masses, *of_weights])
        reduced = self.accelerator.reduce(own, reduction="sum")
        totals, found = reduced[:-2].chunk(2)
        count = torch.stack([counts[name] for name in names])
        means = totals / torch.where(count > 0, count, 1.0)
        norm = grad_norm.to(means.dtype)[None]
        *values, weight, square = torch.cat([means, found, count, norm, reduced[-2:]]).tolist()
        for place, name in enumerate(names):
            mass, expected = values[len(names) + place], values[2 * len(names) + place]
            if not math.isclose(mass, expected, rel_tol=1e-5):
                raise ValueError(
                    f"objective term {name!r}: found a mask that sums to {mass}; expected "
                    f"{expected}, which its objective counted. Correct its `counts`."
                )
        loss = sum(parts[0][name].weight * values[place] for place, name in enumerate(names))
        samples = weight**2 / square if square else None
        return StepResult(loss, values[-1], dict(zip(names, values, strict=False)), samples)

    def _require_gradients(self) -> None:
        self._is_first = False
        unreached = [name for name, p in self._named() if p.grad is None]
        if unreached:
            raise ValueError(
                f"objectives {[objective.name for objective in self.objectives]}: found that "
                f"{unreached} got no gradient from the first backward pass; expected one for every "
                "parameter that an objective says it reaches. Leave these names out of `reaches`."
            )

    def _diagnose(
        self,
        train_step: int,
        result: StepResult,
        batches: Sequence[Batch],
        parts: Sequence[Mapping[str, _Part]],
    ) -> str:
        ids = [batch.sample_id for batch in batches]
        own = {
            sample
            for id_, part in zip(ids, parts, strict=True)
            for name in part
            for sample in _not_finite(id_, part[name].rows)
        }
        bad = gather_object([sorted(own)])
        everyone = gather_object([torch.cat(ids).tolist()])
        blamed = sorted({sample for rank in bad for sample in rank})
        samples = blamed or sorted({sample for rank in everyone for sample in rank})
        places = [self._place(sample) for sample in samples[:MAX_NAMED_SAMPLES]]
        more = f" and {len(samples) - len(places)} more" if len(samples) > len(places) else ""
        gradients = {n: p.grad for n, p in self._named() if p.grad is not None}
        names = [n for n, each in gradients.items() if not whole(each).isfinite().all()]
        culprit = "the loss of samples" if blamed else "a gradient of the batch with samples"
        return describe(
            f"train step {train_step}",
            f"loss {result.loss} and gradient norm {result.grad_norm}; not finite is {culprit} "
            f"{', '.join(places)}{more}, and {len(names)} tensors' gradients, first {names[:3]}",
            "finite values; the weights were left as they were before this step",
            "Run `robot-data validate` on the data and look at these steps; if the data is sound, "
            "lower optimizer.lr, then resume from the last checkpoint.",
        )

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return [
            (n, p)
            for n, p in self.accelerator.unwrap_model(self.model).named_parameters()
            if p.requires_grad
        ]

    def _place(self, sample_id: int) -> str:
        episode, step = self.locate(sample_id)
        return f"{sample_id} ({episode}:{step})"


def _weights(batches: Sequence[Batch]) -> Tensor:
    """float64[n]: the weights of all samples; nothing where they have none."""
    own = [batch.columns[WEIGHT] for batch in batches if WEIGHT in batch.columns]
    return torch.cat(own or [batches[0].noise.new_zeros(0)]).double()


def _announced(objectives: Sequence[Objective], batch: Batch) -> dict[str, Tensor]:
    """Term -> what its objective counts in a batch."""
    return {name: count for each in objectives for name, count in each.counts(batch).items()}


def _not_finite(sample_ids: Tensor, rows: Tensor) -> list[int]:
    """The samples whose rows of a term are not finite; none where rows are no samples."""
    if rows.shape != sample_ids.shape:
        return []
    return sample_ids[~torch.isfinite(rows.cpu())].tolist()
