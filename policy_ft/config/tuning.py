"""TuningConfig: which parameters learn, when and how fast, and how their average is kept."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, model_validator

from policy_ft.config.base import NonNegativeInt, OrOff, PositiveInt, Real, Settings
from policy_ft.config.measures import Standstill


class GroupRule(Settings):
    """How the parameters that a pattern names are trained."""

    pattern: str = Field(
        min_length=1,
        description="A group name, which covers all groups below it ('language' covers "
        "'language.layers.3'), or a shell pattern over group or parameter names "
        "('*.bias').",
    )
    lr_scale: Real = Field(
        1.0,
        gt=0,
        description="Multiplies optimizer.lr. Use frozen for parameters that must not move.",
    )
    lr_decay: Real = Field(
        1.0,
        gt=0,
        le=1,
        description="Multiplies the rate once more for each layer between a parameter and the "
        "last one of its tower (vision, language, expert): 0.9 leaves the last layer its rate and "
        "gives the one before 0.9 of it, and so on down.",
    )
    frozen: StrictBool = Field(
        False, description="Whether the parameters stay exactly as they are."
    )
    weight_decay: Annotated[Real, Field(ge=0)] | Literal["optimizer"] = Field(
        "optimizer",
        description="Weight decay of these parameters, norms, biases and embeddings among them "
        "too; 'optimizer' takes optimizer.weight_decay and spares those.",
    )

    @model_validator(mode="after")
    def _frozen_needs_nothing_else(self) -> Self:
        fields = type(self).model_fields
        names = ("lr_scale", "lr_decay", "weight_decay")
        also = [name for name in names if getattr(self, name) != fields[name].default]
        if self.frozen and also:
            raise ValueError(
                f"{also[0]}: found {getattr(self, also[0])!r} beside frozen: true; expected no "
                f"{also[0]} for parameters that do not move. Remove one of the two."
            )
        return self


class PhaseConfig(Settings):
    """Rules that take the place of those before, from an optimizer step on."""

    start: PositiveInt | Annotated[StrictFloat, Field(gt=0, lt=1)] | Standstill = Field(
        description="The first optimizer step, counted from 0; or a fraction of training.steps, "
        "e.g. 0.3; or, as {of: validation, patience: 3}, when a measure has stopped to improve "
        "since the phase before began."
    )
    groups: tuple[GroupRule, ...] = Field(
        description="Rules as in tuning.groups; [] trains everything."
    )
    warmup_steps: NonNegativeInt = Field(
        0,
        description="Steps over which the rates of what begins to learn in this phase rise "
        "linearly; the others go on as they were.",
    )

    def first_step(self, num_steps: int) -> int | None:
        """The first optimizer step in a run of so many; None where a measure decides."""
        match self.start:
            case int(step):
                return step
            case float(fraction):
                return round(fraction * num_steps)
        return None


class EmaConfig(Settings):
    """The running average of the weights that validation, rollouts and export use."""

    decay: Real = Field(
        0.999,
        gt=0,
        lt=1,
        description="Share of the old average kept at every train step, after a warm-up of (1 + t) "
        "/ (10 + t). Nearer to 1 is smoother and lags more; 0.99 in openpi, 0.999 in "
        "its LIBERO recipe.",
    )


class TuningConfig(Settings):
    """Which parameters move, how fast, and how they are averaged."""

    groups: tuple[GroupRule, ...] = Field(
        (),
        description="Rules in order; the first that matches a parameter decides. What none matches "
        "trains at lr_scale 1.",
    )
    phases: tuple[PhaseConfig, ...] = Field(
        (),
        description="Rules for later parts of the run, in their order: gradual unfreezing. "
        "Each phase's stand alone, they do not add to those before.",
    )
    ema: OrOff[EmaConfig] = Field(
        EmaConfig(), description="The average of the weights, or 'off' to use the last weights."
    )
