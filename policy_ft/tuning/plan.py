"""Which parameters learn when, and how fast: phases of group rules under one schedule."""

import itertools
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.config.tuning import GroupRule
from policy_ft.errors import UserError
from policy_ft.tuning.groups import GroupedModel, GroupPlan, plan_groups
from policy_ft.tuning.rates import learning_rate


@dataclass(frozen=True)
class Phase:
    """Rules that hold from an optimizer step on, until the next phase.

    Attributes:
        start: the first step, counted from 0; 0 for the first phase, None for one that waits.
        rules: in order, first match wins.
        warmup_steps: over which the rates of what begins to learn here rise.
    """

    start: int | None
    rules: tuple[GroupRule, ...]
    warmup_steps: int = 0


@dataclass(frozen=True)
class RateGroup:
    """Parameters that share a rate and a decay in every phase: one group of the optimizer.

    Attributes:
        names: of the parameters, in the model's order.
        lr_scales: of each phase; 0 where they do not learn.
        weight_decays: of each phase.
    """

    names: tuple[str, ...]
    lr_scales: tuple[float, ...]
    weight_decays: tuple[float, ...]


@dataclass(frozen=True)
class TuningPlan:
    """The decision for every parameter of a model in every phase, and the rate of every step.

    Attributes:
        phases: in order.
        of_phases: the plan of each phase.
        settings: the schedule, and the rate and decay of what no rule changes.
        began: place -> first step of the phases that waited and have begun; what a run adds here is
            saved with it.
    """

    phases: tuple[Phase, ...]
    of_phases: tuple[GroupPlan, ...]
    settings: OptimizerConfig
    began: dict[int, int] = field(default_factory=dict)

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that learn in any phase, in the model's order."""
        ever = {name for plan in self.of_phases for name in plan.trained}
        return tuple(a.parameter for a in self.of_phases[0].assignments if a.parameter in ever)

    @cached_property
    def groups(self) -> tuple[RateGroup, ...]:
        """The parameters that ever learn, by what they share."""
        ever, members = set(self.trained), dict[tuple[tuple[float, float], ...], list[str]]()
        for of_one in zip(*(plan.assignments for plan in self.of_phases), strict=True):
            if of_one[0].parameter in ever:
                key = tuple(
                    (a.lr_scale, a.weight_decay) if a.state == "trained" else (0.0, 0.0)
                    for a in of_one
                )
                members.setdefault(key, []).append(of_one[0].parameter)
        return tuple(
            RateGroup(tuple(names), *(tuple(part) for part in zip(*key, strict=True)))
            for key, names in members.items()
        )

    def index_at(self, train_step: int) -> int:
        """Which phase step `train_step` (counted from 0) belongs to."""
        starts = itertools.takewhile(
            lambda start: start is not None and start <= train_step,
            map(self.start_of, range(len(self.phases))),
        )
        return sum(1 for _ in starts) - 1

    def start_of(self, place: int) -> int | None:
        """The first step of a phase; None while it waits."""
        start = self.phases[place].start
        return self.began.get(place) if start is None else start

    def at(self, train_step: int) -> GroupPlan:
        """The plan of the phase that step `train_step` belongs to."""
        return self.of_phases[self.index_at(train_step)]

    def lr_at(self, train_step: int, group: RateGroup) -> float:
        """The learning rate of a group in one step (counted from 0); 0 where it does not learn.

        What begins to learn in a phase with a warm-up of its own has
        (steps in the phase + 1) / (warmup_steps + 1) of its rate until that is 1.
        """
        place = self.index_at(train_step)
        rate = learning_rate(train_step, self.settings) * group.lr_scales[place]
        warmup, start = self.phases[place].warmup_steps, self.start_of(place)
        assert start is not None, "the phase has begun"
        if warmup and place and not group.lr_scales[place - 1]:
            rate *= min((train_step - start + 1) / (warmup + 1), 1.0)
        return rate

    def parameter_groups(self, model: nn.Module) -> list[dict[str, object]]:
        """What torch optimizers take: the parameters of each of `groups`."""
        parameters = dict(model.named_parameters())
        return [
            {
                "params": [parameters[name] for name in group.names],
                "place": place,
                "lr": self.settings.lr * group.lr_scales[0],
                "weight_decay": group.weight_decays[0],
            }
            for place, group in enumerate(self.groups)
        ]

    def set_rates(
        self, optimizer: torch.optim.Optimizer, train_step: int, factor: float = 1.0
    ) -> float:
        """Gives every group of the optimizer its rate and its decay in a step (counted from 0).

        Returns the rate of a group whose scale is 1.

        Args:
            optimizer: made of `parameter_groups`.
            train_step: about to be taken.
            factor: multiplies every rate.
        """
        phase = self.index_at(train_step)
        for group in optimizer.param_groups:
            own = self.groups[group["place"]]
            group["lr"] = self.lr_at(train_step, own) * factor
            group["weight_decay"] = own.weight_decays[phase]
        return learning_rate(train_step, self.settings) * factor


def plan_tuning(
    model: GroupedModel, phases: Sequence[Phase], settings: OptimizerConfig, reached: Set[str]
) -> TuningPlan:
    """The plan of all phases; see `plan_groups`.

    Raises:
        UserError: rules that cannot be honoured, of all phases at once.
    """
    plans, faults = [], list[str]()
    for place, phase in enumerate(phases):
        try:
            plans.append(plan_groups(model, phase.rules, settings, reached))
        except UserError as error:
            where = "tuning.groups" if place == 0 else f"tuning.phases[{place - 1}].groups"
            faults += [fault.replace("tuning.groups", where, 1) for fault in error.faults]
    if faults:
        raise UserError(faults)
    return TuningPlan(tuple(phases), tuple(plans), settings)
