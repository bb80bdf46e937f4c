"""The seam for what acts while a run goes on: averages of the weights, early stops, probes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from policy_ft.errors import UserError, describe
from policy_ft.models.objective import Objective
from policy_ft.policy import Policy
from policy_ft.tuning.averaging import Ema
from policy_ft.tuning.plan import TuningPlan


@dataclass
class RunView:
    """What a hook sees of its run, and may ask of it.

    Attributes:
        policy: that is trained; its weights are those the optimizer works on.
        plan: which parameters learn when, and how fast.
        optimizer: over every parameter that ever learns.
        objectives: what is minimised.
        say: shows a person a line, on the first process.
        load_start: the policy that the run began with, where that is no longer what `policy` has:
            in a resumed run.
        lr_factor: multiplies every learning rate; saved with the run.
        stop_reason: why the run is to end after this step; empty to go on.
    """

    policy: Policy
    plan: TuningPlan
    optimizer: torch.optim.Optimizer
    objectives: Sequence[Objective]
    say: Callable[[str], object]
    load_start: Callable[[], Policy] | None = None
    lr_factor: float = 1.0
    stop_reason: str = ""
    _start: Policy | None = field(default=None, init=False)

    def starting_policy(self) -> Policy:
        """The policy that the run began with, frozen and in evaluation mode; one for all who ask.

        To be asked for in `begin`: a new run copies its weights then, a resumed run makes them
        again of its settings.

        Raises:
            UserError: the checkpoint that the run began with has gone or has other weights now.
        """
        if self._start is None:
            if self.load_start is None:
                model = deepcopy(self.policy.model)
            else:
                device = next(self.policy.model.parameters()).device
                model = self.load_start().model.to(device)
            self._start = replace(self.policy, model=model.eval().requires_grad_(False))
        return self._start

    def request_stop(self, reason: str) -> None:
        """Ends the run after this step, which is then measured and saved as its last."""
        self.stop_reason = self.stop_reason or reason

    def scale_rates(self, factor: float) -> None:
        """Multiplies every learning rate from the next step on."""
        self.lr_factor *= factor


class Hook:
    """Something that acts while a run goes on; every method does nothing until a subclass does.

    Its state lies in every checkpoint and comes back when the run is resumed. On several processes
    each has its own, and all must do the same.

    Attributes:
        name: names the state in the checkpoint; unique among the hooks of a run.
        replaces_weights: whether `measuring` puts other weights in; checkpoints then hold both.
        works_on_shards: whether it does the same where each process holds a part of every weight
            (training.shard): true of one that reads none, or each by `policy_ft.ranks`.
    """

    name: str
    replaces_weights: bool = False
    works_on_shards: bool = False

    def begin(self, run: RunView) -> None:
        """Called once, before the first step and before any state is loaded.

        In a resumed run the model has the weights of its checkpoint by then: what the run began
        with is `run.starting_policy()`.
        """

    def after_backward(self, train_step: int) -> None:
        """Called when the gradients of step `train_step` (from 1) are there, before clipping."""

    def after_step(self, train_step: int) -> Mapping[str, float]:
        """Called after the optimizer's step; returns what to log, averaged between two records."""
        return {}

    def after_measure(self, train_step: int, kind: str, values: Mapping[str, float]) -> None:
        """Called with what a validation or a rollout ('validation', 'rollout') has found.

        The step may be on the disk by then: what changes here must be JSON in `state_dict`, which
        is written again; tensors are not.
        """

    def measuring(self) -> AbstractContextManager[None]:
        """Around every measurement, and around saving the policy: what is saved is what counted."""
        return nullcontext()

    def state_dict(self) -> Mapping[str, Tensor | JsonValue]:
        """Everything that a resumed run needs: tensors, and what JSON can hold (no infinity)."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor | JsonValue]) -> None:
        """Takes up what `state_dict` gave, while the model has the weights that were measured.

        Tensors are in host memory, whatever device they were saved from.
        """


class Averaging(Hook):
    """The running average of the weights, which is measured and saved in their place."""

    name = "average"
    replaces_weights = True
    works_on_shards = True

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def begin(self, run: RunView) -> None:
        """Starts at the weights as they are."""
        trained = set(run.plan.trained)
        parameters = {n: p for n, p in run.policy.model.named_parameters() if n in trained}
        self._ema = Ema(parameters, self.decay)

    def after_step(self, train_step: int) -> Mapping[str, float]:
        """Moves the average."""
        self._ema.update()
        return {}

    def measuring(self) -> AbstractContextManager[None]:
        """The averages in place of the weights."""
        return self._ema.swapped()

    def state_dict(self) -> Mapping[str, Tensor | JsonValue]:
        """How many updates there were; the averages are the weights of the saved policy."""
        return {"num_updates": self._ema.num_updates}

    def load_state_dict(self, state: Mapping[str, Tensor | JsonValue]) -> None:
        """Averages from the weights that the model has, which are those that were saved."""
        num_updates = state["num_updates"]
        assert isinstance(num_updates, int)
        self._ema.restart(num_updates)


@dataclass(frozen=True)
class Hooks:
    """The hooks of a run, called in their order.

    Attributes:
        members: the hooks, each of a name of its own.
        model: whose parameters no hook may freeze or unfreeze.
    """

    members: tuple[Hook, ...]
    model: nn.Module

    @classmethod
    def of(cls, hooks: Sequence[Hook], objectives: Sequence[Objective], model: nn.Module) -> Self:
        """The hooks, and the objectives that are hooks as well."""
        return cls((*hooks, *(each for each in objectives if isinstance(each, Hook))), model)

    def begin(self, run: RunView) -> None:
        """Before the first step."""
        with self._guarded():
            for hook in self.members:
                hook.begin(run)

    def after_backward(self, train_step: int) -> None:
        """When the gradients are there."""
        with self._guarded():
            for hook in self.members:
                hook.after_backward(train_step)

    def after_step(self, train_step: int) -> dict[str, float]:
        """After the optimizer's step; what to log, each under '<hook>/<name>'."""
        with self._guarded():
            return {
                f"{hook.name}/{name}": value
                for hook in self.members
                for name, value in hook.after_step(train_step).items()
            }

    def after_measure(self, train_step: int, kind: str, values: Mapping[str, float]) -> None:
        """After a measurement."""
        with self._guarded():
            for hook in self.members:
                hook.after_measure(train_step, kind, values)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """The weights that are measured and saved, inside the block."""
        with ExitStack() as stack:
            for hook in self.members:
                stack.enter_context(hook.measuring())
            yield

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """UserError where a hook freezes or unfreezes: the optimizer would not hear of it."""
        before = [parameter.requires_grad for parameter in self.model.parameters()]
        yield
        changed = [
            name
            for (name, parameter), was in zip(self.model.named_parameters(), before, strict=True)
            if parameter.requires_grad != was
        ]
        if changed:
            raise UserError(
                describe(
                    f"hooks {[hook.name for hook in self.members]}",
                    f"requires_grad changed of {len(changed)} parameters, first {changed[0]!r}",
                    "parameters that learn as tuning.groups and tuning.phases say",
                    "Write a phase (tuning.phases) instead: only then the optimizer, its state and "
                    "a resumed run follow.",
                )
            )
