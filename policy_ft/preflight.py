"""What would stop or spoil a run later, refused before its first step, by `train` and `check`."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from data_tools.conventions import Conventions, compare
from data_tools.doctor import number_errors
from data_tools.episode import Dataset
from eval_envs.making import make_env
from policy_ft.config.policy import PretrainedPolicy
from policy_ft.config.run import EvaluationConfig, RunConfig
from policy_ft.config.transforms import TransformsConfig
from policy_ft.data.windows import WindowDataset
from policy_ft.embodiments import load_embodiment
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.evaluation.rollout import require_agreement
from policy_ft.policy import Policy
from policy_ft.training.features import build_feature_cache
from policy_ft.training.launch import require_compiler, start_accelerator
from policy_ft.tuning.groups import plan_groups
from policy_ft.tuning.stochastic import batch_norms

T = TypeVar("T")


class Faults:
    """Gathers the faults of several attempts, each once, in order."""

    def __init__(self) -> None:
        self._faults: dict[str, None] = {}

    @property
    def listed(self) -> list[str]:
        """The faults so far."""
        return list(self._faults)

    def extend(self, faults: Iterable[str]) -> None:
        """Adds faults, those that are there already left out."""
        self._faults.update(dict.fromkeys(faults))

    def of(self, attempt: Callable[[], T]) -> T | None:
        """What the attempt returns; None when it raises a UserError, whose faults are kept."""
        try:
            return attempt()
        except UserError as error:
            self.extend(error.faults)
            return None


def require_sound_numbers(episodes: Dataset) -> None:
    """UserError for every number that is not finite or lies beyond its declared range."""
    raise_faults(str(finding) for finding in number_errors(episodes))


def require_fitting_data(config: RunConfig, policy: Policy, episodes: Dataset) -> None:
    """UserError for every disagreement of data and policy, and every instruction too long for it.

    An embodiment that the settings name is compared too: transforms fitted to the data follow the
    data, whatever robot it comes from. An instruction is named by the first episode that has it.
    """
    expected = {"the policy": policy.conventions}
    if config.policy.kind == "pretrained" and config.policy.embodiment != "checkpoint":
        robot = load_embodiment(config.policy.embodiment)
        expected[f"embodiment {robot.name}"] = robot.conventions
    mismatches = [
        str(mismatch)
        for name, conventions in expected.items()
        for mismatch in compare(
            episodes.conventions,
            conventions,
            found_name=f"data {', '.join(config.data.path)}",
            expected_name=name,
            may_leave_open=True,
        )
    ]
    if mismatches and "unknown" in policy.conventions.action.units:
        mismatches = [_unnamed_robot("columns of which nobody says what they mean", episodes)]
    raise_faults(mismatches)
    first = {episodes[index].instruction: index for index in reversed(range(len(episodes)))}
    faults = Faults()
    for index in sorted(first.values()):
        window = WindowDataset(episodes, [index], policy.transforms)
        faults.of(partial(window.__getitem__, 0))
        episode = episodes[index]
        faults.extend(
            policy.transforms.prompt_faults(episode.instruction, f"{episode.name}, step 0")
        )
    raise_faults(faults.listed)


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


def require_loaded(config: RunConfig, policy: Policy) -> None:
    """UserError for what training never corrects and no file has filled.

    These are the parameters that a rule freezes, and the statistics of BatchNorm layers, which stay
    as they are in every run (tuning/groups.py).
    """
    plan = plan_groups(policy.model, config.tuning.groups, config.optimizer)
    loaded = {*policy.load_report.loaded, *policy.load_report.tied}
    random: dict[str, list[str]] = {}
    for each in plan.assignments:
        if each.state == "frozen" and each.parameter not in loaded:
            random.setdefault(each.pattern, []).append(each.parameter)
    faults = [
        describe(
            f"tuning.groups, pattern {pattern!r}",
            f"{len(names)} frozen parameters with random weights, e.g. {names[0]!r}",
            "weights from a checkpoint in everything that is frozen",
            "Load them (policy.kind pretrained, language_weights, vision_weights) or train them.",
        )
        for pattern, names in random.items()
    ]
    unfilled = [name for name in batch_norms(policy.model) if f"{name}.running_var" not in loaded]
    if unfilled:
        faults.append(
            describe(
                "model.vision",
                f"{len(unfilled)} BatchNorm layers without statistics, e.g. {unfilled[0]!r}",
                "statistics from a checkpoint: a run does not change them, so that its loss does "
                "not depend on how a batch is divided",
                "Load them (vision_weights), or build the tower without BatchNorm: another tower, "
                "or tower_args {norm_layer: groupnorm1} where timm takes it.",
            )
        )
    raise_faults(faults)


def require_speed_settings(config: RunConfig, policy: Policy) -> None:
    """UserError for a feature cache or a compiler that this run asks for and cannot have."""
    plan = plan_groups(policy.model, config.tuning.groups, config.optimizer)
    faults = Faults()
    faults.of(lambda: build_feature_cache(config.training, policy.model, plan))
    faults.of(lambda: require_compiler(config.training, start_accelerator().device))
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
            declared = getattr(env.unwrapped, "conventions", None)
            if isinstance(declared, Conventions):
                faults.extend(_size_faults(evaluation, policy, declared))
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


def _size_faults(
    evaluation: EvaluationConfig, policy: Policy, declared: Conventions
) -> Iterator[str]:
    """Cameras of another size than the policy's: with any `resize` it takes images as declared."""
    for camera in policy.conventions.cameras:
        if camera.name in declared.camera_names:
            found = declared.camera(camera.name)
            if (found.height, found.width) != (camera.height, camera.width):
                yield describe(
                    f"environment {evaluation.env}, camera {camera.name!r}",
                    f"{found.height} x {found.width} pixels",
                    f"{camera.height} x {camera.width}, as the policy's data",
                    "Set the size of the environment's images in evaluation.env_args, e.g. "
                    "image_size.",
                )
