"""ObjectivesConfig: what is minimised beside the flow loss."""

from pydantic import Field

from policy_ft.config.base import OrOff, Real, Settings


class L2SpConfig(Settings):
    """A penalty on the way from the weights that the run began with (L2-SP, Li et al. 2018)."""

    weight: Real = Field(
        gt=0,
        description="Multiplies the sum of squared differences of all weights that learn. Large "
        "values hold the policy where it was: begin at 1e-3 and look at l2_sp in the metrics.",
    )


class ObjectivesConfig(Settings):
    """Terms of the loss beside flow matching; each is told in the metrics by its name."""

    l2_sp: OrOff[L2SpConfig] = Field("off", description="Draws the weights back to their start.")
