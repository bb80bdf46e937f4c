"""Validation on held-out episodes over a fixed grid: a number without sampling variance."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor

from policy_ft.config.run import RunConfig
from policy_ft.data.noise import Purpose, flow_noise
from policy_ft.data.windows import WindowDataset
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.policy import Policy
from policy_ft.training.step import autocast, loss_of_each_sample, to_device
from policy_ft.transforms import stacked

NUM_SAMPLED_WINDOWS = 32
"""Windows whose actions are sampled; ten times the cost of the loss for each, so only a few."""


class Validation:
    """The flow loss and the error of sampled actions on windows of the held-out episodes.

    Windows are evenly spread over the held-out steps. Each is seen at every flow time of the grid
    with the same noise, a function of (seed, window, draw), so that two validations of the same
    weights give the same number and the difference between two steps is due to the weights alone.
    The ranks divide the windows.

    Args:
        windows: of the held-out episodes.
        config: of the run.
        accelerator: adds up what the ranks found.
        dtype: of autocast, None for none.
    """

    def __init__(
        self,
        windows: WindowDataset,
        config: RunConfig,
        accelerator: Accelerator,
        dtype: torch.dtype | None,
    ) -> None:
        self._windows = windows
        self._seed = config.seed
        self._grid = config.validation
        self._accelerator = accelerator
        self._dtype = dtype
        micro_batches = accelerator.num_processes * config.training.accumulation_steps
        self._batch_size = max(config.training.batch_size // micro_batches, 1)

    @torch.no_grad()
    def run(self, policy: Policy) -> dict[str, float]:
        """The mean squared errors loss (velocity, over the grid) and action_mse (sampled actions).

        Both in normalized units over real steps and columns, with the weights the model has at this
        moment.

        Raises:
            UserError: one of them is not finite; on every rank alike, as all see the same sums.
        """
        errors = [self._flow_error(policy, samples) for samples in self._loss_batches]
        errors += [self._action_error(policy, samples) for samples in self._action_batches]
        totals = torch.stack(errors).sum(0) if errors else torch.zeros(4, dtype=torch.float64)
        totals = self._accelerator.reduce(totals.to(self._accelerator.device), reduction="sum")
        flow, num_flow, action, num_action = totals.tolist()
        values = {"loss": flow / num_flow, "action_mse": action / num_action}
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

    def _flow_error(self, policy: Policy, samples: dict[str, Tensor]) -> Tensor:
        batch = to_device(samples, policy.transforms, self._accelerator.device)
        with autocast(self._accelerator.device, self._dtype):
            losses = policy.model(batch.inputs, batch.actions, noise=batch.noise, time=batch.time)
        total = loss_of_each_sample(losses, batch.valid).sum(dtype=torch.float64)
        nothing = torch.zeros_like(total)
        return torch.stack([total, batch.num_valid, nothing, nothing])

    def _action_error(self, policy: Policy, samples: dict[str, Tensor]) -> Tensor:
        batch = to_device(samples, policy.transforms, self._accelerator.device)
        with autocast(self._accelerator.device, self._dtype):
            chunks = policy.model.sample_actions(
                batch.inputs,
                noise=batch.noise[:, 0],
                num_steps=policy.config.num_sampling_steps,
                real_columns=torch.as_tensor(
                    policy.transforms.action_dim_mask, device=batch.noise.device
                ),
            )
        valid = batch.valid[:, 0]
        total = (
            (chunks.float() - batch.actions)
            .square()
            .masked_fill(~valid, 0.0)
            .sum(dtype=torch.float64)
        )
        nothing = torch.zeros_like(total)
        return torch.stack([nothing, nothing, total, valid.sum(dtype=torch.float64)])

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
