"""TrainingConfig: the length of a run, its batches, precision, memory and saving."""

from typing import Literal, Self

from pydantic import Field, StrictBool, model_validator

from policy_ft.config.base import OrOff, PositiveInt, Real, Settings
from policy_ft.config.measures import Standstill


class EarlyStopConfig(Standstill):
    """The end of a run whose measure has stopped to improve; its best checkpoint stays."""


class TrainingConfig(Settings):
    """The length of the run and what every step does. Steps are optimizer steps."""

    steps: PositiveInt = Field(description="Optimizer steps of the whole run.")
    batch_size: PositiveInt = Field(
        description="Samples of one optimizer step, over all processes and micro-batches."
    )
    accumulation_steps: PositiveInt = Field(
        1,
        description="Micro-batches of one optimizer step. More saves memory; the result is the "
        "same, up to rounding and the masks of dropout.",
    )
    noise_draws: PositiveInt = Field(
        1,
        description="Noise draws per sample that share one pass of the backbone. More lowers the "
        "variance of the loss at the price of the action expert alone.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Of the computation, in rollouts and wherever the checkpoint is used, too; "
        "weights stay float32. auto: bf16 where the device has it, else fp32.",
    )
    activation_checkpointing: StrictBool = Field(
        False,
        description="Whether blocks keep only their inputs and compute the rest again in the "
        "backward pass. Costs a third more computation; memory for activations falls several "
        "times.",
    )
    compile: StrictBool = Field(
        False,
        description="Whether training runs blocks compiled by torch.compile. The first steps wait "
        "for the compiler (on a CPU minutes, and it needs a C++ compiler), later ones are faster; "
        "validation and rollouts are not compiled.",
    )
    shard: StrictBool = Field(
        False,
        description="Whether each process holds a part of every weight, gradient, moment and "
        "average (FSDP2) and the others' parts only while a block computes: with n processes, "
        "about 1/n of their memory. Costs three passages of the weights between the processes in "
        "every micro-batch. For models that do not fit one device whole; without effect in one "
        "process.",
    )
    feature_cache_gb: Real = Field(
        0.0,
        ge=0,
        description="Host memory of each process, in 10^9 bytes, that keeps what the frozen "
        "backbone computed of each window, so that later epochs do not run it: of the vision "
        "tower when that is frozen, or of the whole backbone. 0: computes it at every step.",
    )
    early_stop: OrOff[EarlyStopConfig] = Field(
        "off", description="Ends the run before its last step where a measure stops to improve."
    )
    deterministic: StrictBool = Field(
        False,
        description="Whether to allow only deterministic kernels, so that reruns and resumed runs "
        "are bit-equal.",
    )
    num_threads: PositiveInt | Literal["all"] = Field(
        "all",
        description="CPU threads of the training process; 'all' leaves torch its default, one per "
        "core.",
    )
    log_every: PositiveInt = Field(10, description="Train steps between two lines of metrics.")
    save_every: PositiveInt = Field(1000, description="Train steps between two checkpoints.")
    keep: PositiveInt = Field(
        2, description="Newest checkpoints kept; the best one is kept beside them."
    )
    tensorboard: StrictBool = Field(
        False, description="Whether to write TensorBoard files too (extra 'track')."
    )

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch_size % self.accumulation_steps:
            raise ValueError(
                f"accumulation_steps: found {self.accumulation_steps} with batch_size "
                f"{self.batch_size}; expected a divisor of batch_size. Change one of the two."
            )
        return self
