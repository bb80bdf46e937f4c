"""Checks of one episode's clock: long enough, running forward, at the declared rate.

The check that the frames of a video belong to the steps of its episode.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from data_tools.doctor.checks.recording import NO_RATE, Declared, FloatArray, Recording
from data_tools.episode import frame_doubts
from data_tools.finding import Finding, Rule, Told, not_checked

# What a hand needs for the shortest reach; in seconds, as a robot at 10 Hz is done in two steps.
SHORTEST_S: Final = 0.2
MIN_STEPS: Final = 2
# ALOHA's recorder refuses 42 Hz for 50, which is 16 % off; clocks themselves agree to 1e-4.
RATE_TOLERANCE: Final = 0.1
# A step this much longer than the usual one has lost a sample; a share of them is normal.
GAP: Final = 1.5
MAX_GAP_SHARE: Final = 0.01
# A single gap of this many steps and seconds is a hole in the demonstration.
HOLE: Final = 5.0
HOLE_S: Final = 0.2
MAX_JITTER: Final = 0.5
# No clock keeps its steps to a microsecond; one that was counted does, as float32 lets it.
GRID_S: Final = 1e-6

SHORT_EPISODE = Rule(
    name="short_episode",
    severity="warning",
    sentence="An episode is too short to be a demonstration.",
    threshold=f"at least {SHORTEST_S:g} s and {MIN_STEPS} steps",
    remedy="Check that the recording was not cut off.",
)
TIME_BACKWARDS = Rule(
    name="time_backwards",
    severity="error",
    sentence="The clock stands still or runs backwards within an episode.",
    threshold="increasing times",
    remedy="Sort the steps by time or record again: they may be in the wrong order.",
)
CONTROL_RATE = Rule(
    name="control_rate",
    severity="warning",
    sentence="The times of an episode disagree with the declared control rate.",
    threshold=f"within {RATE_TOLERANCE:.0%} of the declared rate",
    remedy="Correct control_hz, or resample the episode.",
)
DROPPED_STEPS = Rule(
    name="dropped_steps",
    severity="warning",
    sentence="Steps are missing: gaps between the times of an episode.",
    threshold=(
        f"at most {MAX_GAP_SHARE:.0%} of the steps over {GAP:g} times the median, none over "
        f"{HOLE:g} times and {HOLE_S:g} s"
    ),
    remedy="Cut the episode at the gap, or leave it out: actions there are not what was done.",
)
TIME_JITTER = Rule(
    name="time_jitter",
    severity="warning",
    sentence="The control rate of an episode is irregular.",
    threshold=f"a deviation of the step's duration up to {MAX_JITTER:.0%} of the median",
    remedy="Resample the episode to a fixed rate.",
)
CLOCK_RULES = (TIME_BACKWARDS, CONTROL_RATE, DROPPED_STEPS, TIME_JITTER)
RULES = (SHORT_EPISODE, *CLOCK_RULES)


def check_duration(recording: Recording, declared: Declared) -> Iterator[Finding]:
    """An episode too short to be a demonstration."""
    shortest = max(MIN_STEPS, declared.steps(SHORTEST_S) or 0.0)
    if recording.num_steps < shortest:
        rate = "" if declared.control_hz is None else f" at {declared.control_hz:g} Hz"
        value = f"{recording.num_steps} steps{rate}"
        yield SHORT_EPISODE.found(recording.name, value)


def check_times(recording: Recording, declared: Declared) -> Iterator[Told]:
    """Times that run backwards, at another rate than declared, with gaps, or unevenly."""
    if recording.times is None or recording.num_steps < 2:
        yield not_checked(recording.name, "no clock is recorded", *CLOCK_RULES)
        return
    steps = np.diff(recording.times)
    worst = int(np.argmin(steps))
    # written so that a NaN is a finding
    if not steps[worst] > 0:
        value = f"{recording.times[worst]:g} s and then {recording.times[worst + 1]:g} s"
        yield TIME_BACKWARDS.found(recording.name, value, step=worst + 1)
        return
    usual = float(np.median(steps))
    rate = declared.control_hz
    if rate is not None and abs(1 / usual - rate) > RATE_TOLERANCE * rate:
        value = f"{1 / usual:.4g} Hz (the median step)"
        threshold = f"{rate:g} Hz as declared, +- {RATE_TOLERANCE:.0%}"
        yield CONTROL_RATE.found(recording.name, value, threshold=threshold)
    elif rate is None:
        yield not_checked(recording.name, NO_RATE, CONTROL_RATE)
    if _is_on_grid(recording.times):
        why = "the clock lies on an exact grid: it was counted, not measured"
        yield not_checked(recording.name, why, DROPPED_STEPS, TIME_JITTER)
        return
    longest = int(np.argmax(steps))
    num_gaps = int((steps > GAP * usual).sum())
    is_hole = steps[longest] > max(HOLE * usual, HOLE_S)
    if is_hole or (num_gaps > MAX_GAP_SHARE * len(steps) and num_gaps > 1):
        value = f"{num_gaps} gaps in {len(steps)} steps, the longest {steps[longest]:.3g} s"
        yield DROPPED_STEPS.found(recording.name, value, step=longest + 1)
    elif np.std(steps) > MAX_JITTER * usual:
        value = f"steps of {usual:.3g} s with a deviation of {np.std(steps):.3g} s"
        yield TIME_JITTER.found(recording.name, value)


def _is_on_grid(times: FloatArray) -> bool:
    """Whether all steps of the clock are the same, as far as float32 tells."""
    resolution = GRID_S + 2 * float(np.finfo(np.float32).eps) * np.abs(times)
    counted = np.linspace(times[0], times[-1], len(times))
    return bool((np.abs(times - counted) <= resolution).all())


def check_frame_clock(recording: Recording) -> Iterator[Finding]:
    """Videos of which nobody can say which of their frames belong to which steps."""
    yield from dict.fromkeys(frame_doubts(recording.episode).values())
