"""Validation on held-out episodes over a fixed grid: a number without sampling variance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from policy_ft.config.run import RunConfig
from policy_ft.data.noise import Purpose, flow_noise
from policy_ft.data.windows import WindowDataset
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.models.objective import Objective
from policy_ft.models.solvers import SampleRequest
from policy_ft.policy import Policy
from policy_ft.training.step import autocast, row_sums, to_device
from policy_ft.transforms import stacked

ACTION_MSE = "action_mse"
NUM_SAMPLED_WINDOWS = 32
"""Windows whose actions are sampled; ten times the cost of the loss for each, so only a few."""


@dataclass(frozen=True)
class _Sums:
    """What windows add to one number of a validation."""

    total: float
    count: float
    weight: float | None = None
    """In the loss; None for what is only told."""

    @classmethod
    def of(cls, parts: Sequence[Self]) -> Self:
        """The sums over all parts, of which there is at least one."""
        total = math.fsum(part.total for part in parts)
        return cls(total, math.fsum(part.count for part in parts), parts[0].weight)


class Validation:
    """The loss and the error of sampled actions on windows of the held-out episodes.

    Windows are evenly spread over the held-out steps. Each is seen at every flow time of the grid
    with the same noise, a function of (seed, window, draw), so that two validations of the same
    weights give the same number and the difference between two steps is due to the weights alone.
    The ranks divide the windows.

    Args:
        windows: of the held-out episodes.
        objectives: of the run.
        config: of the run.
        accelerator: adds up what the ranks found.
        dtype: of autocast, None for none.
    """

    def __init__(
        self,
        windows: WindowDataset,
        objectives: Sequence[Objective],
        config: RunConfig,
        accelerator: Accelerator,
        dtype: torch.dtype | None,
    ) -> None:
        self._windows = windows
        self._objectives = objectives
        self._seed = config.seed
        self._grid = config.validation
        self._accelerator = accelerator
        self._dtype = dtype
        micro_batches = accelerator.num_processes * config.training.accumulation_steps
        self._batch_size = max(config.training.batch_size // micro_batches, 1)

    @torch.no_grad()
    def run(self, policy: Policy) -> dict[str, float]:
        """loss, action_mse, and each further term of the objectives by its name.

        The loss is that of the first objective over the grid (flow matching: the mean squared error
        of the velocity), so that penalties beside it, which say nothing of the held-out episodes,
        do not move it. action_mse is the mean squared error of sampled actions. Both in normalized
        units over real steps and columns, with the weights the model has at this moment; samples
        count alike, whatever their weights in training.

        Raises:
            UserError: one of them is not finite; on every rank alike, as all see the same sums.
        """
        found = self._found(policy)
        values = {name: sums.total / sums.count for name, sums in found.items()}
        of_loss = {name: sums.weight for name, sums in found.items() if sums.weight is not None}
        loss = sum(weight * values[name] for name, weight in of_loss.items())
        told = [name for name in values if len(of_loss) > 1 or name not in of_loss]
        values = {"loss": loss} | {name: values[name] for name in told}
        raise_faults(
            describe(
                f"validation, {name}",
                str(value),
                "a finite number",
                "Go on from the last checkpoint with a lower optimizer.lr, in another output_dir.",
            )
            for name, value in values.items()
            if not math.isfinite(value)
        )
        return values

    def _found(self, policy: Policy) -> dict[str, _Sums]:
        """Name -> sums over the windows of all ranks, which may hold none."""
        own: dict[str, list[_Sums]] = {}
        for samples in self._loss_batches:
            for name, sums in self._loss_sums(policy, samples).items():
                own.setdefault(name, []).append(sums)
        for samples in self._action_batches:
            own.setdefault(ACTION_MSE, []).append(self._action_sums(policy, samples))
        found: dict[str, _Sums] = {}
        for rank in gather_object([own]):
            for name, parts in rank.items():
                found[name] = _Sums.of([*([found[name]] if name in found else []), *parts])
        # the order of a rank that holds windows, whichever ranks there are
        return {name: found[name] for name in sorted(found, key=lambda name: name == ACTION_MSE)}

    def _loss_sums(self, policy: Policy, samples: dict[str, Tensor]) -> dict[str, _Sums]:
        batch = to_device(samples, policy.transforms, self._accelerator.device)
        with autocast(self._accelerator.device, self._dtype):
            terms = policy.model(batch, self._objectives)
        of_loss = self._objectives[0].counts(batch)
        return {
            name: _Sums(
                row_sums(term).sum(dtype=torch.float64).item(),
                term.mask.sum(dtype=torch.float64).item(),
                term.weight if name in of_loss else None,
            )
            for name, term in terms.items()
        }

    def _action_sums(self, policy: Policy, samples: dict[str, Tensor]) -> _Sums:
        batch = to_device(samples, policy.transforms, self._accelerator.device)
        chunks = policy.sample(batch.inputs, SampleRequest(noise=batch.noise[:, 0]))
        valid = batch.valid[:, 0]
        errors = (chunks.float() - batch.actions).square().masked_fill(~valid, 0.0)
        total = errors.sum(dtype=torch.float64)
        return _Sums(total.item(), valid.sum(dtype=torch.float64).item())

    @cached_property
    def _loss_batches(self) -> list[dict[str, Tensor]]:
        return self._encoded(self._grid.num_windows)

    @cached_property
    def _action_batches(self) -> list[dict[str, Tensor]]:
        return self._encoded(min(NUM_SAMPLED_WINDOWS, self._grid.num_windows))

    def _encoded(self, num_windows: int) -> list[dict[str, Tensor]]:
        """This rank's share of evenly spread windows, in micro-batches, images as uint8."""
        total = len(self._windows)
        num_windows = min(num_windows, total)
        chosen = (np.arange(num_windows) * total // num_windows).tolist()
        own = chosen[self._accelerator.process_index :: self._accelerator.num_processes]
        return [
            self._collated(own[start : start + self._batch_size])
            for start in range(0, len(own), self._batch_size)
        ]

    def _collated(self, sample_ids: list[int]) -> dict[str, Tensor]:
        noise = np.stack([self._noise(sample_id) for sample_id in sample_ids])
        times = torch.tensor(self._grid.times)
        # every noise draw meets every time: draw 0 at all times, then draw 1, ...
        return {
            **stacked([self._windows[sample_id] for sample_id in sample_ids]),
            "epoch": torch.zeros(len(sample_ids), dtype=torch.int64),
            "noise": torch.from_numpy(noise).repeat_interleave(len(times), dim=1),
            "time": times.repeat(self._grid.num_noise).expand(len(sample_ids), -1),
        }

    def _noise(self, sample_id: int) -> npt.NDArray[np.float32]:
        shape = self._windows.transforms.shape
        chunk = (shape.action_horizon, shape.action_dim)
        return flow_noise(
            self._seed, 0, sample_id, self._grid.num_noise, chunk, Purpose.VALIDATION
        )[0]


class MixedValidation:
    """The validation of each source, and of all together as they are mixed in training.

    Args:
        parts: of each source by its name; one alone has the name ''.
        shares: of each source in the samples, in the same order; together 1.
    """

    def __init__(self, parts: Mapping[str, Validation], shares: Sequence[float]) -> None:
        self._parts = parts
        self._shares = dict(zip(parts, shares, strict=True))

    def run(self, policy: Policy) -> dict[str, float]:
        """What Validation.run returns, weighted by the shares, and `loss/<source>` for each.

        Raises:
            UserError: a number is not finite; on every rank alike.
        """
        if len(self._parts) == 1:
            return next(iter(self._parts.values())).run(policy)
        values = {name: self._run_part(name, policy) for name in self._parts}
        kinds = next(iter(values.values()))
        totals = {
            kind: sum(self._shares[name] * each[kind] for name, each in values.items())
            for kind in kinds
        }
        return totals | {
            f"{kind}/{name}": each[kind] for kind in kinds for name, each in values.items()
        }

    def _run_part(self, name: str, policy: Policy) -> dict[str, float]:
        try:
            return self._parts[name].run(policy)
        except UserError as error:
            faults = [f"data.mixture.{name}, {fault}" for fault in error.faults]
            raise UserError(faults) from None
