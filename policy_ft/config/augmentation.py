"""AugmentationConfig: how training samples are varied; nothing else sees them so."""

from typing import Annotated

from pydantic import Field

from policy_ft.config.base import Real, Settings

Probability = Annotated[Real, Field(ge=0, le=1)]


class ImageAugmentation(Settings):
    """How one camera's images are varied. The defaults change nothing."""

    crop: Real = Field(
        1.0,
        gt=0,
        le=1,
        description="Side of a part of the image, as a share of the image's, that is cut out "
        "anywhere and enlarged to the whole; 0.95 in openpi.",
    )
    rotation_deg: Real = Field(
        0.0,
        ge=0,
        lt=180,
        description="Largest angle by which the image is turned, in degrees; 5 in openpi.",
    )
    brightness: Real = Field(
        0.0, ge=0, lt=1, description="Intensities times 1 - this to 1 + this; 0.3 in openpi."
    )
    contrast: Real = Field(
        0.0,
        ge=0,
        lt=1,
        description="Distances from the mean grey times 1 - this to 1 + this; 0.4 in openpi.",
    )
    saturation: Real = Field(
        0.0,
        ge=0,
        lt=1,
        description="Distances from each pixel's own grey times 1 - this to 1 + this; 0.5 in "
        "openpi.",
    )


class AugmentationConfig(ImageAugmentation):
    """Variations of the training samples, each a function of (seed, epoch, window)."""

    cameras: dict[str, ImageAugmentation] = Field(
        {},
        description="Camera -> its own image settings in place of those here. openpi turns and "
        "crops no wrist camera: {wrist: {brightness: 0.3, contrast: 0.4, saturation: 0.5}}.",
    )
    state_noise: Real = Field(
        0.0,
        ge=0,
        description="Standard deviation of the noise on the normalized state; 0.05 is mild.",
    )
    state_dropout: Probability = Field(
        0.0, description="Share of samples whose state is 0, its mean, to the model."
    )
    instruction_dropout: Probability = Field(
        0.0, description="Share of samples whose instruction is the empty text."
    )
    paraphrases: str | None = Field(
        None,
        description="YAML file with instruction -> list of others that mean the same; each "
        "sample takes one of them or its own, all with equal chance.",
    )
