"""Settings become things here and nowhere else: policy, data, environment, and then a run."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from data_tools.episode import Dataset
from policy_ft.checkpoints.load import load_policy
from policy_ft.checkpoints.native import UNUSED_HASH
from policy_ft.checkpoints.parts import load_language, load_tower
from policy_ft.checkpoints.published.record import Fit
from policy_ft.config.data import DataConfig
from policy_ft.config.policy import NewPolicy, PretrainedPolicy, TrainedTokenizer
from policy_ft.config.run import RunConfig
from policy_ft.config.transforms import TransformsConfig
from policy_ft.data.fitting import fit_transforms
from policy_ft.data.motion import motion_remarks
from policy_ft.data.opening import aligned, is_to_be_collected, open_or_collect
from policy_ft.data.soundness import data_to_check, require_sound_data
from policy_ft.data.sources import Mixture, statistics_basis, training_indices
from policy_ft.errors import Faults, UserError, describe
from policy_ft.models.backbones.timm_tower import TimmTower
from policy_ft.models.build import build_model
from policy_ft.models.objective import reached
from policy_ft.models.vla import VLAModel
from policy_ft.objectives.flow import Flow
from policy_ft.policy import LoadReport, Policy
from policy_ft.preflight import (
    remarks,
    require_embodiment,
    require_fitting_data,
    require_images,
    require_loaded,
    require_named_robot,
    require_parts,
    require_rollouts,
    require_speed_settings,
)
from policy_ft.tokenization import read_tokenizer, train_tokenizer
from policy_ft.training import loop
from policy_ft.training.directory import TrainResult, starting_point
from policy_ft.training.hooks import Hook
from policy_ft.training.launch import start_accelerator
from policy_ft.training.metrics import require_tensorboard
from policy_ft.training.ownership import require_writable
from policy_ft.transforms import ModelShape, Transforms, prompt_text
from policy_ft.tuning.groups import GroupPlan, plan_groups

PARENT_KEYS = (
    "weights_sha256",
    "command",
    "data",
    "data_fingerprint",
    "seed",
    "train_step",
    "parent",
)


def train(
    config: RunConfig,
    policy: Policy | None = None,
    episodes: Dataset | None = None,
    env: str | None = None,
    *,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
    command: str = "",
) -> TrainResult:
    """Trains as `config` says and returns where the checkpoints are.

    What is not given is built from the config.

    Args:
        config: the run's settings.
        policy: trained in place, instead of config.policy.
        episodes: demonstrations, instead of those that config.data names.
        env: Gymnasium id for the rollouts, instead of config.evaluation.env.
        resume: go on from the newest complete checkpoint in config.output_dir.
        hooks: plugs that act after each step and whose state lies in every checkpoint.
        command: what a person typed, for the provenance of the checkpoints; left out when empty.

    Raises:
        UserError: anything that cannot be honoured; before the first step wherever it can be known
            by then.
    """
    config = config if env is None else _with_env(config, env)
    accelerator = start_accelerator()
    checkpoint = starting_point(Path(config.output_dir) / "checkpoints", resume=resume)
    if episodes is None:
        with accelerator.main_process_first():
            episodes = open_or_collect(config.data, config.seed)
    require_sound_data(config.data, episodes)
    if policy is not None:
        policy = _descended(policy)
    else:
        policy = (
            _starting_policy(config, episodes) if checkpoint is None else load_policy(checkpoint)
        )
        require_loaded(_plan(config, policy), policy)
    if command:
        policy = replace(policy, provenance={**policy.provenance, "command": command})
    episodes = _fitting(config, policy, episodes)
    require_rollouts(config, policy)
    return loop.train(config, policy, episodes, resume=resume, hooks=hooks)


def check(
    config: RunConfig, *, resume: bool = False, tell: Callable[[str], object] = lambda line: None
) -> list[str]:
    """Every reason why `train(config, resume=resume)` would refuse to start; empty when it can.

    Opens the data, builds the policy and makes the environment; trains nothing and writes nothing.
    Where some episodes have faults it goes on with the others. Data that config.data.collect would
    record does not exist yet and cannot be checked.

    Args:
        config: the run's settings.
        resume: whether the run in config.output_dir would go on.
        tell: called with each line on what is no fault and a person should see: what became of the
            tensors of a checkpoint, and settings that say less than they seem.
    """
    faults = Faults()
    checkpoints = Path(config.output_dir) / "checkpoints"
    faults.of(lambda: require_writable(Path(config.output_dir)))
    faults.of(lambda: starting_point(checkpoints, resume=resume))
    if config.training.tensorboard:
        faults.of(require_tensorboard)
    episodes = None
    if not is_to_be_collected(config.data):
        episodes = data_to_check(config.data, config.seed, faults)
    if isinstance(config.policy, PretrainedPolicy):
        pretrained = config.policy
        faults.of(lambda: require_parts(pretrained))
        if episodes is not None:
            faults.of(lambda: require_embodiment(config, episodes))
    policy = faults.of(lambda: _policy_to_check(config, episodes))
    if policy is not None:
        _tell_of(config, policy, episodes, tell)
        plan = faults.of(lambda: _plan(config, policy))
        if plan is not None:
            faults.of(lambda: require_loaded(plan, policy))
            faults.of(lambda: require_speed_settings(config, policy, plan))
        faults.of(lambda: require_rollouts(config, policy))
        if episodes is not None:
            faults.of(lambda: _fitting(config, policy, episodes, tell))
    return faults.listed


def _plan(config: RunConfig, policy: Policy) -> GroupPlan:
    names = reached([Flow()], policy.model)
    return plan_groups(policy.model, config.tuning.groups, config.optimizer, names)


def check_data(config: DataConfig, seed: int) -> list[str]:
    """The faults that `check` tells of the data alone, where the other settings are not valid.

    Args:
        config: the settings of the data.
        seed: of the run.
    """
    faults = Faults()
    if not is_to_be_collected(config):
        data_to_check(config, seed, faults)
    return faults.listed


def _tell_of(
    config: RunConfig, policy: Policy, episodes: Dataset | None, tell: Callable[[str], object]
) -> None:
    report = policy.load_report.lines()
    if isinstance(config.policy, PretrainedPolicy):
        report[0] = f"{config.policy.path}: {report[0]}"
    if policy.load_report.loaded:
        for line in report:
            tell(line)
    _tell(remarks(config, policy, episodes), tell)


def _tell(notes: Iterable[str], tell: Callable[[str], object]) -> None:
    for note in notes:
        tell(f"  note: {note}")


def _fitting(
    config: RunConfig,
    policy: Policy,
    episodes: Dataset,
    tell: Callable[[str], object] | None = None,
) -> Dataset:
    """The data as the policy declares them; UserError where they do not fit it."""
    mapped = _mapped(config, episodes, policy)
    require_fitting_data(config, policy, mapped)
    if tell is not None:
        _tell(motion_remarks(mapped, policy.transforms), tell)
    return mapped


def build_policy(config: RunConfig, episodes: Dataset) -> Policy:
    """The policy a run starts from: random weights, or a checkpoint's.

    Statistics, where they come from data, come from the training episodes alone.

    Raises:
        UserError: the checkpoint, the data and the settings do not fit one another.
    """
    if isinstance(config.policy, NewPolicy):
        sees = bool(config.policy.transforms.cameras)
        return _new_policy(config, config.policy, aligned(episodes, sees=sees))
    require_images(config.policy, episodes)
    if config.policy.statistics == "checkpoint":
        policy = _pretrained_policy(config.policy)
        has_embodiment = config.policy.embodiment != "checkpoint"
        if has_embodiment or not isinstance(episodes, Mixture):  # which resizes images itself
            policy = policy.with_camera_sizes(episodes.conventions)
        return policy

    require_embodiment(config, episodes)  # before gigabytes of weights are read
    pretrained, basis = config.policy, statistics_basis(aligned(episodes))
    kept = _kept(config, basis)

    def fit(settings: TransformsConfig, shape: ModelShape, tokenizer_json: str) -> Transforms:
        require_named_robot(pretrained, settings, basis)
        settings = _as_asked(pretrained, settings)
        return fit_transforms(settings, basis, kept, shape=shape, tokenizer_json=tokenizer_json)

    return _pretrained_policy(pretrained, fit)


def _kept(config: RunConfig, episodes: Dataset) -> tuple[int, ...]:
    """Indices of the training episodes."""
    return training_indices(episodes, config.data, config.seed)


def _mapped(config: RunConfig, episodes: Dataset, policy: Policy) -> Dataset:
    """The data as the policy declares them, where they are a mixture."""
    is_checkpoints = (
        isinstance(config.policy, PretrainedPolicy) and config.policy.statistics == "checkpoint"
    )
    target, sees = policy.conventions if is_checkpoints else None, bool(policy.conventions.cameras)
    return aligned(episodes, target, sees=sees)


def _pretrained_policy(config: PretrainedPolicy, fit: Fit | None = None) -> Policy:
    """The checkpoint's policy for the robot, tokenizer and sizes that the settings name."""
    policy = load_policy(
        config.path,
        init_missing=config.init_missing,
        embodiment=None if config.embodiment == "checkpoint" else config.embodiment,
        tokenizer=None if config.tokenizer == "checkpoint" else config.tokenizer,
        resize=config.resize if config.resize.asked else None,
        fit=fit,
    )
    if fit is not None or not config.transforms:
        return policy
    transforms = policy.transforms
    settings = _as_asked(config, transforms.config)
    return replace(policy, transforms=replace(transforms, config=settings))


def _as_asked(config: PretrainedPolicy, settings: TransformsConfig) -> TransformsConfig:
    """A checkpoint's transforms with what is asked for; UserError for resizing unlike its own."""
    asked, own = config.transforms, settings.resize
    if asked.get("resize", own) != own != "none":
        expected = f"'checkpoint', which was trained with {own!r} and takes images of any size"
        remedy = "Leave it out."
        raise UserError(describe("policy.image_resize", repr(asked["resize"]), expected, remedy))
    return settings.model_copy(update=asked)


def _starting_policy(config: RunConfig, episodes: Dataset) -> Policy:
    policy = build_policy(config, episodes)
    if isinstance(config.policy, PretrainedPolicy):
        return _descended(policy, path=config.policy.path)
    return policy


def _descended(policy: Policy, **origin: str) -> Policy:
    """The policy a run starts from, what made it noted as its parent's.

    One that was never saved has no hash to be called by, and keeps what its maker noted.
    """
    own = policy.provenance
    if "weights_sha256" not in own:
        return policy
    parent = {**origin, **{key: own[key] for key in PARENT_KEYS if key in own}}
    kept = {key: own[key] for key in ("replan_steps", UNUSED_HASH) if key in own}
    return replace(policy, provenance={**kept, "parent": parent})


def _new_policy(config: RunConfig, new: NewPolicy, episodes: Dataset) -> Policy:
    said = [episodes[index].instruction for index in _kept(config, episodes)]
    basis = statistics_basis(episodes)
    transforms = fit_transforms(
        new.transforms,
        basis,
        _kept(config, basis),
        shape=ModelShape.of(new.model),
        tokenizer_json=_tokenizer_json(new, said),
    )
    model = build_model(new.model, seed=config.seed)
    return Policy(model, transforms, new.model, _load_parts(new, model))


def _load_parts(config: NewPolicy, model: VLAModel) -> LoadReport:
    """Fills the parts that come from published weights; the report uses the model's names."""
    backbone, reports = model.backbone, {}
    if config.language_weights != "random":
        reports["backbone.language."] = load_language(backbone.language, config.language_weights)
    if config.vision_weights != "random" and isinstance(backbone.vision, TimmTower):
        reports["backbone.vision.body."] = load_tower(backbone.vision, config.vision_weights)
    return LoadReport(
        loaded=tuple(prefix + name for prefix, each in reports.items() for name in each.loaded),
        dropped=tuple(name for each in reports.values() for name in each.dropped),
    )


def _tokenizer_json(config: NewPolicy, instructions: Sequence[str]) -> str:
    if isinstance(config.tokenizer, TrainedTokenizer):
        texts = [prompt_text(text, config.transforms.prompt) for text in instructions]
        return train_tokenizer(texts, config.tokenizer.train).to_str()
    return read_tokenizer(Path(config.tokenizer), "policy.tokenizer")


def _policy_to_check(config: RunConfig, episodes: Dataset | None) -> Policy | None:
    """The policy as far as it can be built: a new one needs data for its statistics."""
    if episodes is not None:
        return build_policy(config, episodes)
    if isinstance(config.policy, PretrainedPolicy) and config.policy.statistics == "checkpoint":
        return _pretrained_policy(config.policy)
    return None


def _with_env(config: RunConfig, env: str) -> RunConfig:
    if config.evaluation == "off":
        raise UserError(
            describe(
                "env",
                f"{env!r} with evaluation off",
                "settings for the rollouts in it",
                "Fill in the config's evaluation block, or leave env out.",
            )
        )
    return config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"env": env})}
    )
