"""Faults of clocks and of time: late, uneven, cut short, waiting."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from data_tools.doctor.planting.bed import Bed, Fault, FloatArray, Planted, Strength, UnfitError
from data_tools.doctor.planting.number_faults import ODD, middle

CLOCK: Final = frozenset({"time_backwards", "control_rate", "dropped_steps", "time_jitter"})
# What a sensor shows of a robot that stands still [of its column's span].
REST_NOISE: Final = 2e-5


def _clock(change: Callable[[Bed, FloatArray, int], str]) -> Callable[[Bed], Iterator[Planted]]:
    """Plants what a function makes of the times, which it changes in place from a step on."""

    def plant(bed: Bed) -> Iterator[Planted]:
        def one(index: int) -> str:
            times = bed.times(index)
            told = change(bed, times, middle(bed, len(times)))
            bed.write(index, times=times)
            return told

        return bed.each(one)

    return plant


def _backwards(bed: Bed, times: FloatArray, step: int) -> str:
    times[step:] -= times[step] - times[step - 1] + bed.strength
    return f"the clock is set back by {bed.strength:g} s before step {step}"


def _faster(bed: Bed, times: FloatArray, step: int) -> str:
    times /= 1 + bed.strength
    return f"the clock tells {1 + bed.strength:g} times the rate"


def _gap(bed: Bed, times: FloatArray, step: int) -> str:
    times[step:] += bed.strength
    return f"{bed.strength:g} s are missing before step {step}"


def _jitter(bed: Bed, times: FloatArray, step: int) -> str:
    """Readings that come early or late, and mostly not on time; none so late as a lost step."""
    usual = float(np.median(np.diff(times)))
    kinds = np.zeros(len(times) - 1)
    kinds[::5], kinds[1::5] = -bed.strength, -bed.strength
    kinds[2::5], kinds[3::5] = (min(bed.strength, 0.49),) * 2
    bed.rng.shuffle(kinds)
    times[1:] = np.cumsum(usual * (1 + kinds))
    return f"readings up to {bed.strength:.0%} of a step early or late"


def _cut(bed: Bed, share_left: float) -> Callable[[int], str]:
    def one(index: int) -> str:
        steps = bed.recording(index).num_steps
        left = max(1, round(share_left * steps))
        if left >= steps:
            raise UnfitError(f"only {steps} steps")
        bed.take_rows(index, np.arange(left))
        return f"cut from {steps} steps to {left}"

    return one


def _short(bed: Bed) -> Iterator[Planted]:
    def one(index: int) -> str:
        return _cut(bed, bed.strength * bed.control_hz / bed.recording(index).num_steps)(index)

    return bed.each(one)


def _unusual_length(bed: Bed) -> Iterator[Planted]:
    return bed.each(_cut(bed, 1 / bed.strength))


def _pause(bed: Bed) -> Iterator[Planted]:
    """The robot waits in the middle, and what follows comes later; what is too late falls off."""

    def one(index: int) -> str:
        recording = bed.recording(index)
        length = round(bed.strength * bed.control_hz)
        step = middle(bed, recording.num_steps, max(4, recording.num_steps // 4))
        steps = np.arange(recording.num_steps + length)
        rows = np.where(steps < step, steps, np.maximum(step, steps - length))
        bed.take_rows(index, rows)
        paused = bed.recording(index)
        spans = np.ptp(recording.state, axis=0)
        rest = bed.rng.normal(size=(length, len(spans))) * REST_NOISE * spans
        paused.state[step : step + length] += rest
        held = slice(step, step + length)
        for column, reference in enumerate(bed.declared.conventions.action.references):
            is_gripper = column in bed.declared.roles.action_grippers
            if reference in ("delta", "velocity") and not is_gripper:
                paused.actions[held, column] = 0.0
        times = None if paused.times is None else np.arange(len(rows)) / bed.control_hz
        bed.write(index, state=paused.state, actions=paused.actions, times=times)
        return f"nothing moves for {bed.strength:g} s from step {step}"

    return bed.each(one)


def _idle(bed: Bed, index: int, share: float) -> str:
    recording, action = bed.recording(index), bed.declared.conventions.action
    start = recording.num_steps - max(1, round(share * recording.num_steps))
    for column, reference in enumerate(action.references):
        if reference == "unknown":
            raise UnfitError(f"nobody declared what the action {action.names[column]!r} is")
        is_held = reference == "absolute" or column in bed.declared.roles.action_grippers
        recording.actions[start:, column] = recording.actions[start, column] if is_held else 0.0
    recording.state[start:] = recording.state[start]
    bed.write(index, state=recording.state, actions=recording.actions)
    return f"nothing is asked for from step {start} on"


def _idle_episode(bed: Bed) -> Iterator[Planted]:
    return bed.each(lambda index: _idle(bed, index, bed.strength))


def _no_ops(bed: Bed) -> Iterator[Planted]:
    changes = [_idle(bed, index, bed.strength) for index in bed.chosen]
    yield Planted("", f"in every episode {changes[0]}")


_WAITING: Final = frozenset({"no_ops", "idle_episode", "long_pause", "frozen_camera"})
FAULTS: Final = (
    Fault(
        "time_backwards",
        "The clock is set back within an episode.",
        "one",
        _clock(_backwards),
        Strength("by how much [s]", 0.001, 0.1, 10),
        also=CLOCK,
    ),
    Fault(
        "control_rate",
        "The clock runs at another rate than declared.",
        "one",
        _clock(_faster),
        Strength("how much faster, as a share", 0.15, 0.5, 1),
        also=CLOCK,
    ),
    Fault(
        "dropped_steps",
        "Time is missing between two steps.",
        "one",
        _clock(_gap),
        Strength("how much [s]", 0.5, 1, 5),
        also=CLOCK,
    ),
    Fault(
        "time_jitter",
        "The clock is uneven.",
        "one",
        _clock(_jitter),
        Strength("how early, as a share of a step below 1", 0.8, 0.9, 0.98, most=1),
        also=CLOCK,
    ),
    Fault(
        "short_episode",
        "An episode is cut off after a moment.",
        "one",
        _short,
        Strength("how long it is then [s]", 0.15, 0.1, 0.05),
        also=CLOCK | {"length_outlier"},
    ),
    Fault(
        "length_outlier",
        "An episode is cut off early.",
        "one",
        _unusual_length,
        Strength("how many times shorter it is", 6, 10, 20, least=1),
        also=frozenset({"short_episode"}),
    ),
    Fault(
        "long_pause",
        "The robot waits in the middle of an episode.",
        "one",
        _pause,
        Strength("how long [s]", 4, 6, 15, most=600),
        also=_WAITING | ODD,
    ),
    Fault(
        "idle_episode",
        "An episode asks for nothing in most of its steps.",
        "one",
        _idle_episode,
        Strength("share of the steps", 0.92, 0.95, 1.0, most=1),
        also=_WAITING | ODD | {"gripper_flipped"},
    ),
    Fault(
        "no_ops",
        "All episodes ask for nothing in a large share of their steps.",
        "all",
        _no_ops,
        Strength("share of the steps", 0.4, 0.6, 0.8, most=1),
        also=_WAITING | ODD,
    ),
)
