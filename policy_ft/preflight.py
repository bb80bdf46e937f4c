"""What would stop or spoil a run later, refused before its first step, by `train` and `check`."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from data_tools.columns import WEIGHT
from data_tools.conventions import Conventions, compare
from data_tools.episode import Dataset
from data_tools.formats.mapping.mapping import ConventionsMapping, without_cameras
from eval_envs.making import make_env
from policy_ft.checkpoints.native import read_parts
from policy_ft.config.data import DataConfig
from policy_ft.config.measures import EvaluationConfig
from policy_ft.config.run import RunConfig
from policy_ft.config.starting_policy import NewPolicy, PretrainedPolicy
from policy_ft.config.transforms import TransformsConfig
from policy_ft.data.motion import held_motion_faults
from policy_ft.data.sources import Source, sources_of
from policy_ft.errors import Faults, UserError, describe, nearest, raise_faults
from policy_ft.evaluation.rollout import require_agreement
from policy_ft.formats.embodiments import PRESETS, Embodiment, load_embodiment
from policy_ft.formats.load import read_published, read_tokenizer
from policy_ft.formats.locating import locate
from policy_ft.models.leaves import ADAPTER
from policy_ft.models.objective import Objective
from policy_ft.policy import Policy
from policy_ft.training.features import build_feature_cache
from policy_ft.training.launch import require_compiler
from policy_ft.transforms.checks import NO_IMAGES
from policy_ft.tuning.groups import ADAPTED, Assignment
from policy_ft.tuning.plan import TuningPlan
from policy_ft.tuning.stochastic import batch_norms


def require_fitting_data(config: RunConfig, policy: Policy, episodes: Dataset) -> None:
    """UserError for every disagreement of data and policy, and for instructions too long for it.

    An embodiment that the settings name is compared too: transforms fitted to the data follow the
    data, whatever robot it comes from.
    """
    sources = sources_of(episodes)
    mismatches = _mismatches(config, sources, "the policy", policy.conventions)
    if mismatches and "unknown" in policy.conventions.action.units:
        raise UserError(_unnamed_robot("columns of which nobody says what they mean", episodes))
    robot = _embodiment(config.policy)
    if robot is not None:
        name = f"embodiment {named_embodiment(config.policy)}"
        mismatches += _mismatches(config, sources, name, robot.conventions)
    raise_faults(mismatches)
    raise_faults(
        [
            *_weightless(config, sources),
            *held_motion_faults(episodes, policy.transforms),
            *(fault for source in sources for fault in _window_faults(source, policy)),
        ]
    )


def _weightless(config: RunConfig, sources: Sequence[Source]) -> Iterator[str]:
    """Sources of which no window would be drawn, for all that are trained on weigh nothing."""
    for source in sources if WEIGHT in config.data.columns else ():
        kept, _ = source.split(config.data, config.seed)
        chosen = (source.episodes[index] for index in kept)
        if not any(each.column(WEIGHT)[each.starts()].any() for each in chosen):
            yield describe(
                f"{source.where}, column {WEIGHT!r}",
                f"0 at every step of the {len(kept)} episodes that are trained on",
                "a weight above 0",
                "Correct the weights, or choose the episodes yourself (validation_mask).",
            )


def require_read_columns(config: DataConfig, objectives: Sequence[Objective]) -> None:
    """UserError for a column that the settings ask for and nothing that is minimised reads."""
    read = sorted({name for objective in objectives for name in objective.columns})
    unread = [name for name in config.columns if name not in read]
    if unread:
        expected = f"some of {read}, which the objectives {[o.name for o in objectives]} read"
        hint = nearest(unread[0], read)
        remedy = f"Leave it out{f'; {hint}' if hint else '.'}"
        raise UserError(describe("data.columns", str(unread), expected, remedy))


def _window_faults(source: Source, policy: Policy) -> list[str]:
    """What keeps the first window of an instruction's first episode from being encoded.

    Instructions that are too long are one fault: the longest, with the number of other episodes.
    """
    used = policy.transforms.config.camera_names
    if used and set(used) <= set(source.absent):
        found, expected = f"null for {list(used)}", "at least one of the policy's cameras"
        remedy = "Name a camera of this dataset for one of them, or leave the dataset out."
        return [describe(f"{source.where}.cameras", found, expected, remedy)]
    episodes, faults = source.episodes, Faults()
    by_instruction: dict[str, list[int]] = {}
    for index in range(len(episodes)):
        by_instruction.setdefault(episodes[index].instruction, []).append(index)
    longest = policy.config.max_prompt_tokens
    too_long = [each for each in by_instruction if policy.transforms.prompt_length(each) > longest]
    if too_long:
        worst = max(too_long, key=policy.transforms.prompt_length)
        more = sum(len(by_instruction[each]) for each in too_long) - 1
        name = episodes[by_instruction[worst][0]].name
        where = f"{name} and {more} more episodes" if more else name
        faults.extend(policy.transforms.prompt_faults(worst, where))
    for instruction, indices in by_instruction.items():
        if instruction not in too_long:
            window = source.windows(indices[:1], policy.transforms)
            faults.of(partial(window.__getitem__, 0))
    return [f"{source.where}: {each}" if source.name else each for each in faults.listed]


def require_images(policy: PretrainedPolicy, episodes: Dataset) -> None:
    """UserError, one, for data without a camera under a checkpoint that sees images."""
    sources = sources_of(episodes)
    if any(source.episodes.conventions.cameras for source in sources):
        return
    located = locate(policy.path)
    if located.format != "native" or read_parts(located.directory).config.num_cameras:
        expected = f"images, for {policy.path} sees its task in them"
        where, remedy = sources[0].where, f"Record them. {NO_IMAGES}"
        raise UserError(describe(where, "no camera at all", expected, remedy))


def require_embodiment(config: RunConfig, episodes: Dataset) -> None:
    """UserError for every disagreement of the data and the embodiment that the settings name.

    Datasets of a mixture that are mapped are not asked before they are.
    """
    if isinstance(config.policy, PretrainedPolicy):
        require_images(config.policy, episodes)
    robot = _embodiment(config.policy)
    if robot is None:
        return
    name = f"embodiment {named_embodiment(config.policy)}"
    as_recorded = [each for each in sources_of(episodes) if each.mapping == ConventionsMapping()]
    raise_faults(_mismatches(config, as_recorded, name, robot.conventions))


def _mismatches(
    config: RunConfig, sources: Sequence[Source], name: str, conventions: Conventions
) -> list[str]:
    return [
        str(each)
        for source in sources
        for each in compare(
            source.episodes.conventions,
            without_cameras(conventions, source.absent),
            found_name=source.where if source.name else f"data {', '.join(config.data.path)}",
            expected_name=name,
            may_leave_open=True,
        )
    ]


def named_embodiment(policy: NewPolicy | PretrainedPolicy) -> str | None:
    """Preset or file of the embodiment that the settings name, if they do."""
    if policy.kind == "new" or policy.embodiment == "checkpoint":
        return None
    return policy.embodiment


def _embodiment(policy: NewPolicy | PretrainedPolicy) -> Embodiment | None:
    name = named_embodiment(policy)
    return None if name is None else load_embodiment(name)


def require_parts(policy: PretrainedPolicy) -> None:
    """UserError for a checkpoint, tokenizer or embodiment that is not there or cannot be read.

    Reads all that a checkpoint says beside its weights, and needs no data.
    """
    faults = Faults()
    located = faults.of(lambda: locate(policy.path))
    robot = faults.of(lambda: _embodiment(policy))
    tokenizer = None if policy.tokenizer == "checkpoint" else policy.tokenizer
    if tokenizer is not None:
        faults.of(lambda: read_tokenizer(tokenizer))
    if located is not None and located.format != "native" and not faults.listed:
        faults.of(lambda: read_published(located, robot, tokenizer))
    raise_faults(faults.listed)


def remarks(config: RunConfig, policy: Policy, episodes: Dataset | None) -> Iterator[str]:
    """What a person should know of a run that can start: settings that say less than they seem."""
    yield from policy.transforms.still_notes
    robot, name = _embodiment(config.policy), named_embodiment(config.policy)
    is_fitted = config.policy.kind == "pretrained" and config.policy.statistics == "data"
    if robot is not None and episodes is not None and is_fitted:
        yield from _other_sizes(robot, f"embodiment {name}", episodes.conventions)
    says_state = robot is not None and "prompt_says_state" in robot.model_fields_set
    if says_state and name not in PRESETS and policy.config.family != "pi05":
        yield f"embodiment {name}, prompt_says_state: without effect, for only pi0.5 reads it"
    if episodes is not None:
        yield from _mostly_masked(config, policy, episodes)
        if WEIGHT in episodes.columns and WEIGHT not in config.data.columns:
            yield "the data weighs its steps, and this run does not; data.columns [weight] would"


def _other_sizes(robot: Embodiment, name: str, recorded: Conventions) -> Iterator[str]:
    """Cameras whose images have another size in the data than the embodiment says."""
    for own in robot.conventions.cameras:
        if own.name in recorded.camera_names:
            found = recorded.camera(own.name)
            if (found.height, found.width) != (own.height, own.width):
                yield (
                    f"camera {own.name!r}: {found.height} x {found.width} pixels in the data, "
                    f"{own.height} x {own.width} in {name}; the policy takes the data's"
                )


def _mostly_masked(config: RunConfig, policy: Policy, episodes: Dataset) -> Iterator[str]:
    """Chunks so long that most of their steps lie beyond the end of the episode."""
    setting = f"policy.{'model' if config.policy.kind == 'new' else 'resize'}.action_horizon"
    horizon = policy.config.action_horizon
    lengths = [episodes[index].num_steps for index in range(len(episodes))]
    starts = sum(lengths)
    recorded = sum(min(horizon, left) for length in lengths for left in range(1, length + 1))
    if 2 * recorded < starts * horizon:
        yield (
            f"action_horizon {horizon}: {1 - recorded / (starts * horizon):.0%} of the steps of "
            f"the chunks lie beyond the end of their episode (the longest has {max(lengths)} "
            f"steps) and carry no loss; {setting} makes chunks shorter"
        )


def require_named_robot(
    config: PretrainedPolicy, settings: TransformsConfig, episodes: Dataset
) -> None:
    """UserError, one, where a checkpoint's own settings are of another robot than the data.

    Args:
        config: the run's policy block.
        settings: of the transforms that are to be fitted to the data.
        episodes: the data.
    """
    recorded = episodes.conventions
    columns = {*recorded.state.names} & {*recorded.action.names}
    missing = [name for name in settings.camera_names if name not in recorded.camera_names]
    missing += [name for name in settings.delta_actions if name not in columns]
    if config.embodiment == "checkpoint" and missing:
        raise UserError(_unnamed_robot(f"settings for {missing}, which the data lack", episodes))


def _unnamed_robot(found: str, episodes: Dataset) -> str:
    cameras = list(episodes.conventions.camera_names)
    return describe(
        "policy.embodiment",
        f"'checkpoint', and in the checkpoint {found}",
        f"the robot of the data, with the cameras {cameras}",
        "Name policy.embodiment: a preset, or a YAML file of your own (docs/embodiments.md).",
    )


def require_loaded(plan: TuningPlan, policy: Policy) -> None:
    """UserError for what training never corrects and no file has filled.

    These are the parameters that rules freeze in every phase, and the statistics of BatchNorm
    layers, which stay as they are in every run (tuning/groups.py).
    """
    loaded = {*policy.load_report.loaded, *policy.load_report.tied}
    random: dict[str, list[Assignment]] = {}
    for of_phases in zip(*(each.assignments for each in plan.of_phases), strict=True):
        first, states = of_phases[0], {assignment.state for assignment in of_phases}
        if states == {"frozen"} and first.parameter not in loaded:
            random.setdefault(first.pattern, []).append(first)
    faults = [
        describe(
            f"tuning.groups, pattern {pattern!r}",
            f"{len(members)} frozen parameters with random weights, e.g. {members[0].parameter!r}",
            "weights from a checkpoint in everything that is frozen",
            _remedy_of_random(members),
        )
        for pattern, members in random.items()
    ]
    unfilled = [name for name in batch_norms(policy.model) if f"{name}.running_var" not in loaded]
    if unfilled:
        faults.append(
            describe(
                "model.vision",
                f"{len(unfilled)} BatchNorm layers without statistics, e.g. {unfilled[0]!r}",
                "statistics from a checkpoint: a run does not change them, so that its loss does "
                "not depend on how a batch is divided",
                "Load them (policy.vision_weights, kind new), or build a tower without BatchNorm: "
                "another policy.model.vision.tower (kind new), or tower_args {norm_layer: "
                "groupnorm1} where timm takes it.",
            )
        )
    raise_faults(faults)


def _remedy_of_random(members: Sequence[Assignment]) -> str:
    """What to do about frozen parameters that share a rule, or an edit, and have random weights."""
    if all(each.leaf.endswith(f".{ADAPTER}") for each in members):
        return "Put {pattern: '*.adapter'} before the rule: new adapters are there to learn."
    what = "edit" if members[0].pattern == ADAPTED else "rule"
    return (
        "Load them (policy.kind pretrained, or policy.language_weights (kind new) and "
        f"policy.vision_weights (kind new)), or train them: remove the {what}."
    )


def require_speed_settings(
    config: RunConfig, policy: Policy, plan: TuningPlan, device: torch.device
) -> None:
    """UserError for a feature cache or a compiler that this run asks for and cannot have."""
    faults = Faults()
    for each in plan.of_phases:
        faults.of(partial(build_feature_cache, config.training, policy.model, each))
    faults.of(lambda: require_compiler(config.training, device))
    raise_faults(faults.listed)


def require_rollouts(config: RunConfig, policy: Policy) -> None:
    """UserError for every reason why the policy cannot be rolled out as config.evaluation says."""
    if config.evaluation == "off":
        return
    evaluation, faults = config.evaluation, Faults()
    faults.extend(_horizon_faults(evaluation, policy))
    env = faults.of(lambda: make_env(evaluation.env, evaluation.env_args))
    if env is not None:
        try:
            faults.of(lambda: require_agreement(policy, env, evaluation.env))
        finally:
            env.close()
    raise_faults(faults.listed)


def _horizon_faults(evaluation: EvaluationConfig, policy: Policy) -> Iterator[str]:
    horizon = policy.config.action_horizon
    if evaluation.replan_steps > horizon:
        yield describe(
            "evaluation.replan_steps",
            str(evaluation.replan_steps),
            f"at most {horizon}, the policy's action horizon",
            "Lower replan_steps: a chunk has no more steps.",
        )
