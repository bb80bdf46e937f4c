"""ObjectivesConfig: what is minimised beside the flow loss."""

from typing import Literal

from pydantic import Field

from policy_ft.config.base import OrOff, PositiveInt, Real, Settings


class L2SpConfig(Settings):
    """A penalty on the way from the weights that the run began with (L2-SP, Li et al. 2018)."""

    weight: Real = Field(
        gt=0,
        description="Multiplies the sum of squared differences of all weights that learn. Large "
        "values hold the policy where it was: begin at 1e-3 and look at l2_sp in the metrics.",
    )


class LwfConfig(Settings):
    """Learning without forgetting: the policy of the start is asked on the new task's scenes."""

    weight: Real = Field(1.0, gt=0, description="Of the term in the loss.")
    sentences: Literal["checkpoint"] | tuple[str, ...] | str = Field(
        "checkpoint",
        description="Instructions that the starting policy knew: those that its checkpoint "
        "records, a list, or the path of a text file with one a line. Those of the new data "
        "are left out.",
    )
    share: Real = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of each step's samples that are asked. The cost grows with it; with few "
        "the gradient is noisy, and the new task is learned less well.",
    )
    target: Literal["velocity", "chunk"] = Field(
        "velocity",
        description="Where the policy is drawn to: the starting policy's velocity, which costs "
        "passes of it for each sample, or its chunk, which is made once for each window and "
        "sentence and then kept.",
    )
    draws: PositiveInt = Field(
        4, description="Noise draws and times for each sample that is asked."
    )
    num_steps: PositiveInt = Field(
        4, description="Solver steps with which the starting policy makes its chunks."
    )
    sentences_per_window: PositiveInt = Field(
        4,
        description="With target chunk: different sentences for each window of the data. More is "
        "more varied, and asks for and keeps more chunks (of pi0 6 kB each).",
    )


class ObjectivesConfig(Settings):
    """Terms of the loss beside flow matching; each is told in the metrics by its name."""

    lwf: OrOff[LwfConfig] = Field(
        "off",
        description="Keeps the policy near the starting one where sentences are old, without old "
        "data.",
    )
    l2_sp: OrOff[L2SpConfig] = Field("off", description="Draws the weights back to their start.")
