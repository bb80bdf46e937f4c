"""Does an episode do what its sentence says? Told by the motions of the other episodes.

Nothing in a motion is a word. But where the motions of two sentences are told apart, and one
episode moves as those of the other sentence do and not as those of its own, its sentence is wrong.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from data_tools.doctor.checks.recording import FloatArray, Recording
from data_tools.finding import DATASET, Rule, Told, not_checked

# Episodes of a sentence that are enough to know its motions, and those compared at most.
MIN_EPISODES: Final = 5
MAX_EPISODES: Final = 200
# Moments of an episode that are compared, from its start to its end.
MOMENTS: Final = 16
# The distance to a task is that to so many of its episodes, the nearest ones.
NEAREST: Final = 3
# Share of the episodes of two sentences that must be nearer to their own.
MIN_APART: Final = 0.9
# How near an episode must be to the other sentence [of its distance to its own], and how far out
# among that sentence's episodes it may lie [quantile].
MAX_RATIO: Final = 0.6
WITHIN: Final = 0.95

FOREIGN_SENTENCE = Rule(
    name="foreign_sentence",
    severity="warning",
    sentence="An episode moves as those of another sentence do, and not as those of its own.",
    threshold=f"nearer to its own sentence's episodes, or at least {MAX_RATIO:g} times as far from "
    "the others'",
    remedy="Look at it (robot-data view); correct its sentence with robot-data relabel.",
)
RULES = (FOREIGN_SENTENCE,)


def check_sentences(sample: Sequence[Recording]) -> Iterator[Told]:
    """Episodes whose motion is that of another task."""
    tasks: dict[str, list[Recording]] = {}
    for recording in sample:
        tasks.setdefault(recording.labels.instruction, []).append(recording)
    known = {text: each for text, each in tasks.items() if len(each) >= MIN_EPISODES}
    if len(known) < 2:
        why = f"fewer than two sentences have {MIN_EPISODES} episodes"
        yield not_checked(DATASET, why, FOREIGN_SENTENCE)
        return
    texts = list(known)
    motions = _motions([known[text] for text in texts])
    # [own][other]: float64[episodes of own], how far each is from the other task's episodes
    away = [[_distances(one, other, is_same=one is other) for other in motions] for one in motions]
    for own, text in enumerate(texts):
        for other in range(len(texts)):
            if other != own and _are_apart(away, own, other):
                limit = np.quantile(away[other][other], WITHIN)
                ratio = away[own][other] / np.maximum(away[own][own], 1e-12)
                for index in np.flatnonzero((ratio < MAX_RATIO) & (away[own][other] <= limit)):
                    value = (
                        f"{text[:60]!r}, with a motion {ratio[index]:.0%} as far from the episodes "
                        f"of {texts[other][:60]!r} as from its own"
                    )
                    yield FOREIGN_SENTENCE.found(known[text][index].name, value)


def _motions(tasks: Sequence[Sequence[Recording]]) -> list[FloatArray]:
    """float64[e, 16 s] of each task: the state at 16 moments, each column by its own deviation."""
    together = np.concatenate([recording.state for each in tasks for recording in each])
    deviation = together.std(axis=0)
    moves = deviation > 1e-9
    return [
        np.array([_moments(r.state[:, moves]) for r in each]) / np.tile(deviation[moves], MOMENTS)
        for each in tasks
    ]


def _moments(state: FloatArray) -> FloatArray:
    at = np.linspace(0, len(state) - 1, MOMENTS).round().astype(int)
    return state[at].ravel()


def _distances(one: FloatArray, other: FloatArray, *, is_same: bool) -> FloatArray:
    """float64[e]: mean distance of each of one task to the nearest episodes of another."""
    share = max(1, len(other) // MAX_EPISODES)
    table: npt.NDArray[np.float64] = cdist(one, other[::share])
    if is_same:
        kept = np.arange(0, len(other), share)
        table[kept, np.arange(len(kept))] = np.inf
    return np.sort(table, axis=1)[:, :NEAREST].mean(axis=1)


def _are_apart(away: Sequence[Sequence[FloatArray]], own: int, other: int) -> bool:
    """Whether nearly all episodes of both are nearer to their own."""
    nearer = [away[a][a] < away[a][b] for a, b in ((own, other), (other, own))]
    return all(float(each.mean()) >= MIN_APART or (~each).sum() <= 1 for each in nearer)
