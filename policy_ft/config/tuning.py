"""TuningConfig: which parameters learn, when and how fast, and how their average is kept."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, model_validator

from policy_ft.config.base import OrOff, PositiveInt, Real, Settings


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
        names = ("lr_scale", "weight_decay")
        also = [name for name in names if getattr(self, name) != fields[name].default]
        if self.frozen and also:
            raise ValueError(
                f"{also[0]}: found {getattr(self, also[0])!r} beside frozen: true; expected no "
                f"{also[0]} for parameters that do not move. Remove one of the two."
            )
        return self


class PhaseConfig(Settings):
    """Rules that take the place of those before, from an optimizer step on."""

    start: PositiveInt = Field(description="The first optimizer step, counted from 0.")
    groups: tuple[GroupRule, ...] = Field(
        description="Rules as in tuning.groups; [] trains everything."
    )


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
        description="Rules for later parts of the run, ascending by start: gradual unfreezing. "
        "Each phase's stand alone, they do not add to those before.",
    )
    ema: OrOff[EmaConfig] = Field(
        EmaConfig(), description="The average of the weights, or 'off' to use the last weights."
    )

    @model_validator(mode="after")
    def _phases_follow_one_another(self) -> Self:
        starts = [phase.start for phase in self.phases]
        if starts != sorted(set(starts)):
            raise ValueError(
                f"phases: found the starts {starts}; expected each later than the one before. Sort "
                "the phases, and give each a start of its own."
            )
        return self
