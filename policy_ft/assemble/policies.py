"""The policy a run starts from: random weights, or a checkpoint's, for the robot of the data."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_tools.episode import Dataset
from policy_ft.checkpoints.edited import edited
from policy_ft.checkpoints.provenance import descended
from policy_ft.config.run import RunConfig
from policy_ft.config.starting_policy import NewPolicy, PretrainedPolicy, TrainedTokenizer
from policy_ft.config.transforms import TransformsConfig
from policy_ft.data.fitting import fit_transforms
from policy_ft.data.opening import in_one_convention
from policy_ft.data.sources import Mixture, statistics_basis, training_indices
from policy_ft.errors import UserError, describe
from policy_ft.formats.load import load_policy
from policy_ft.formats.parts import load_language, load_tower
from policy_ft.formats.published import Fit
from policy_ft.models.backbones.timm_tower import TimmTower
from policy_ft.models.build import build_model
from policy_ft.models.vla import VLAModel
from policy_ft.policy import LoadReport, Policy
from policy_ft.preflight import (
    require_embodiment,
    require_images,
    require_named_robot,
)
from policy_ft.transforms import ModelShape, Transforms, prompt_text
from policy_ft.transforms.tokenization import read_tokenizer, train_tokenizer


def build_policy(config: RunConfig, episodes: Dataset) -> Policy:
    """The policy a run starts from: random weights, or a checkpoint's.

    Statistics, where they come from data, come from the training episodes alone.

    Raises:
        UserError: the checkpoint, the data and the settings do not fit one another.
    """
    if isinstance(config.policy, NewPolicy):
        sees = bool(config.policy.transforms.cameras)
        return _new_policy(config, config.policy, in_one_convention(episodes, sees=sees))
    require_images(config.policy, episodes)
    if config.policy.statistics == "checkpoint":
        policy = _pretrained_policy(config.policy, config.seed)
        has_embodiment = config.policy.embodiment != "checkpoint"
        if has_embodiment or not isinstance(episodes, Mixture):  # which resizes images itself
            policy = policy.with_camera_sizes(episodes.conventions)
        return policy

    require_embodiment(config, episodes)  # before gigabytes of weights are read
    pretrained, basis = config.policy, statistics_basis(in_one_convention(episodes))
    kept = _kept(config, basis)

    def fit(settings: TransformsConfig, shape: ModelShape, tokenizer_json: str) -> Transforms:
        require_named_robot(pretrained, settings, basis)
        settings = _as_asked(pretrained, settings)
        return fit_transforms(settings, basis, kept, shape=shape, tokenizer_json=tokenizer_json)

    return _pretrained_policy(pretrained, config.seed, fit)


def _kept(config: RunConfig, episodes: Dataset) -> tuple[int, ...]:
    """Indices of the training episodes."""
    return training_indices(episodes, config.data, config.seed)


def mapped(config: RunConfig, episodes: Dataset, policy: Policy) -> Dataset:
    """The data as the policy declares them, where they are a mixture.

    Raises:
        UserError: mappings that do not lead there.
    """
    is_checkpoints = (
        isinstance(config.policy, PretrainedPolicy) and config.policy.statistics == "checkpoint"
    )
    target, sees = policy.conventions if is_checkpoints else None, bool(policy.conventions.cameras)
    return in_one_convention(episodes, target, sees=sees)


def _pretrained_policy(config: PretrainedPolicy, seed: int, fit: Fit | None = None) -> Policy:
    """The checkpoint's policy for the robot, tokenizer, sizes and edits that the settings name."""
    policy = load_policy(
        config.path,
        init_missing=config.init_missing,
        embodiment=None if config.embodiment == "checkpoint" else config.embodiment,
        tokenizer=None if config.tokenizer == "checkpoint" else config.tokenizer,
        resize=config.resize if config.resize.asked else None,
        fit=fit,
    )
    policy = edited(policy, config.edits, where="policy.edits", seed=seed)
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


def starting_policy(config: RunConfig, episodes: Dataset | None) -> Policy | None:
    """The policy of a new run, its parent noted; None for a new one without data to fit it to.

    Raises:
        UserError: as `build_policy`.
    """
    if episodes is not None:
        policy = build_policy(config, episodes)
    elif isinstance(config.policy, PretrainedPolicy) and config.policy.statistics == "checkpoint":
        policy = _pretrained_policy(config.policy, config.seed)
    else:
        return None
    if isinstance(config.policy, PretrainedPolicy):
        return descended(policy, path=config.policy.path)
    return policy


def starting_policy_again(config: RunConfig, episodes: Dataset | None, trained: Policy) -> Policy:
    """The policy that a run began with, when it has gone on since.

    Args:
        config: of the run; what it says makes the same policy again.
        episodes: of the run.
        trained: what became of it, which notes what it comes from.

    Raises:
        UserError: the checkpoint that the run began with has gone or has other weights now.
    """
    policy = starting_policy(config, episodes)
    assert policy is not None, "a run that has begun has data"
    now, then = (
        each.provenance.get("parent", {}).get("weights_sha256") for each in (policy, trained)
    )
    if now != then:
        found, expected = f"weights {str(now)[:12]}", f"{str(then)[:12]}, which the run began with"
        remedy = "Put the checkpoint back that the run began with, or start a new run."
        raise UserError(describe("policy.path", found, expected, remedy))
    return policy


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
    plain = new.model.model_copy(update={"edits": ()})
    model = build_model(plain, seed=config.seed)
    policy = Policy(model, transforms, plain, _load_parts(new, model))
    return edited(policy, new.model.edits, where="policy.model.edits", seed=config.seed)


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
