"""Settings of edits: what the architecture of a plain network is changed by, in order."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policy_ft.config.base import NonNegativeInt, PositiveInt, Real, Settings, Texts


class Lora(Settings):
    """Low-rank adapters beside linear layers: y = W x + alpha / rank * B (A x), B zero at first.

    Source: Hu et al. 2021. The weights under an adapter never learn, and what else a target names
    learns only where a rule of tuning.groups says so.
    """

    kind: Literal["lora"]
    target: Texts = Field(
        min_length=1,
        description="Which linear layers get an adapter: one or several patterns as in "
        "tuning.groups ('language' covers 'language.layers.3'). A layer that an earlier edit has "
        "given one keeps that.",
    )
    rank: PositiveInt = Field(
        32,
        description="Rows of A and columns of B. openpi: 16 for the backbone and 32 for the "
        "expert; policies ask for more than language models do.",
    )
    alpha: Annotated[Real, Field(gt=0)] | Literal["rank"] = Field(
        "rank", description="Divided by rank, multiplies what an adapter adds; 'rank' makes that 1."
    )
    dropout: Real = Field(
        0.0, ge=0, lt=1, description="Share of an adapter's inputs left out at random in training."
    )

    @property
    def scale(self) -> float:
        """What an adapter adds is multiplied by this."""
        return 1.0 if self.alpha == "rank" else self.alpha / self.rank


class DropLayers(Settings):
    """Blocks of the decoder taken out, each with the action expert's block that reads it.

    Such a policy must be trained before it is of use; the model is smaller and faster by as much.
    """

    kind: Literal["drop_layers"]
    layers: tuple[NonNegativeInt, ...] = Field(
        min_length=1, description="Indices of the blocks, counted from 0 before any of them goes."
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(
                f"layers: found {list(self.layers)}; expected each index once. Remove the "
                "repetition."
            )
        return self


Edit = Annotated[Lora | DropLayers, Field(discriminator="kind")]
"""One change of an architecture; its kind says which."""
