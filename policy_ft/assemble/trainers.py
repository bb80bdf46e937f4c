"""The parts of a Trainer, made of settings, a policy and the data that fit it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator

from data_tools.columns import fingerprint_with
from data_tools.episode import Dataset
from policy_ft.assemble.methods import Methods, build_methods
from policy_ft.checkpoints.provenance import INSTRUCTIONS, noted_instructions
from policy_ft.config.run import RunConfig
from policy_ft.config.tuning import PhaseConfig
from policy_ft.data.augmentation import Augmentation
from policy_ft.data.loader import BatchLoader
from policy_ft.data.sources import fingerprints_by_source, sources_of, training_and_validation
from policy_ft.data.windows import MixedWindows, WindowDataset
from policy_ft.models.batch import Batch
from policy_ft.models.objective import Objective, reached
from policy_ft.models.vla import VLAModel
from policy_ft.policy import Policy
from policy_ft.training.launch import autocast_dtype, start_accelerator
from policy_ft.training.measure import Measure
from policy_ft.training.optimizer import build_optimizer
from policy_ft.training.sharding import require_shardable, shard
from policy_ft.training.state import RunIdentity
from policy_ft.training.store import Store
from policy_ft.training.success import success_in_rollouts
from policy_ft.training.trainer import Trainer
from policy_ft.training.validation import MixedValidation, Validation
from policy_ft.tuning.plan import Phase, TuningPlan, plan_tuning
from policy_ft.tuning.precision import widen_weights


def build_plan(
    config: RunConfig, model: VLAModel, objectives: Sequence[Objective] | None = None
) -> TuningPlan:
    """Which parameters learn when, and how fast.

    Args:
        config: the run's settings.
        model: that is trained.
        objectives: what is minimised; those of the settings where not given.

    Raises:
        UserError: rules that cannot be honoured.
    """
    tuning = config.tuning
    phases = [Phase(0, tuning.groups), *(_phase(each, config) for each in tuning.phases)]
    names = reached(objectives or build_methods(config).objectives, model)
    return plan_tuning(model, phases, config.optimizer, names)


def _phase(phase: PhaseConfig, config: RunConfig) -> Phase:
    return Phase(phase.first_step(config.training.steps), phase.groups, phase.warmup_steps)


def identity_of(
    config: RunConfig, episodes: Dataset, accelerator: Accelerator, methods: Methods
) -> RunIdentity:
    """What a run is: its settings and methods, the numbers of its data, and its processes."""
    columns = config.data.columns
    return RunIdentity(
        config,
        fingerprint_with(episodes, columns),
        fingerprints_by_source(episodes, columns),
        accelerator.num_processes,
        methods.given,
    )


def build_trainer(
    config: RunConfig,
    policy: Policy,
    episodes: Dataset,
    *,
    accelerator: Accelerator | None = None,
    plan: TuningPlan | None = None,
    methods: Methods | None = None,
    start: Path | None = None,
    load_start: Callable[[], Policy] | None = None,
    resume: bool = False,
    in_memory: bool = False,
) -> Trainer:
    """A run of these settings, ready to go; what is not given is built from them.

    Args:
        config: the run's settings.
        policy: trained in place.
        episodes: as the policy declares them.
        accelerator: of this process.
        plan: of these settings for this policy.
        methods: what is minimised and what acts while the run goes on.
        start: the checkpoint to go on from.
        load_start: makes the policy that the run began with, where `policy` is not that.
        resume: whether the run was asked to go on.
        in_memory: whether to leave no trace on the disk, for loops over trainings.
    """
    accelerator = accelerator or start_accelerator()
    methods = methods or build_methods(config)
    plan = plan or build_plan(config, policy.model, methods.objectives)
    model = policy.model
    model.autocast_dtype = autocast_dtype(config.training, accelerator.device)
    policy = _in_types_to_train(policy, plan)
    require_shardable(config.training, model, plan, methods.acting)
    if config.training.shard and accelerator.num_processes > 1:
        shard(model, accelerator)  # block by block: no device ever holds all of it
    else:
        model.to(accelerator.device)
    windows, held_out = training_and_validation(
        episodes, policy.transforms, config.data, config.seed
    )
    policy = _noting_instructions(policy, windows)
    identity = identity_of(config, episodes, accelerator, methods)
    return Trainer(
        policy=policy,
        plan=plan,
        optimizer=build_optimizer(model, plan, config.optimizer),
        batches=_batches(config, windows, accelerator),
        objectives=methods.objectives,
        settings=config.training,
        seed=config.seed,
        clip_norm=config.optimizer.clip_norm,
        accelerator=accelerator,
        hooks=methods.hooks,
        measures=_measures(config, policy, episodes, held_out, methods.objectives, accelerator),
        store=None if in_memory else Store(identity, accelerator, start, resume),
        load_start=load_start,
        augmentation=_augmentation(config, policy, windows),
    )


def _augmentation(
    config: RunConfig, policy: Policy, windows: WindowDataset | MixedWindows
) -> Callable[[Batch], Batch]:
    settings = config.data.augmentation
    if settings == "off":
        return lambda batch: batch
    return Augmentation(settings, policy.transforms, config.seed, windows.instruction)


def _noting_instructions(policy: Policy, windows: WindowDataset | MixedWindows) -> Policy:
    noted = {INSTRUCTIONS: noted_instructions(windows.instructions)}
    return replace(policy, provenance={**policy.provenance, **noted})


def _in_types_to_train(policy: Policy, plan: TuningPlan) -> Policy:
    """The policy, its weights in the types a run needs; a note tells what is larger for it."""
    widened = widen_weights(policy.model, plan.trained, policy.model.autocast_dtype)
    if not widened:
        return policy
    note = (
        f"{len(widened)} frozen tensors became float32, e.g. {widened[0]!r}: this run does not "
        "compute in the type they had"
    )
    report = replace(policy.load_report, notes=(*policy.load_report.notes, note))
    return replace(policy, load_report=report)


def _batches(
    config: RunConfig, windows: WindowDataset | MixedWindows, accelerator: Accelerator
) -> BatchLoader:
    training, data = config.training, config.data
    return BatchLoader(
        windows,
        order=windows.order(config.seed),
        seed=config.seed,
        batch_size=training.batch_size,
        num_draws=training.noise_draws,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        accumulation_steps=training.accumulation_steps,
        keeps_homes=training.feature_cache_gb > 0,
        num_workers=data.num_workers,
        prefetch=data.prefetch,
    )


def _measures(
    config: RunConfig,
    policy: Policy,
    episodes: Dataset,
    held_out: dict[str, WindowDataset],
    objectives: Sequence[Objective],
    accelerator: Accelerator,
) -> list[Measure]:
    """Validation, and rollouts where there are any: these then select the best checkpoint."""
    dtype, rollouts = policy.model.autocast_dtype, config.evaluation
    parts = {
        name: Validation(windows, objectives, config, accelerator, dtype)
        for name, windows in held_out.items()
    }
    validation = MixedValidation(parts, [source.share for source in sources_of(episodes)])
    measure = Measure("validation", config.validation.every, validation.run)
    if rollouts == "off":
        return [replace(measure, metric="validation_loss", value="loss")]

    def run(policy: Policy) -> dict[str, float]:
        return success_in_rollouts(policy, rollouts, accelerator)

    success = Measure(
        "rollout", rollouts.every, run, "rollout_success_rate", "success_rate", saves_first=True
    )
    return [measure, success]
