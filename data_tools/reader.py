"""open_dataset: HDF5 demonstrations as episodes, read lazily, one frame at a time."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from data_tools.cache import LruCache
from data_tools.conventions import Conventions, compare
from data_tools.episode import Observation
from data_tools.errors import UserError, describe, raise_faults
from data_tools.finding import Finding
from data_tools.fingerprint import fingerprint
from data_tools.hdf5_files import FileHandles, open_hdf5
from data_tools.images import UndecodableFrameError, decode_frame, to_rgb_upright
from data_tools.layouts.demo_groups import find_episodes, natural_key
from data_tools.layouts.detect import Detected, detect
from data_tools.layouts.layout import EpisodeRecord, ImageSource, Scan

HDF5_SUFFIXES = (".hdf5", ".h5")
ARRAY_CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class Inspected:
    """What was learned about the files when they were opened, for `robot-data inspect`."""

    layouts: tuple[str, ...]
    evidence: tuple[str, ...]
    warnings: tuple[Finding, ...]


def open_dataset(path: str | Path | Sequence[str | Path]) -> "Hdf5Dataset":
    """The episodes of one or more HDF5 files that share their conventions.

    Headers are read now, so that every fault of structure is told at once; numbers and frames when
    asked for.

    Args:
        path: a file, a folder (its .hdf5 and .h5 files, in natural order), a glob, or a list of
            these.

    Raises:
        UserError: nothing is there, a file is broken, an episode's datasets are missing or do not
            fit the conventions, or two files declare different conventions; all faults of all files
            together.
    """
    scan = Scan()
    found: dict[Path, Detected] = {}
    for file_path in _expand([path] if isinstance(path, (str, Path)) else path):
        try:
            with open_hdf5(file_path) as file:
                found[file_path] = detect(file, file_path)
                scan.warnings += found[file_path].warnings
                scan.extend(
                    find_episodes(
                        file, str(file_path), found[file_path].layout, found[file_path].conventions
                    )
                )
        except UserError as error:
            scan.faults += error.faults
    scan.faults += _disagreements({path: detected.conventions for path, detected in found.items()})
    if scan.faults:
        raise UserError(scan.faults)
    inspected = Inspected(
        layouts=tuple(dict.fromkeys(detected.layout.name for detected in found.values())),
        evidence=tuple(dict.fromkeys(detected.evidence for detected in found.values())),
        warnings=tuple(scan.warnings),
    )
    stored = next(iter(found.values())).conventions
    return Hdf5Dataset(tuple(scan.episodes), _as_delivered(stored), inspected)


class Hdf5Dataset:
    """Episodes of HDF5 files: a `Dataset`. Picklable; each process opens the files it reads.

    Attributes:
        conventions: what the episodes deliver: the declared ones, with every camera RGB and
            upright, because frames are turned when they are read.
        inspected: what was learned about the files when they were opened.
    """

    def __init__(
        self, records: tuple[EpisodeRecord, ...], conventions: Conventions, inspected: Inspected
    ) -> None:
        self.conventions = conventions
        self.inspected = inspected
        self._records = records
        self._store = _Store()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> "Hdf5Episode":
        return Hdf5Episode(self._records[index], self.conventions, self._store)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over instructions, states, actions and conventions; reads no image."""
        return fingerprint(self.conventions, (self[index] for index in range(len(self))))


class Hdf5Episode:
    """One demonstration in a file: an `Episode`."""

    def __init__(self, record: EpisodeRecord, conventions: Conventions, store: "_Store") -> None:
        self._record = record
        self._conventions = conventions
        self._store = store

    @property
    def name(self) -> str:
        """Where the episode is: 'demos/pick.hdf5:data/demo_3'."""
        return self._record.name

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""
        return self._record.num_steps

    @property
    def instruction(self) -> str:
        """The task as a sentence."""
        return self._record.instruction

    @property
    def is_success(self) -> bool | None:
        """Whether the episode reached its goal; None when nobody recorded it."""
        return self._record.is_success

    @property
    def attributes(self) -> Mapping[str, object]:
        """Everything else recorded about the episode: source, task, seed, ..."""
        return self._record.attributes

    def state(self) -> npt.NDArray[np.float32]:
        """float32[t, s], read-only: the state at every step."""
        return self._store.low_dim(self._record.path, self._record.state)

    def actions(self) -> npt.NDArray[np.float32]:
        """float32[t, a], read-only: the action taken at every step."""
        return self._store.low_dim(self._record.path, (self._record.actions,))

    def image(self, camera: str, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright; decodes this one frame and no other.

        Raises:
            KeyError: no camera of that name.
            IndexError: the step is not one of the episode's.
            UserError: the bytes are not a whole image of the declared size.
        """
        spec = self._conventions.camera(camera)
        if not 0 <= step < self.num_steps:
            raise IndexError(
                f"{self.name}: step {step}; the episode has steps 0 to {self.num_steps - 1}"
            )
        source = self._record.images[camera]
        where = f"{self._record.path}:{source.dataset}, step {step}"
        try:
            frame = self._store.frame(self._record.path, source, step)
        except (UndecodableFrameError, OSError) as error:
            expected = "a whole image"
            raise UserError(
                describe(where, str(error), expected, "Leave the episode out or record it again.")
            ) from error
        if frame.shape != (spec.height, spec.width, 3):
            expected = f"{[spec.height, spec.width, 3]} as the conventions declare"
            remedy = "Correct the camera's declared size, or resize the frames."
            raise UserError(
                describe(where, f"an image of shape {list(frame.shape)}", expected, remedy)
            )
        return frame

    def observation(self, step: int, cameras: Sequence[str]) -> Observation:
        """The observation just before action `step`, with these cameras only."""
        images = {camera: self.image(camera, step) for camera in cameras}
        return Observation(
            images=images, state=self.state()[step].copy(), instruction=self.instruction
        )


class _Store:
    """Open files and the low-dimensional arrays read last, for the episodes of one dataset."""

    def __init__(self) -> None:
        self._handles = FileHandles()
        self._arrays: LruCache[npt.NDArray[np.float32]] = LruCache(
            ARRAY_CACHE_BYTES, weigh=lambda array: array.nbytes
        )

    def __getstate__(self) -> dict[str, object]:
        # A worker starts empty: files cannot be shared, and sending the arrays would cost more than
        # reading them.
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]

    def low_dim(self, path: str, datasets: tuple[str, ...]) -> npt.NDArray[np.float32]:
        """float32[t, d], read-only: these datasets side by side."""
        with self._handles.lock:
            return self._arrays.get_or_make(
                (path, datasets), lambda: self._read_low_dim(path, datasets)
            )

    def frame(self, path: str, source: ImageSource, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright."""
        with self._handles.lock:
            file = self._handles.open(path)
            if source.encoding == "raw":
                return to_rgb_upright(file[source.dataset][step], source.camera)
            data = _read_bytes(file, source, step)
        return to_rgb_upright(decode_frame(data), source.camera)

    def _read_low_dim(self, path: str, datasets: tuple[str, ...]) -> npt.NDArray[np.float32]:
        file = self._handles.open(path)
        parts = [np.asarray(file[name][()], dtype=np.float32) for name in datasets]
        joined = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        joined.setflags(write=False)
        return joined


def _read_bytes(file: h5py.File, source: ImageSource, step: int) -> bytes:
    """The bytes of one encoded frame."""
    if not source.is_chunk_per_frame:
        return bytes(file[source.dataset][step])
    # Past h5py's indexing and HDF5's chunk cache: a fifth of the time of the line above.
    dataset = h5py.h5d.open(file.id, source.dataset.encode())
    try:
        return bytes(dataset.read_direct_chunk((step, 0))[1])
    except RuntimeError as error:
        # How h5py reports a chunk that was never written.
        raise UndecodableFrameError(f"no stored bytes ({error})") from error


def _expand(places: Sequence[str | Path]) -> list[Path]:
    """The files these places name; a missing file stays, to be told of when it is opened."""
    files: list[Path] = []
    faults: list[str] = []
    for place in map(Path, places):
        if place.is_dir():
            matches = [p for p in place.iterdir() if p.suffix in HDF5_SUFFIXES]
        elif glob.has_magic(str(place)) and not place.exists():
            matches = [Path(match) for match in glob.glob(str(place), recursive=True)]
        else:
            matches = [place]
        if not matches:
            expected = f"HDF5 files ({' or '.join(HDF5_SUFFIXES)})"
            faults.append(describe(str(place), "no matching file", expected, "Correct the path."))
        files += sorted(matches, key=lambda p: natural_key(str(p)))
    resolved = [path.resolve() for path in files]
    repeated = sorted({str(path) for path in resolved if resolved.count(path) > 1})
    if repeated:
        faults.append(
            describe(
                "paths", f"{repeated} more than once", "each file once", "Give each file once."
            )
        )
    if not places:
        faults.append(
            describe("paths", "an empty list", "at least one file, folder or glob", "Give one.")
        )
    raise_faults(faults)
    return files


def _as_delivered(conventions: Conventions) -> Conventions:
    cameras = tuple(
        camera.model_copy(update={"color_order": "rgb", "orientation": "upright"})
        for camera in conventions.cameras
    )
    return conventions.model_copy(update={"cameras": cameras})


def _disagreements(declared: Mapping[Path, Conventions]) -> list[str]:
    """What other files declare differently from the first one, after frames have been turned."""
    faults: list[str] = []
    for path in list(declared)[1:]:
        first = next(iter(declared))
        ours, theirs = _as_delivered(declared[path]), _as_delivered(declared[first])
        faults += [
            str(m) for m in compare(ours, theirs, found_name=str(path), expected_name=str(first))
        ]
        if _sizes(ours) != _sizes(theirs):
            found, expected = repr(_sizes(ours)), f"{_sizes(theirs)!r} as {first} declares"
            remedy = "Open files with different cameras as two datasets, or resize the frames."
            faults.append(describe(f"{path}, cameras", found, expected, remedy))
    return faults


def _sizes(conventions: Conventions) -> list[str]:
    return [f"{camera.name} {camera.width} x {camera.height}" for camera in conventions.cameras]
