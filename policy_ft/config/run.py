"""RunConfig: everything that decides a training run, and is saved in its checkpoints."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, JsonValue, StrictBool, Tag, model_validator

from policy_ft.config.base import NonNegativeInt, PositiveInt, Real, Seed, Settings, on_or_off
from policy_ft.config.data import DataConfig
from policy_ft.config.starting_policy import NewPolicy, PretrainedPolicy


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
    ema: Annotated[
        Annotated[EmaConfig, Tag("on")] | Annotated[Literal["off"], Tag("off")],
        Discriminator(on_or_off),
    ] = Field(
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
    feature_cache_gb: Real = Field(
        0.0,
        ge=0,
        description="Host memory of each process, in 10^9 bytes, that keeps what the frozen "
        "backbone computed of each window, so that later epochs do not run it: of the vision "
        "tower when that is frozen, or of the whole backbone. 0: computes it at every step.",
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


class ValidationConfig(Settings):
    """The loss on held-out episodes, on a fixed grid of noise and flow time."""

    every: PositiveInt = Field(500, description="Train steps between two validations.")
    num_windows: PositiveInt = Field(
        256,
        description="Windows of the held-out episodes, evenly spread; all of them when there are "
        "fewer.",
    )
    num_noise: PositiveInt = Field(2, description="Noise draws per window and time.")
    times: tuple[Annotated[Real, Field(gt=0, le=1)], ...] = Field(
        (0.1, 0.3, 0.5, 0.7, 0.9),
        min_length=1,
        description="Flow times of the grid; 1 is noise, 0 is data.",
    )


class EvaluationConfig(Settings):
    """Rollouts in a Gymnasium environment; their success selects the best checkpoint."""

    env: str = Field(
        "eval_envs:Tabletop-v0", description="Gymnasium id with its module: 'module:Id-v0'."
    )
    env_args: dict[str, JsonValue] = Field(
        default_factory=dict, description="Keyword arguments of gymnasium.make, e.g. task."
    )
    episodes: PositiveInt = Field(
        50, description="Episodes of one evaluation, divided evenly over the environments."
    )
    seed: Seed = Field(
        10_000, description="Seed of the first episode; the next ones count up from it."
    )
    num_envs: PositiveInt = Field(1, description="Environments stepped side by side.")
    replan_steps: PositiveInt = Field(
        description="Steps of each chunk that are executed before predicting again."
    )
    every: PositiveInt = Field(
        description="Train steps between two evaluations; the last step is always evaluated."
    )


class RunConfig(Settings):
    """One training run, complete."""

    seed: Seed = Field(
        0, description="Decides weights, split, order and noise; two seeds are two runs."
    )
    output_dir: str = Field(min_length=1, description="Directory of metrics and checkpoints.")
    policy: NewPolicy | PretrainedPolicy = Field(
        discriminator="kind", description="What is trained."
    )
    data: DataConfig = Field(description="The demonstrations.")
    tuning: TuningConfig = Field(TuningConfig(), description="Which parameters move.")
    optimizer: OptimizerConfig = Field(
        OptimizerConfig(), description="The optimizer and its schedule."
    )
    training: TrainingConfig = Field(description="Length, batch, precision and saving.")
    validation: ValidationConfig = Field(
        ValidationConfig(), description="The loss on held-out episodes."
    )
    evaluation: Annotated[
        Annotated[EvaluationConfig, Tag("on")] | Annotated[Literal["off"], Tag("off")],
        Discriminator(on_or_off),
    ] = Field("off", description="Rollouts during training, or 'off'.")

    @model_validator(mode="after")
    def _executes_what_is_predicted(self) -> Self:
        if self.policy.kind == "new" and self.evaluation != "off":
            horizon, replan = self.policy.model.action_horizon, self.evaluation.replan_steps
            if replan > horizon:
                raise ValueError(
                    f"evaluation.replan_steps: found {replan} with policy.model.action_horizon "
                    f"{horizon}; expected at most the horizon. Lower replan_steps: a chunk has no "
                    "more steps."
                )
        return self

    @model_validator(mode="after")
    def _says_whose_statistics(self) -> Self:
        """Nobody can tell which is right: a default would be a guess."""
        chosen = self.data.mixture_statistics
        is_from_data = self.policy.kind == "new" or self.policy.statistics == "data"
        is_needed = bool(self.data.mixture) and is_from_data
        if is_needed and chosen is None:
            raise ValueError(
                "data.mixture_statistics: found none for statistics from several datasets; "
                "expected shared or own. Say shared where one robot recorded all, own where "
                "ranges differ."
            )
        if not is_needed and chosen is not None:
            why = "policy.statistics checkpoint" if self.data.mixture else "data.path"
            raise ValueError(
                f"data.mixture_statistics: found {chosen!r} with {why}; expected none. Remove it"
                + (", or set policy.statistics to data." if self.data.mixture else ".")
            )
        return self
