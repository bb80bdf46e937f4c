"""Checks of all episodes together: duplicates, failures, lengths, idleness, size."""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import numpy as np

from data_tools.doctor.checks.recording import Declared, Recording
from data_tools.errors import Fault
from data_tools.finding import DATASET, Finding, Rule

# Lengths spread by a factor within one task; outliers are both far in deviations and in factors.
MAX_LENGTH_DEVIATIONS: Final = 5.0
MAX_LENGTH_FACTOR: Final = 4.0
MIN_EPISODES: Final = 10
# The median absolute deviation of a normal distribution is this share of its deviation.
MAD_TO_STD: Final = 1.4826
# An action below this share of its range, or a target that moves by less than this each second
# [rad, m], asks for nothing: DROID's 1e-3 of a normalized joint velocity, and its 15 Hz.
IDLE_COMMAND: Final = 1e-3
IDLE_SPEED: Final = 0.015
MAX_IDLE_SHARE: Final = 0.3
MAX_IDLE_EPISODE: Final = 0.9
# Where layouts that take success from the end of a recording keep the reward it ended with.
LAST_REWARD: Final = "last_reward"

DUPLICATE_EPISODE = Rule(
    name="duplicate_episode",
    severity="warning",
    sentence="An episode has the states and actions of an earlier one.",
    threshold="each demonstration once",
    remedy="Delete one: it counts twice, and may sit in training and validation.",
    repair="Left out where sentence, success and first, middle and last pictures are equal, too.",
)
NO_SUCCESS = Rule(
    name="no_success",
    severity="warning",
    sentence="Every episode was judged a failure.",
    threshold="at least one success",
    remedy="Check the success attribute, or that these are demonstrations.",
)
FAILED_EPISODES = Rule(
    name="failed_episodes",
    severity="warning",
    sentence="Some episodes were judged failures: a policy learns to fail like them.",
    threshold="successes only",
    remedy="Leave them out with robot-data filter, unless they are meant.",
)
SUCCESS_WITHOUT_REWARD = Rule(
    name="success_without_reward",
    severity="warning",
    sentence="Episodes count as successes because their last step is marked as done, and their "
    "last reward is 0.",
    threshold="a reward at the end of each success",
    remedy="Ask how `dones` was made: robomimic's done_mode 1 and 2 mark the last step of "
    "failures, too. Read success from the rewards then, by a sidecar's layout.success: "
    "{dataset: rewards}, and leave failures out with robot-data filter.",
)
LENGTH_OUTLIER = Rule(
    name="length_outlier",
    severity="warning",
    sentence="An episode is much longer or shorter than the others with its sentence.",
    threshold=(
        f"within a factor {MAX_LENGTH_FACTOR:g} of the median, or {MAX_LENGTH_DEVIATIONS:g} "
        "median deviations"
    ),
    remedy="Look at it: the recording may have been cut off or left running.",
)
IDLE_EPISODE = Rule(
    name="idle_episode",
    severity="warning",
    sentence="In nearly all steps of an episode the actions ask for nothing.",
    threshold=f"at most {MAX_IDLE_EPISODE:.0%} idle steps",
    remedy="Leave the episode out, or its idle steps with robot-data filter.",
)
NO_OPS = Rule(
    name="no_ops",
    severity="warning",
    sentence="A large share of all actions asks for nothing: a policy learns to wait.",
    threshold=f"at most {MAX_IDLE_SHARE:.0%} idle steps",
    remedy="Leave idle steps out of training with robot-data filter.",
)
UNDECLARED = Rule(
    name="undeclared",
    severity="warning",
    sentence="The conventions leave open what the numbers mean.",
    threshold="what the layout leaves to a person; a control rate; a reference for each action "
    "column",
    remedy="Declare it; the checks that need it were left out.",
)
LARGER_THAN_MEMORY = Rule(
    name="larger_than_memory",
    severity="warning",
    sentence="The files do not fit into this machine's memory: each epoch reads the disk.",
    threshold="files smaller than the memory",
    remedy="Make them smaller with robot-data repack (JPEG), or train on a machine with more.",
)
RULES = (
    *(DUPLICATE_EPISODE, NO_SUCCESS, FAILED_EPISODES, SUCCESS_WITHOUT_REWARD, LENGTH_OUTLIER),
    *(IDLE_EPISODE, NO_OPS, UNDECLARED, LARGER_THAN_MEMORY),
)


def numbers_digest(recording: Recording) -> bytes:
    """A hash of the states and actions as float32; equal for equal demonstrations."""
    digest = blake2b(digest_size=16)
    for array in (recording.state, recording.actions):
        digest.update(repr(array.shape).encode())
        digest.update(array.astype("<f4").tobytes())
    return digest.digest()


def check_duplicates(digests: Mapping[str, bytes]) -> Iterator[Finding]:
    """Episodes with the numbers of an earlier one.

    Args:
        digests: episode name -> `numbers_digest`, in the order of the dataset.
    """
    first_with: dict[bytes, str] = {}
    for name, digest in digests.items():
        if digest in first_with:
            yield DUPLICATE_EPISODE.found(name, f"the numbers of {first_with[digest]}")
        first_with.setdefault(digest, name)


def check_successes(successes: Mapping[str, bool | None]) -> Iterator[Finding]:
    """Demonstrations that were judged as failures.

    Args:
        successes: episode name -> whether it reached its goal; None where nobody judged it.
    """
    failed = [name for name, success in successes.items() if success is False]
    if failed and len(failed) == len(successes):
        yield NO_SUCCESS.found(DATASET, f"success False on all {len(failed)} episodes")
    elif failed:
        value = f"success False on {len(failed)} of {len(successes)} episodes, first {failed[0]}"
        yield FAILED_EPISODES.found(DATASET, value)


def check_rewards(last_rewards: Mapping[str, object]) -> Iterator[Finding]:
    """Successes that ended without a reward, told once.

    Args:
        last_rewards: episode name -> last reward, of the successes whose layout keeps rewards. Only
            0 says something: a shaped reward is seldom that, and says nothing at its other values.
    """
    without = [name for name, reward in last_rewards.items() if reward == 0]
    if without:
        value = f"a last reward of 0 in {len(without)} of {len(last_rewards)} successes, "
        yield SUCCESS_WITHOUT_REWARD.found(DATASET, f"{value}first {without[0]}")


def check_lengths_together(lengths: Mapping[str, Sequence[tuple[str, int]]]) -> Iterator[Finding]:
    """Episodes much longer or shorter than the others of their task.

    Args:
        lengths: sentence -> (episode name, steps) of each episode with it.
    """
    for episodes in lengths.values():
        if len(episodes) < MIN_EPISODES:
            continue
        logs = np.log([steps for _, steps in episodes])
        middle = float(np.median(logs))
        deviation = MAD_TO_STD * float(np.median(np.abs(logs - middle)))
        limit = max(np.log(MAX_LENGTH_FACTOR), MAX_LENGTH_DEVIATIONS * deviation)
        for (name, steps), log in zip(episodes, logs, strict=True):
            if abs(log - middle) > limit:
                value = f"{steps} steps where the median is {np.exp(middle):.0f}"
                yield LENGTH_OUTLIER.found(name, value)


def idle_steps(recording: Recording, declared: Declared) -> int | None:
    """Number of steps whose action asks for nothing new; None where nobody can tell.

    A displacement or speed is idle near 0, a target where it stays where it was; a gripper where it
    keeps its command. Source: the no-op filter of OpenVLA (`regenerate_libero_dataset.py`) and the
    idle filter of openpi for DROID.
    """
    action, rate = declared.conventions.action, declared.control_hz
    if rate is None or recording.num_steps < 2:
        return None
    changes = np.abs(np.diff(recording.actions, axis=0, prepend=recording.actions[:1]))
    is_idle = np.ones(recording.num_steps, dtype=bool)
    for column, reference in enumerate(action.references):
        if column in declared.roles.action_grippers:
            is_idle &= changes[:, column] == 0
        elif reference == "absolute":
            is_idle &= changes[:, column] < IDLE_SPEED / rate
        elif reference == "unknown":
            return None
        else:
            span = action.high[column] - action.low[column]
            limit = IDLE_COMMAND * (span / 2 if np.isfinite(span) else 1.0)
            is_idle &= np.abs(recording.actions[:, column]) < limit
    return int(is_idle.sum())


def check_idleness(idle: Mapping[str, tuple[int, int]]) -> Iterator[Finding]:
    """Episodes, and datasets, that mostly wait.

    Args:
        idle: episode name -> (idle steps, steps), of the episodes where it is known.
    """
    for name, (count, steps) in idle.items():
        if count > MAX_IDLE_EPISODE * steps:
            yield IDLE_EPISODE.found(name, f"{count} of {steps} steps idle")
    count, steps = (sum(side) for side in zip(*idle.values(), strict=True)) if idle else (0, 0)
    if count > MAX_IDLE_SHARE * steps:
        worst = max(idle, key=lambda name: idle[name][0] / idle[name][1])
        yield NO_OPS.found(DATASET, f"{count / steps:.0%} of {steps} steps idle, most in {worst}")


def check_declared(declared: Declared, undeclared: Sequence[str]) -> Iterator[Finding]:
    """What nobody declared: a control rate, references, and what the layout asks a person for.

    Args:
        declared: the conventions.
        undeclared: what the reader of the layout misses, a sentence each.
    """
    for sentence in undeclared:
        yield _left_open(sentence)
    if declared.control_hz is None:
        yield UNDECLARED.found(DATASET, "no control_hz", threshold="a control rate")
    action = declared.conventions.action
    unknown = [
        name
        for name, reference in zip(action.names, action.references, strict=True)
        if reference == "unknown"
    ]
    if unknown:
        value, threshold = f"no reference of the actions {unknown}", "one for each action column"
        yield UNDECLARED.found(DATASET, value, threshold=threshold)


def _left_open(sentence: str) -> Finding:
    """What the reader says, as a finding: told already by file, gap and lines to write."""
    if not isinstance(sentence, Fault):
        return UNDECLARED.found(DATASET, sentence, threshold="what the layout leaves to a person")
    return UNDECLARED.told(sentence)


def check_size(num_bytes: int, memory_bytes: int) -> Iterator[Finding]:
    """Files larger than the memory that would keep them at hand.

    Args:
        num_bytes: size of the files.
        memory_bytes: physical memory of the machine.
    """
    if num_bytes > memory_bytes:
        value = f"{num_bytes / 2**30:.1f} GiB of files and {memory_bytes / 2**30:.1f} GiB of memory"
        yield LARGER_THAN_MEMORY.found(DATASET, value)
