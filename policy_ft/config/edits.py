"""Settings of edits: what the architecture of a plain network is changed by, in order."""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StrictBool, model_validator

from policy_ft.config.base import NonNegativeInt, PositiveInt, Real, Settings, Texts

PeftMethod = Literal["oft", "hra", "ia3", "loha", "lokr", "hira"]
"""Methods of peft that save, load and merge exactly with our models; each is tested."""


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
    rslora: StrictBool = Field(
        False,
        description="Whether alpha is divided by the root of rank, which keeps what large ranks "
        "add as large as what small ones do (Kalajdzievski 2023, rank-stabilized LoRA).",
    )
    dora: StrictBool = Field(
        False,
        description="Whether the lengths of the weight's rows learn apart from their directions "
        "(Liu et al. 2024, DoRA). A tenth slower or more; nearer to full fine-tuning.",
    )
    init: Literal["zero", "pissa"] = Field(
        "zero",
        description="zero: B is 0. pissa: A and B take the largest singular values out of the "
        "weight, whose rest stays under the adapter (Meng et al. 2024, PiSSA); learns faster, and "
        "the weight under it is no longer the base's.",
    )

    @property
    def scale(self) -> float:
        """What an adapter adds is multiplied by this."""
        alpha = self.rank if self.alpha == "rank" else self.alpha
        return alpha / (self.rank**0.5 if self.rslora else self.rank)

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.dora and self.init == "pissa":
            raise ValueError(
                "init: found 'pissa' with dora; expected one of the two, for each takes the weight "
                "apart in its own way. Leave one out."
            )
        return self


class PeftAdapter(Settings):
    """Adapters of another kind beside linear layers, made by peft; all start at no effect.

    The weights under an adapter never learn, as with lora.
    """

    kind: Literal["peft"]
    method: PeftMethod = Field(
        description="oft turns a layer's inputs (Qiu et al. 2023), hra reflects them (Yuan et al. "
        "2024), ia3 scales its outputs (Liu et al. 2022); loha and lokr add Hadamard and Kronecker "
        "products (LyCORIS), hira a product with the weight itself (Huang et al. 2025).",
    )
    target: Texts = Field(
        min_length=1, description="Which linear layers get an adapter: patterns, as of lora."
    )
    options: dict[str, JsonValue] = Field(
        {},
        description="Fields of the method's configuration in peft, e.g. {oft_block_size: 16} or "
        "{r: 8, alpha: 8}.",
    )


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


Edit = Annotated[Lora | PeftAdapter | DropLayers, Field(discriminator="kind")]
"""One change of an architecture; its kind says which."""
