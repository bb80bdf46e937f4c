"""OptimizerConfig: AdamW and the schedule of its rate."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policy_ft.config.base import NonNegativeInt, OrOff, PositiveInt, Real, Settings
from policy_ft.config.measures import Standstill


class PlateauConfig(Standstill):
    """Rates that fall when a measure stops to improve, on top of the schedule."""

    factor: Real = Field(0.5, gt=0, lt=1, description="Multiplies every learning rate.")


class OptimizerConfig(Settings):
    """AdamW with linear warm-up and a schedule; durations are optimizer steps.

    The defaults are openpi's for pi0.
    """

    lr: Real = Field(2.5e-5, gt=0, description="Peak learning rate.")
    betas: tuple[Annotated[Real, Field(ge=0, lt=1)], Annotated[Real, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.95), description="Decay of the running means of the gradient and of its square."
    )
    eps: Real = Field(1e-8, gt=0, description="Added to the root of the second moment.")
    weight_decay: Real = Field(
        1e-10,
        ge=0,
        description="Decoupled weight decay; not applied to norms, biases and embeddings.",
    )
    warmup_steps: NonNegativeInt = Field(
        1000, description="Steps of linear warm-up, from lr / (warmup_steps + 1)."
    )
    schedule: Literal["cosine", "linear", "constant", "inverse_sqrt"] = Field(
        "cosine",
        description="What follows the warm-up: a cosine or a line from lr to final_lr at "
        "decay_steps, lr itself, or lr * sqrt((warmup_steps + 1) / (step + 1)) down to final_lr.",
    )
    decay_steps: PositiveInt = Field(
        30_000,
        description="Step at which cosine and linear reach final_lr; the rate stays there "
        "afterwards.",
    )
    final_lr: Real = Field(
        2.5e-6, ge=0, description="Lowest learning rate of every schedule but constant."
    )
    clip_norm: Real = Field(
        1.0, gt=0, description="Gradients are scaled down to this total norm when above it."
    )

    plateau: OrOff[PlateauConfig] = Field(
        "off", description="Lower rates where a measure stops to improve."
    )

    @model_validator(mode="after")
    def _goes_up_then_down(self) -> Self:
        if self.decay_steps <= self.warmup_steps:
            raise ValueError(
                f"decay_steps: found {self.decay_steps} with warmup_steps {self.warmup_steps}; "
                "expected more than warmup_steps. Raise decay_steps or lower warmup_steps."
            )
        if self.final_lr > self.lr:
            raise ValueError(
                f"final_lr: found {self.final_lr} with lr {self.lr}; expected at most lr. Lower "
                "final_lr or raise lr."
            )
        return self
