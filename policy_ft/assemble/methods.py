"""The methods of a run: what it minimises, and what acts while it goes on."""

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from policy_ft.config.measures import Standstill
from policy_ft.config.run import OwnMethod, RunConfig
from policy_ft.errors import Faults, UserError, describe, raise_faults
from policy_ft.models.objective import Objective
from policy_ft.objectives.flow import Flow
from policy_ft.objectives.l2_sp import L2Sp
from policy_ft.objectives.lwf import LearningWithoutForgetting
from policy_ft.training.hooks import Averaging, Hook
from policy_ft.training.standstill import EarlyStop, PhaseStart, Plateau

Method = Hook | Objective


@dataclass(frozen=True)
class Methods:
    """What a run minimises and what acts while it goes on.

    Attributes:
        objectives: flow matching first; some are hooks as well.
        hooks: that are no objectives.
        given: names of those that no setting asks for.
    """

    objectives: tuple[Objective, ...]
    hooks: tuple[Hook, ...]
    given: tuple[str, ...] = ()

    @property
    def acting(self) -> tuple[Method, ...]:
        """All of them."""
        return (*self.objectives, *self.hooks)


def build_methods(config: RunConfig, given: Sequence[Method] = ()) -> Methods:
    """The methods that the settings ask for, and those that are given, in this order.

    Raises:
        UserError: a method of the settings cannot be made, or two have one name.
    """
    methods: list[Method] = [Flow()]
    ema, l2_sp, plateau = config.tuning.ema, config.objectives.l2_sp, config.optimizer.plateau
    lwf = config.objectives.lwf
    if lwf != "off":
        methods.append(LearningWithoutForgetting(lwf, config.seed))
    if l2_sp != "off":
        methods.append(L2Sp(l2_sp.weight))
    if ema != "off":
        methods.append(Averaging(ema.decay))
    if plateau != "off":
        methods.append(Plateau(plateau, plateau.factor))
    methods += [
        PhaseStart(phase.start, place)
        for place, phase in enumerate(config.tuning.phases, start=1)
        if isinstance(phase.start, Standstill)
    ]
    if (early_stop := config.training.early_stop) != "off":
        methods.append(EarlyStop(early_stop))
    faults = Faults()
    for place, own in enumerate(config.methods):
        made = faults.of(partial(_made, own, f"methods.{place}"))
        methods += [] if made is None else [made]
    methods += given
    counts = Counter(method.name for method in methods)
    faults.extend(
        describe(
            "methods",
            f"{count} of the name {name!r}",
            "each name once: it names what they log and what is saved of them",
            "Leave one out, or give one's class another `name`.",
        )
        for name, count in counts.items()
        if count > 1
    )
    raise_faults(faults.listed)
    return Methods(
        tuple(method for method in methods if isinstance(method, Objective)),
        tuple(method for method in methods if not isinstance(method, Objective)),
        tuple(method.name for method in given),
    )


def _made(own: OwnMethod, where: str) -> Method:
    """The method that a setting names by its class."""
    module_name, _, name = own.path.partition(":")
    try:
        made: Any = getattr(import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        remedy = "Correct the name, or put the module's folder on PYTHONPATH."
        raise UserError(
            describe(f"{where}.path", f"{own.path!r} ({error})", "a class that is there", remedy)
        ) from None
    if not (inspect.isclass(made) and issubclass(made, (Hook, Objective))):
        expected = "a class derived from Hook (policy_ft.training.hooks) or Objective"
        remedy = "Derive it; docs/how-training-works.md has an example of each."
        raise UserError(describe(f"{where}.path", f"{own.path!r}, {made!r}", expected, remedy))
    try:
        inspect.signature(made).bind(**own.args)
    except TypeError as error:
        expected = f"those of {name}{inspect.signature(made)}"
        raise UserError(
            describe(f"{where}.args", f"{own.args} ({error})", expected, "Correct the arguments.")
        ) from None
    method: Method = made(**own.args)
    return method
