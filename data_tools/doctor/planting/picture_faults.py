"""Faults of pictures: dark, hanging, exchanged, turned, blurred, moved."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

from data_tools.doctor.planting.bed import Bed, Fault, Planted, Strength, UnfitError
from data_tools.doctor.planting.writing import Frame

STILL: Final = frozenset({"frozen_camera", "repeated_frames", "duplicated_camera", "same_pictures"})
VIEW: Final = frozenset(
    {"swapped_colors", "turned_frames", "exchanged_cameras", "moved_camera", "blurred_camera"}
)


def _changed(change: Callable[[Bed, Frame], Frame]) -> Callable[[Bed], Iterator[Planted]]:
    """Plants a change of every frame of one camera of an episode."""

    def plant(bed: Bed) -> Iterator[Planted]:
        def one(index: int) -> str:
            (camera,) = bed.camera(index)
            bed.change_frames(index, camera, lambda frame: change(bed, frame))
            return f"every frame of camera {camera!r}"

        return bed.each(one)

    return plant


def _level(bed: Bed, frame: Frame) -> Frame:
    """Noise of a sensor that sees nothing, or too much."""
    noise = bed.rng.normal(bed.strength, 1.0, frame.shape)
    return noise.round().clip(0, 255).astype(np.uint8)


def _blur(bed: Bed, frame: Frame) -> Frame:
    width = bed.strength / 100 * min(frame.shape[:2])
    return gaussian_filter(frame, (width, width, 0), mode="nearest")


def _swap(bed: Bed, frame: Frame) -> Frame:
    return frame[:, :, ::-1]


def _turn(bed: Bed, frame: Frame) -> Frame:
    return frame[::-1, ::-1]


def _move(bed: Bed) -> Iterator[Planted]:
    """One direction for all episodes: the camera was pushed once."""
    (camera,) = bed.camera(bed.chosen[0])
    direction = bed.rng.uniform(0, 2 * np.pi)
    turn = np.deg2rad(bed.strength / 3) * bed.rng.choice([-1, 1])
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

    def change(frame: Frame) -> Frame:
        middle = np.array(frame.shape[:2]) / 2
        step = bed.strength / 100 * min(frame.shape[:2])
        offset = middle - matrix @ middle + step * np.array([np.sin(direction), np.cos(direction)])
        layers = [
            affine_transform(layer, matrix, offset, order=1, mode="nearest")
            for layer in np.moveaxis(frame, 2, 0)
        ]
        return np.stack(layers, axis=2)

    for index in bed.chosen:
        bed.change_frames(index, camera, change)
        yield Planted(bed.record(index).name, f"camera {camera!r} moved by {bed.strength:g} %")


def _truncated(bed: Bed) -> Iterator[Planted]:
    def one(index: int) -> str:
        (camera,) = bed.camera(index)
        data = bed.stored_frame(index, camera, 0)
        if not isinstance(data, bytes):
            raise UnfitError("frames are pixels, of which each is as good as another")
        steps = bed.recording(index).num_steps
        step = int(bed.rng.choice([steps // 2, steps - 1]))
        left = int(bed.strength * len(data.rstrip(b"\0")))
        bed.write_frames(index, camera, {step: data[:left] or b"no image"})
        return f"camera {camera!r}: {left} bytes are left of the frame at step {step}"

    return bed.each(one)


def _frozen(bed: Bed) -> Iterator[Planted]:
    def one(index: int) -> str:
        (camera,) = bed.camera(index)
        steps = bed.recording(index).num_steps
        start = steps - max(1, round(bed.strength * steps))
        picture = bed.stored_frame(index, camera, start)
        bed.write_frames(index, camera, {step: picture for step in range(start, steps)})
        return f"camera {camera!r} shows step {start} from there on"

    return bed.each(one)


def _repeated(bed: Bed) -> Iterator[Planted]:
    def one(index: int) -> str:
        (camera,) = bed.camera(index)
        each, steps = int(bed.strength), bed.recording(index).num_steps
        frames = {
            step: bed.stored_frame(index, camera, step - step % each) for step in range(steps)
        }
        bed.write_frames(index, camera, frames)
        return f"camera {camera!r} shows each picture {each} times"

    return bed.each(one)


def _two(bed: Bed, index: int) -> tuple[str, str]:
    """Two cameras by chance whose frames are stored alike."""
    one, other = bed.camera(index, 2)
    images = bed.record(index).images
    about = [
        (images[each].encoding, images[each].camera.model_copy(update={"name": "", "source": ""}))
        for each in (one, other)
    ]
    if about[0] != about[1]:
        raise UnfitError("no two cameras of one size that are stored alike")
    return one, other


def _duplicated(bed: Bed) -> Iterator[Planted]:
    def one(index: int) -> str:
        shown, hidden = _two(bed, index)
        steps = range(bed.recording(index).num_steps)
        bed.write_frames(index, hidden, {k: bed.stored_frame(index, shown, k) for k in steps})
        return f"camera {hidden!r} shows what {shown!r} shows"

    return bed.each(one)


def _exchanged(bed: Bed) -> Iterator[Planted]:
    def one(index: int) -> str:
        pair = _two(bed, index)
        steps = range(bed.recording(index).num_steps)
        for camera, other in (pair, pair[::-1]):
            bed.write_frames(index, camera, {k: bed.stored_frame(index, other, k) for k in steps})
        return f"cameras {pair[0]!r} and {pair[1]!r} are exchanged"

    return bed.each(one)


def _same(bed: Bed) -> Iterator[Planted]:
    def one(index: int) -> str:
        if index == 0:
            raise UnfitError("no episode before the first")
        other = index - 1
        steps, others = (bed.recording(each).num_steps for each in (index, other))
        # the first, the middle and the last step are those of the other episode
        ends = [0, steps // 2, steps - 1], [0, others // 2, others - 1]
        rows = np.interp(np.arange(steps), *ends).round().astype(int).tolist()
        for camera in bed.camera(index, max(1, len(bed.record(index).images))):
            frames = {k: bed.stored_frame(other, camera, row) for k, row in enumerate(rows)}
            bed.write_frames(index, camera, frames)
        return f"all cameras show {bed.record(other).name}"

    return bed.each(one)


FAULTS: Final = (
    Fault(
        "undecodable_frame",
        "A frame's file is cut off.",
        "one",
        _truncated,
        Strength("share that is left", 0.9, 0.5, 0.0, most=1),
    ),
    Fault(
        "black_frame",
        "A camera is covered.",
        "one",
        _changed(_level),
        Strength("mean brightness, of 255", 4, 2, 0, most=255),
        also=STILL | VIEW,
    ),
    Fault(
        "white_frame",
        "A camera is overexposed.",
        "one",
        _changed(_level),
        Strength("mean brightness, of 255", 252, 254, 255, most=255),
        also=STILL | VIEW,
    ),
    Fault(
        "frozen_camera",
        "A camera hangs until the end of an episode.",
        "one",
        _frozen,
        Strength("share of the episode", 0.5, 0.7, 1.0, most=1),
        also=STILL,
    ),
    Fault(
        "repeated_frames",
        "A camera shows each picture several times.",
        "one",
        _repeated,
        Strength("how many times", 3, 4, 8, least=1),
        also=STILL,
        is_deep=True,
    ),
    Fault(
        "duplicated_camera", "One camera shows what another shows.", "one", _duplicated, also=VIEW
    ),
    Fault(
        "swapped_colors",
        "Red and blue of a camera are exchanged.",
        "one",
        _changed(_swap),
        also=VIEW,
    ),
    Fault("turned_frames", "A camera is turned upside down.", "one", _changed(_turn), also=VIEW),
    Fault("exchanged_cameras", "Two cameras are exchanged.", "one", _exchanged, also=VIEW),
    Fault(
        "same_pictures", "An episode has the pictures of another.", "one", _same, also=VIEW | STILL
    ),
    Fault(
        "blurred_camera",
        "A camera is out of focus.",
        "one",
        _changed(_blur),
        Strength("width of the blur [% of the shorter side]", 1, 2, 4, most=100),
        also=VIEW,
    ),
    Fault(
        "moved_camera",
        "A camera is pushed, and stays so.",
        "from",
        _move,
        Strength("how far [% of the shorter side]", 4, 8, 20, most=100),
        also=VIEW,
    ),
)
