"""What would stop or spoil a run later, refused before its first step, by `train` and `check`."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from data_tools.conventions import Conventions, compare
from data_tools.doctor import number_errors
from data_tools.episode import Dataset
from eval_envs.making import make_env
from policy_ft.config.run import EvaluationConfig, RunConfig
from policy_ft.data.windows import WindowDataset
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.evaluation.rollout import require_agreement
from policy_ft.policy import Policy
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

    An instruction is named by the first episode that has it.
    """
    raise_faults(
        str(mismatch)
        for mismatch in compare(
            episodes.conventions,
            policy.conventions,
            found_name=f"data {', '.join(config.data.path)}",
            expected_name="the policy",
        )
    )
    first = {episodes[index].instruction: index for index in reversed(range(len(episodes)))}
    faults = Faults()
    for index in sorted(first.values()):
        window = WindowDataset(episodes, [index], policy.transforms)
        faults.of(partial(window.__getitem__, 0))
    raise_faults(faults.listed)


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
