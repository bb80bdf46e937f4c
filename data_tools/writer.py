"""EpisodeWriter: demonstrations to one HDF5 file that is either finished or not there."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.errors import UserError, describe, raise_faults
from data_tools.formats.layouts import native
from data_tools.formats.layouts.native import NATIVE_LAYOUT
from data_tools.formats.new_episode import CameraFrames, NewEpisode
from data_tools.storage.files.disk import PARTIAL_SUFFIX, flush_to_disk, give_name
from data_tools.storage.frames.images import encode_frames, pad_rows

UNKNOWN_QUALITY = 0


class EpisodeWriter:
    """Writes episodes in the native layout; the file appears when the `with` block ends well.

    Until then it is `<name>.<random>.partial` beside it, so a process that dies leaves nothing that
    looks finished, and two writers never share a file. Every episode is flushed when it is added.
    When the block ends with an exception, the episodes added before it stay in the partial file,
    readable, and the error names it; without any episode the partial file is removed.

    Args:
        path: the file to make, e.g. 'demos/pick.hdf5'; its folder is made too.
        conventions: what the episodes declare; images are written as given, so every camera must be
            RGB and upright.
        jpeg_quality: 1 to 100; at 95 a 96 x 96 frame takes about 4 kB.
        overwrite: whether an existing file may be replaced.
        source: what makes the episodes (a script, a robot, a person), kept with each.

    Raises:
        UserError: the file exists, a camera is not RGB and upright, or the quality is out of range;
            all at once.
    """

    def __init__(
        self,
        path: str | Path,
        conventions: Conventions,
        jpeg_quality: int = 95,
        *,
        overwrite: bool = False,
        source: str = "unknown",
    ) -> None:
        self.path = Path(path)
        self.conventions = conventions
        self.num_episodes = 0
        self._quality = jpeg_quality
        self._overwrite = overwrite
        self._source = source
        self._control_hz = conventions.known_control_hz("write demonstrations")
        self._num_begun = 0
        self._num_steps = 0
        self._partial = self.path.with_name(
            f"{self.path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}"
        )
        self._file: h5py.File | None = None
        raise_faults(
            [
                *_camera_faults(conventions),
                *_quality_faults(jpeg_quality),
                *self._existing_faults(),
            ]
        )

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = h5py.File(self._partial, "x")
        except OSError as error:
            remedy = "Choose a folder that can be written to."
            found = f"{type(error).__name__} ({error})"
            raise UserError(describe(str(self.path), found, "a new file", remedy)) from error
        root = self._file.create_group(NATIVE_LAYOUT.root)
        root.attrs[native.SCHEMA_ATTRIBUTE] = native.SCHEMA_VERSION
        root.attrs[native.CONVENTIONS_ATTRIBUTE] = self.conventions.model_dump_json()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        file = self._open_file()
        self._file = None
        faults = self._unfinished_faults() if error is None else []
        self._close(file)
        if error is None and not faults:
            faults = self._publish()
            if not faults:
                return
        if self.num_episodes == 0:
            self._partial.unlink()
            raise_faults(faults)
        else:
            kept = (
                f"{self._partial}: holds the {self.num_episodes} episodes added before. "
                "Rename it to end in .hdf5 to use them, or delete it."
            )
            if isinstance(error, UserError):
                raise UserError([*error.faults, kept]) from error
            if error is None:
                raise UserError([*faults, kept])
            error.add_note(kept)

    def add(
        self,
        *,
        images: Mapping[str, CameraFrames],
        state: npt.ArrayLike,
        actions: npt.ArrayLike,
        instruction: str,
        success: bool | None = None,
        attributes: Mapping[str, object] | None = None,
        times: npt.ArrayLike | None = None,
        columns: Mapping[str, npt.ArrayLike] | None = None,
    ) -> None:
        """Write one episode of t steps; observation i was seen just before action i was taken.

        Args:
            images: camera name -> uint8[t, y, x, 3], RGB, upright, or a list of t JPEG files of
                such frames, which keep their bytes; exactly the declared cameras and sizes.
            state: float[t, s], in the declared units.
            actions: float[t, a], in the declared units.
            instruction: the task as a sentence.
            success: whether the episode reached its goal; None when nobody judged it.
            attributes: anything else worth keeping (task, seed, ...); must survive JSON. 'source'
                takes the place of the writer's.
            times: float64[t], rising seconds since the start; None when nobody measured them.
            columns: name -> float[t] or float[t, n], what else is said of each step: 'weight' says
                how much it counts in training, at least 0.

        Raises:
            UserError: any argument is wrong, every fault is named, or the disk refuses; nothing of
                the episode is in the file then.
        """
        file = self._open_file()
        place = f"{NATIVE_LAYOUT.root}/demo_{self.num_episodes}"
        episode = NewEpisode.of(
            images, state, actions, instruction, success, attributes, times, columns
        )
        faults = episode.faults(f"{self.path}:{place}", self.conventions)
        raise_faults(faults)
        # Should writing stop half way (a full disk), this number stays wrong and the file is never
        # called finished.
        self._num_begun += 1
        try:
            self._write(file.create_group(place), episode)
            file.flush()
        except BaseException as failure:
            if place in file:
                del file[place]
            if isinstance(failure, OSError):
                raise UserError(_refused_by_disk(self.path, failure)) from failure
            raise
        self.num_episodes += 1
        self._num_steps += episode.num_steps

    def _write(self, group: h5py.Group, episode: NewEpisode) -> None:
        group.attrs[native.NUM_SAMPLES_ATTRIBUTE] = episode.num_steps
        group.attrs[native.INSTRUCTION_ATTRIBUTE] = episode.instruction
        group.attrs[native.FPS_ATTRIBUTE] = self._control_hz
        extra = dict(episode.attributes)
        group.attrs[native.SOURCE_ATTRIBUTE] = str(extra.pop("source", self._source))
        group.attrs[native.EXTRA_ATTRIBUTE] = json.dumps(extra)
        if episode.success is not None:
            group.attrs[native.SUCCESS_ATTRIBUTE] = bool(episode.success)
        (actions_path,) = NATIVE_LAYOUT.action_paths
        group.create_dataset(actions_path, data=episode.actions.astype(np.float32))
        (state_path,) = NATIVE_LAYOUT.state_paths
        group.create_dataset(state_path, data=episode.state.astype(np.float32))
        if episode.times is not None:
            group.create_dataset(native.TIMES, data=episode.times.astype(np.float64))
        for name, values in episode.columns.items():
            group.create_dataset(f"{native.COLUMNS}/{name}", data=values.astype(np.float32))
        for camera in self.conventions.camera_names:
            self._write_images(group, camera, episode.images[camera])

    def _write_images(self, group: h5py.Group, camera: str, frames: CameraFrames) -> None:
        if isinstance(frames, np.ndarray):
            rows, quality = encode_frames(frames, self._quality), self._quality
        else:
            rows, quality = pad_rows(frames), UNKNOWN_QUALITY
        dataset = group.create_dataset(
            str(NATIVE_LAYOUT.image_place(camera)), data=rows, chunks=(1, rows.shape[1])
        )
        dataset.attrs[native.ENCODING_ATTRIBUTE] = "jpeg"
        dataset.attrs[native.COLOR_ORDER_ATTRIBUTE] = "rgb"
        dataset.attrs[native.ORIENTATION_ATTRIBUTE] = "upright"
        if quality != UNKNOWN_QUALITY:
            dataset.attrs[native.QUALITY_ATTRIBUTE] = quality

    def _publish(self) -> list[str]:
        """Give the file its name; why that cannot be, if another process was faster."""
        try:
            give_name(self._partial, self.path, is_new=not self._overwrite)
        except UserError as taken:
            return list(taken.faults)
        flush_to_disk(self.path.parent)
        return []

    def _unfinished_faults(self) -> list[str]:
        """Why the file must not be called finished."""
        faults = self._existing_faults()
        if self.num_episodes == 0:
            faults.append(
                describe(
                    str(self.path),
                    "no episodes",
                    "at least one",
                    "Call add() before the with block ends.",
                )
            )
        if self._num_begun != self.num_episodes:
            found = "an episode whose writing failed"
            faults.append(describe(str(self.path), found, "whole episodes", "Record it again."))
        return faults

    def _close(self, file: h5py.File) -> None:
        """Close the partial file and wait until it is on the disk; remove it when that fails."""
        try:
            file[NATIVE_LAYOUT.root].attrs[native.TOTAL_ATTRIBUTE] = self._num_steps
            file.close()
            flush_to_disk(self._partial)
        except (OSError, RuntimeError) as failure:  # h5py raises either when the disk is full
            self._partial.unlink(missing_ok=True)
            raise UserError(_refused_by_disk(self.path, failure)) from failure

    def _open_file(self) -> h5py.File:
        if self._file is None:
            raise UserError(
                describe(
                    str(self.path),
                    "a writer that is not open",
                    "a call inside `with EpisodeWriter(...) as writer`",
                    "Open it with `with`.",
                )
            )
        return self._file

    def _existing_faults(self) -> list[str]:
        if self._overwrite or not self.path.exists():
            return []
        remedy = "Choose another name, or pass overwrite=True to replace it."
        return [describe(str(self.path), "an existing file", "a new name", remedy)]


def _refused_by_disk(path: Path, failure: Exception) -> str:
    found = f"{type(failure).__name__} ({failure})"
    remedy = "Free space on that disk or choose another, and record again."
    return describe(str(path), found, "a disk that takes the data", remedy)


def _camera_faults(conventions: Conventions) -> list[str]:
    return [
        describe(
            f"conventions, camera {camera.name!r}",
            f"color_order {camera.color_order!r} and orientation {camera.orientation!r}",
            "'rgb' and 'upright'",
            "Turn the frames into RGB and upright before writing, and declare them so.",
        )
        for camera in conventions.cameras
        if (camera.color_order, camera.orientation) != ("rgb", "upright")
    ]


def _quality_faults(quality: int) -> list[str]:
    if isinstance(quality, int) and not isinstance(quality, bool) and 1 <= quality <= 100:
        return []
    return [
        describe(
            "jpeg_quality", repr(quality), "a whole number from 1 to 100", "95 is a good value."
        )
    ]
