"""Whether what is given as observations is of the kinds that an Observation declares."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data_tools.episode import Observation
from policy_ft.errors import describe


def observation_faults(observations: object) -> Iterator[str]:
    """What is no sequence of at least one Observation, or holds a value of another type.

    Args:
        observations: whatever a caller gave; widths and numbers are not looked at.
    """
    remedy = "Give a list of one Observation a robot."
    if not isinstance(observations, Sequence) or isinstance(observations, str | bytes):
        yield describe("observations", _kind(observations), "a list of Observation", remedy)
        return
    if not observations:
        yield describe("observations", "none", "at least one", remedy)
    for index, each in enumerate(observations):
        where = "observation" if len(observations) == 1 else f"observation {index}"
        if isinstance(each, Observation):
            yield from _value_faults(each, where)
        else:
            advice = "Give data_tools.episode.Observation(images=..., state=..., instruction=...)."
            yield describe(where, _kind(each), "an Observation", advice)


def _value_faults(observation: Observation, where: str) -> Iterator[str]:
    images, state = observation.images, observation.state
    if isinstance(images, Mapping):
        for name, image in images.items():
            if not isinstance(image, np.ndarray):
                remedy = "Send np.asarray(image), rows, columns, RGB, not scaled."
                place = f"{where}, camera {name!r}"
                yield describe(place, _kind(image), "an array uint8[y, x, 3]", remedy)
    else:
        remedy = "Send {name: image}, one for each camera."
        yield describe(f"{where}, images", _kind(images), "a mapping of camera names", remedy)
    if not isinstance(state, np.ndarray) or state.dtype.kind not in "fiub":
        found = f"{state.dtype}{list(state.shape)}" if isinstance(state, np.ndarray) else ""
        remedy = "Send np.asarray(state, dtype=np.float32)."
        yield describe(f"{where}, state", found or _kind(state), "an array of numbers", remedy)
    if not isinstance(observation.instruction, str):
        found, remedy = _kind(observation.instruction), "Send the task as a sentence."
        yield describe(f"{where}, instruction", found, "a text", remedy)


def _kind(value: object) -> str:
    """The type of a value, in words that say what it is."""
    return "None" if value is None else f"a value of type {type(value).__name__}"
