"""Which episodes, steps and cameras a picture shows."""

import re

import numpy as np

from data_tools.conventions import Conventions
from data_tools.errors import describe, nearest, raise_faults


def select_episodes(text: str | None, num_episodes: int, at_most: int) -> list[int]:
    """Places of the episodes to show, in order.

    Args:
        text: places and ranges, e.g. '0,3,5-8' (both ends included), or None for `at_most` spread
            evenly over the dataset, the first and the last among them.
        num_episodes: of the dataset.
        at_most: how many when `text` is None.

    Raises:
        UserError: a part is no place or range, or no such episode exists; every fault is named.
    """
    if text is None:
        return spread(num_episodes, at_most)
    places: dict[int, None] = {}
    faults: list[str] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        if match is None:
            remedy = "Write places and ranges, like 0,3,5-8."
            faults.append(describe("--episodes", repr(part), "a number or a range", remedy))
            continue
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < num_episodes:
            expected = f"places from 0 to {num_episodes - 1}, the smaller one first"
            faults.append(describe("--episodes", repr(part), expected, "Correct it."))
            continue
        places.update(dict.fromkeys(range(first, last + 1)))
    raise_faults(faults)
    return list(places)


def select_cameras(text: str | None, conventions: Conventions) -> list[str]:
    """Names of the cameras to show; all when `text` is None.

    Raises:
        UserError: a camera of that name is not declared; the nearest name is given.
    """
    if text is None:
        return list(conventions.camera_names)
    names = [name.strip() for name in text.split(",")]
    faults = []
    for name in names:
        if name not in conventions.camera_names:
            hint = nearest(name, conventions.camera_names)
            expected = f"one of {list(conventions.camera_names)}"
            remedy = f"Correct the name{f'; {hint}' if hint else '.'}"
            faults.append(describe("--cameras", repr(name), expected, remedy))
    raise_faults(faults)
    return list(dict.fromkeys(names))


def spread(count: int, at_most: int) -> list[int]:
    """At most so many of 0 ... count - 1, evenly spaced, with both ends; the middle for one."""
    if count <= at_most:
        return list(range(count))
    if at_most == 1:
        return [count // 2]
    return [int(place) for place in np.linspace(0, count - 1, at_most).round()]
