"""Settings become things here and nowhere else: policy, data, environment, and then a run."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from data_tools.conventions import compare
from data_tools.doctor import validate
from data_tools.episode import Dataset
from data_tools.finite import nonfinite_values
from data_tools.reader import open_dataset
from eval_envs.collect import collect
from policy_ft.checkpoints.native import load_policy
from policy_ft.checkpoints.parts import load_language, load_tower
from policy_ft.config.data import CollectConfig, DataConfig
from policy_ft.config.run import (
    EvaluationConfig,
    NewPolicy,
    PretrainedPolicy,
    RunConfig,
    TrainedTokenizer,
)
from policy_ft.data.fitting import fit_transforms
from policy_ft.data.split import split_episodes
from policy_ft.data.windows import WindowDataset
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.evaluation.rollout import make_env, require_agreement
from policy_ft.models.build import build_model
from policy_ft.models.vla import VLAModel
from policy_ft.policy import LoadReport, Policy
from policy_ft.tokenization import train_tokenizer
from policy_ft.training import loop
from policy_ft.training.hooks import Hook
from policy_ft.training.launch import start_accelerator
from policy_ft.training.loop import TrainResult
from policy_ft.training.metrics import require_tensorboard
from policy_ft.training.state import starting_point
from policy_ft.transforms import ModelShape, prompt_text
from policy_ft.tuning.groups import plan_groups

T = TypeVar("T")
EPISODES_A_WORKER = 50


def train(
    config: RunConfig,
    policy: Policy | None = None,
    episodes: Dataset | None = None,
    env: str | None = None,
    *,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
) -> TrainResult:
    """Trains as `config` says and returns where the checkpoints are.

    What is not given is built from the config.

    Args:
        config: the run's settings.
        policy: trained in place, instead of config.policy.
        episodes: demonstrations, instead of config.data.path.
        env: Gymnasium id for the rollouts, instead of config.evaluation.env.
        resume: go on from the newest complete checkpoint in config.output_dir.
        hooks: plugs that act after each step and whose state lies in every checkpoint.

    Raises:
        UserError: anything that cannot be honoured; before the first step wherever it can be known
            by then.
    """
    config = config if env is None else _with_env(config, env)
    accelerator = start_accelerator()
    checkpoint = starting_point(Path(config.output_dir) / "checkpoints", resume=resume)
    if episodes is None:
        with accelerator.main_process_first():
            episodes = open_or_collect(config.data)
    raise_faults(nonfinite_values(episodes))
    if policy is None:
        policy = build_policy(config, episodes) if checkpoint is None else load_policy(checkpoint)
        _require_frozen_is_loaded(config, policy)
    _require_agreement(config, policy, episodes)
    _require_encodable(policy, episodes)
    return loop.train(config, policy, episodes, resume=resume, hooks=hooks)


def check(config: RunConfig) -> list[str]:
    """Every reason why `train(config)` would refuse to start; empty when it can.

    Opens the data, builds the policy and makes the environment; trains nothing and writes nothing.
    Data that config.data.collect would record does not exist yet and cannot be checked.
    """
    faults = _Faults()
    checkpoints = Path(config.output_dir) / "checkpoints"
    faults.of(lambda: starting_point(checkpoints, resume=False))
    if config.training.tensorboard:
        faults.of(require_tensorboard)
    episodes = None if _is_to_be_collected(config.data) else faults.of(lambda: _open(config.data))
    if episodes is not None:
        faults.extend(str(finding) for finding in validate(episodes) if finding.severity == "error")
    policy = faults.of(lambda: _policy_to_check(config, episodes))
    if policy is not None:
        faults.of(lambda: _require_frozen_is_loaded(config, policy))
        if config.evaluation != "off":
            evaluation = config.evaluation
            faults.of(lambda: _require_env(evaluation, policy))
        if episodes is not None:
            faults.of(lambda: _require_agreement(config, policy, episodes))
            faults.of(lambda: _require_encodable(policy, episodes))
    return faults.listed


def open_or_collect(config: DataConfig) -> Dataset:
    """The demonstrations of config.path, recorded first where they are missing and may be."""
    if config.collect != "off" and _is_to_be_collected(config):
        _collect(Path(config.path[0]), config.collect)
    return _open(config)


def build_policy(config: RunConfig, episodes: Dataset) -> Policy:
    """The policy a run starts from: random weights, or a checkpoint's.

    Statistics, where they come from data, come from the training episodes alone.

    Raises:
        UserError: the checkpoint, the data and the settings do not fit one another.
    """
    kept, _ = split_episodes(episodes, config.data.validation_fraction, config.seed)
    if isinstance(config.policy, NewPolicy):
        return _new_policy(config.policy, episodes, kept, config.seed)
    policy = load_policy(config.policy.path, init_missing=config.policy.init_missing)
    if config.policy.statistics == "checkpoint":
        return policy
    own = policy.transforms
    fitted = fit_transforms(
        own.config, episodes, kept, shape=own.shape, tokenizer_json=own.tokenizer_json
    )
    return replace(policy, transforms=fitted)


def _new_policy(config: NewPolicy, episodes: Dataset, kept: Sequence[int], seed: int) -> Policy:
    tokenizer_json = _tokenizer_json(config, [episodes[index].instruction for index in kept])
    transforms = fit_transforms(
        config.transforms,
        episodes,
        kept,
        shape=ModelShape.of(config.model),
        tokenizer_json=tokenizer_json,
    )
    model = build_model(config.model, seed=seed)
    return Policy(model, transforms, config.model, _load_parts(config, model))


def _load_parts(config: NewPolicy, model: VLAModel) -> LoadReport:
    """Fills the parts that come from published weights; the report uses the model's names."""
    backbone, reports = model.backbone, {}
    if config.language_weights != "random":
        reports["backbone.language."] = load_language(backbone.language, config.language_weights)
    if config.vision_weights != "random":
        reports["backbone.vision.body."] = load_tower(backbone.vision, config.vision_weights)
    return LoadReport(
        loaded=tuple(prefix + name for prefix, each in reports.items() for name in each.loaded),
        dropped=tuple(name for each in reports.values() for name in each.dropped),
    )


def _tokenizer_json(config: NewPolicy, instructions: Sequence[str]) -> str:
    if isinstance(config.tokenizer, TrainedTokenizer):
        texts = [prompt_text(text, config.transforms.prompt) for text in instructions]
        return train_tokenizer(texts, config.tokenizer.train).to_str()
    path = Path(config.tokenizer)
    if not path.is_file():
        raise UserError(
            describe(
                "policy.tokenizer",
                f"no file {str(path)!r}",
                "a tokenizer.json of the tokenizers library, or {train: vocabulary size}",
                "Correct the path.",
            )
        )
    return path.read_text(encoding="utf-8")


def _policy_to_check(config: RunConfig, episodes: Dataset | None) -> Policy | None:
    """The policy as far as it can be built: a new one needs data for its statistics."""
    if episodes is not None:
        return build_policy(config, episodes)
    if isinstance(config.policy, PretrainedPolicy):
        return load_policy(config.policy.path, init_missing=config.policy.init_missing)
    return None


def _open(config: DataConfig) -> Dataset:
    return open_dataset(list(config.path))


def _is_to_be_collected(config: DataConfig) -> bool:
    return config.collect != "off" and not Path(config.path[0]).exists()


def _collect(path: Path, config: CollectConfig) -> None:
    collect(
        path,
        task=config.task,
        num_episodes=config.num_episodes,
        seed=config.seed,
        noise=config.noise,
        env_id=config.env,
        env_args=config.env_args,
        workers=min(os.cpu_count() or 1, -(-config.num_episodes // EPISODES_A_WORKER)),
    )


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


def _require_agreement(config: RunConfig, policy: Policy, episodes: Dataset) -> None:
    raise_faults(
        str(mismatch)
        for mismatch in compare(
            episodes.conventions,
            policy.conventions,
            found_name=f"data {', '.join(config.data.path)}",
            expected_name="the policy",
        )
    )


def _require_frozen_is_loaded(config: RunConfig, policy: Policy) -> None:
    """UserError for every rule that freezes random weights, which nothing would ever correct."""
    plan = plan_groups(policy.model, config.tuning.groups, config.optimizer)
    loaded = {*policy.load_report.loaded, *policy.load_report.tied}
    random: dict[str, list[str]] = {}
    for each in plan.assignments:
        if each.state == "frozen" and each.parameter not in loaded:
            random.setdefault(each.pattern, []).append(each.parameter)
    raise_faults(
        describe(
            f"tuning.groups, pattern {pattern!r}",
            f"{len(names)} frozen parameters with random weights, e.g. {names[0]!r}",
            "weights from a checkpoint in everything that is frozen",
            "Load them (policy.kind pretrained, language_weights, vision_weights) or train them.",
        )
        for pattern, names in random.items()
    )


def _require_env(config: EvaluationConfig, policy: Policy) -> None:
    env = make_env(config.env, config.env_args)
    try:
        require_agreement(policy, env, config.env)
    finally:
        env.close()


def _require_encodable(policy: Policy, episodes: Dataset) -> None:
    """UserError naming every instruction that cannot be encoded, by its first episode."""
    first = {episodes[index].instruction: index for index in reversed(range(len(episodes)))}
    faults = _Faults()
    for index in sorted(first.values()):
        window = WindowDataset(episodes, [index], policy.transforms)
        faults.of(partial(window.__getitem__, 0))
    raise_faults(faults.listed)


class _Faults:
    """Gathers the faults of several attempts, each once, in order."""

    def __init__(self) -> None:
        self._faults: dict[str, None] = {}

    @property
    def listed(self) -> list[str]:
        return list(self._faults)

    def extend(self, faults: Iterable[str]) -> None:
        self._faults.update(dict.fromkeys(faults))

    def of(self, attempt: Callable[[], T]) -> T | None:
        """What the attempt returns; None when it raises a UserError, whose faults are kept."""
        try:
            return attempt()
        except UserError as error:
            self.extend(error.faults)
            return None
