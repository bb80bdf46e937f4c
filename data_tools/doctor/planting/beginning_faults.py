"""Faults of where episodes begin: with what is left of the one before."""

from collections.abc import Iterator
from typing import Final

from data_tools.doctor.planting.bed import Bed, Fault, Planted, UnfitError
from data_tools.doctor.planting.number_faults import ODD


def _before(index: int) -> int:
    if index == 0:
        raise UnfitError("no episode before the first")
    return index - 1


def _stale_frame(bed: Bed) -> Iterator[Planted]:
    def one(index: int) -> str:
        before = _before(index)
        (camera,) = bed.camera(index)
        last = bed.recording(before).num_steps - 1
        bed.write_frames(index, camera, {0: bed.stored_frame(before, camera, last)})
        return f"camera {camera!r} shows first what the episode before showed last"

    return bed.each(one)


def _stale_row(bed: Bed) -> Iterator[Planted]:
    def one(index: int) -> str:
        before, recording = bed.recording(_before(index)), bed.recording(index)
        recording.state[0], recording.actions[0] = before.state[-1], before.actions[-1]
        bed.write(index, state=recording.state, actions=recording.actions)
        return "the first state and action are the last of the episode before"

    return bed.each(one)


FAULTS: Final = (
    Fault(
        "stale_first_frame",
        "A camera's first picture is the last one of the episode before.",
        "one",
        _stale_frame,
        also=frozenset({"moved_camera", "blurred_camera"}),
    ),
    Fault(
        "stale_first_row",
        "The first state and action are the last ones of the episode before.",
        "one",
        _stale_row,
        also=ODD | {"quaternion_flip", "quaternion_hemisphere"},
    ),
)
