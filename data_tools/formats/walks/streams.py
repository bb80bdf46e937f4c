"""Streams: the datasets and videos of one episode that have a row a step, and whether they fit."""

import math
import posixpath
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from data_tools.conventions import CameraSpec
from data_tools.errors import describe, nearest, shown
from data_tools.finding import Rule
from data_tools.formats.layouts import native
from data_tools.formats.layouts.layout import Layout, Source, Video
from data_tools.formats.layouts.texts import attribute_text, video_file
from data_tools.formats.reading.records import ArraySource, ColumnSource, ImageSource
from data_tools.rules import (
    LENGTHS,
    MISSING_PART,
    UNREADABLE_EPISODE,
    UNREADABLE_FILE,
    WRONG_DECLARATION,
    WRONG_FORM,
)
from data_tools.storage.frames.videos import UndecodableVideoError, video_length_and_size
from data_tools.storage.hdf5.frame_encoding import encoding_of
from data_tools.storage.hdf5.links import find_dataset, find_group
from data_tools.storage.hdf5.soundness import storage_fault

# An episode of an hour at 50 Hz with 100 columns takes 72 MB; what claims 2 GiB is damaged.
MAX_ARRAY_BYTES = 2 << 30
MAX_CHARACTERS = 2000
TRIM_REMEDY = "Record it again or trim it."
_MISSING_REMEDY = "Correct the layout's key, or record it"


class Streams:
    """Finds the streams of one episode's group and tells what is wrong with them.

    Attributes:
        place: the group's path in the file; '' when the file is the episode.
        name: how the episode is called in the file: as the group, or by its number.
        where: how messages call the episode.
        faults: what forbids reading it.
        rules: what is done to rows, with the number of rows it is done to.
    """

    def __init__(self, group: h5py.Group, path: Path, layout: Layout, name: str = "") -> None:
        self.group = group
        self.place = group.name.strip("/")
        self._folders: dict[str, h5py.Group | None] = {}
        self.path = path
        self.layout = layout
        self.name = name or self.place
        self.where = f"{path}:{self.name}" if self.name else str(path)
        self.faults: list[str] = []
        self.rules: Counter[str] = Counter()

    def array(
        self, sources: tuple[Source, ...], keys: tuple[str, ...], first: int = 0
    ) -> ArraySource:
        """Where these datasets are in the file, row `first` being step 0."""
        parts = []
        for source, key in zip(sources, keys, strict=True):
            index = self.path_in_file(source.index) if source.index else ""
            fill = self.path_in_file(source.fill) if source.fill else ""
            parts.append(
                ColumnSource(self.path_in_file(key), source.columns, source.scale, index, fill)
            )
        return ArraySource(tuple(parts), first)

    def path_in_file(self, key: str) -> str:
        """A path from the episode's group as a path from the root."""
        return posixpath.normpath(posixpath.join("/", self.place, key)).lstrip("/")

    def find(self, key: str) -> h5py.Dataset | None:
        """The dataset at a path from the episode's group, None when there is none."""
        may_leave = self.layout.allow_external_links
        above, _, name = posixpath.normpath(key).rpartition("/")
        if not above or ".." in key:
            return find_dataset(self.group, key, may_leave=may_leave)
        if above not in self._folders:  # most streams are in one group
            self._folders[above] = find_group(self.group, above, may_leave=may_leave)
        folder = self._folders[above]
        return None if folder is None else find_dataset(folder, name, may_leave=may_leave)

    def dataset(self, key: str) -> h5py.Dataset | None:
        """The dataset at a path from the episode's group; None, and a fault, when there is none."""
        dataset = self.find(key)
        if dataset is not None:
            return dataset
        known = _dataset_names(self.group)
        hint = nearest(key, known)
        remedy = f"{_MISSING_REMEDY}{f'; {hint}' if hint else '.'}"
        found, expected = f"the datasets {shown(known, MAX_CHARACTERS)}", f"a dataset {key!r}"
        self.fault(MISSING_PART, self.where, found, expected, remedy)
        return None

    def fault(self, rule: Rule, where: str, found: str, expected: str, remedy: str) -> None:
        """Note what forbids reading the episode."""
        self.faults.append(describe(where, found, expected, remedy, rule.name))

    def low_dim(
        self,
        what: str,
        sources: tuple[Source, ...],
        keys: tuple[str, ...],
        columns: tuple[str, ...],
    ) -> int:
        """Number of rows of these datasets joined, -1 when they are unusable (a fault says so)."""
        rows: dict[str, int] = {}
        width = 0
        for source, key in zip(sources, keys, strict=True):
            dataset = self.dataset(key)
            # Booleans are numbers where somebody asked for them: no pattern stands for any.
            if dataset is None or not self.is_usable(dataset, kinds="fiub"):
                continue
            width += self._columns(source, dataset)
            rows[dataset.name] = self._rows(source, dataset)
        if len(rows) < len(set(keys)) or -1 in rows.values():
            return -1
        surplus = max(rows.values()) - min(rows.values())
        if surplus > self.layout.surplus_rows:
            self.fault(LENGTHS, self.where, f"lengths {rows}", "one length", TRIM_REMEDY)
            return -1
        if width != len(columns):
            expected = f"the {len(columns)} columns {list(columns)} of the conventions"
            remedy = "Correct the names in the conventions or the layout's keys."
            where, found = f"{self.where}, {what}", f"{width} columns"
            self.fault(WRONG_FORM, where, found, expected, remedy)
        return min(rows.values())

    def is_usable(self, dataset: h5py.Dataset, *, kinds: str = "fiu") -> bool:
        """Whether a dataset holds stored numbers of these kinds, one row a step; a fault if not."""
        where, shape = f"{self.where}, {dataset.name}", list(dataset.shape or ())
        if dataset.dtype.kind not in kinds or len(shape) not in (1, 2):
            found = f"{dataset.dtype}{shape}"
            remedy = "Convert the dataset."
            self.fault(WRONG_FORM, where, found, "numbers, one row a step", remedy)
            return False
        size = math.prod(shape) * 8
        if size > MAX_ARRAY_BYTES:
            found = f"{dataset.dtype}{shape}, {size >> 20} MiB as numbers"
            expected = f"at most {MAX_ARRAY_BYTES >> 20} MiB an episode"
            remedy = "The header is damaged, or split the episode."
            self.fault(UNREADABLE_EPISODE, where, found, expected, remedy)
            return False
        lacking = storage_fault(dataset)
        if lacking:
            found = f"{dataset.dtype}{shape} of which {lacking}"
            remedy = "Record it again."
            self.fault(UNREADABLE_EPISODE, where, found, "stored numbers", remedy)
            return False
        return True

    def _columns(self, source: Source, dataset: h5py.Dataset) -> int:
        """Number of columns taken; a fault when some of them are not there."""
        shape = dataset.shape
        available = shape[1] if len(shape) == 2 else 1
        beyond = [column for column in source.columns if not 0 <= column < available]
        if beyond:
            where, found = f"{self.where}, {dataset.name}", f"{available} columns"
            expected, remedy = f"the columns {beyond}", "Correct the layout's columns."
            self.fault(MISSING_PART, where, found, expected, remedy)
        taken = len(source.columns) or available
        if len(source.scale) not in (0, taken):
            found = f"{len(source.scale)} factors for {taken} columns"
            remedy = "Correct the layout's scale."
            where = f"{self.where}, {dataset.name}"
            self.fault(WRONG_DECLARATION, where, found, "one a column", remedy)
        return taken

    def _rows(self, source: Source, dataset: h5py.Dataset) -> int:
        """Number of rows a source gives, -1 when its index does not fit (a fault says so)."""
        if not source.fill:
            return len(dataset)
        fill = self.dataset(source.fill)
        index = self.find(source.index) if source.index else None
        if fill is None or not self.is_usable(fill):
            return -1
        if index is not None and index.size > len(fill):
            index = None  # more row numbers than rows: told below, without reading them
        if index is not None and (index.dtype.kind not in "iu" or storage_fault(index)):
            found = f"{index.name} as {index.dtype} {storage_fault(index)}".rstrip()
            remedy = "Leave the episode out."
            self.fault(WRONG_FORM, self.where, found, "row numbers", remedy)
            return -1
        numbers = np.arange(len(dataset)) if index is None else np.asarray(index[()]).ravel()
        is_short = len(dataset) != len(fill)
        if (is_short and len(numbers) != len(dataset)) or not _fits(numbers, len(fill)):
            found = f"{len(dataset)} rows of {dataset.name} and {len(numbers)} row numbers"
            expected = f"row numbers below the {len(fill)} rows of {fill.name}, one a row"
            remedy = "The episode is corrupt: leave it out."
            self.fault(LENGTHS, self.where, found, expected, remedy)
            return -1
        if len(numbers) < len(fill):
            rule = f"rows without {source.dataset} are taken from {source.fill}"
            self.rules[rule] += len(fill) - len(numbers)
        return len(fill)

    def frames(self, camera: CameraSpec) -> tuple[ImageSource | None, int]:
        """Where a camera's frames are and how many; (None, -1) with a fault when they are not."""
        place = self.layout.image_place(camera.name)
        if isinstance(place, Video):
            return self._video_frames(camera, place)
        dataset = self.dataset(place)
        if dataset is None:
            return None, -1
        encoding = encoding_of(dataset)
        stored = attribute_text(dataset, native.ENCODING_ATTRIBUTE)
        is_raw = encoding in ("raw", "raw_chw")
        shape = (dataset.shape or ())[2 if encoding == "raw_chw" else 1 :][:2]
        if (
            encoding is None
            or stored not in (("", "raw") if is_raw else ("", "jpeg", "png"))
            or (is_raw and shape != (camera.height, camera.width))
        ):
            found = f"{dataset.dtype}{list(dataset.shape or ())} with the attribute encoding "
            found += repr(stored or "absent")
            size = f"{camera.height}, {camera.width}"
            expected = f"raw uint8[t, {size}, 3], or rows uint8[t, n] of JPEG or PNG"
            remedy = "Correct the camera's size in the conventions, or convert the frames."
            self.fault(WRONG_FORM, f"{self.where}, {place}", found, expected, remedy)
            return None, -1
        self._check_declared(camera, dataset, place)
        name = self.path_in_file(place)
        return ImageSource(name, encoding, _is_chunk_per_frame(dataset), camera), len(dataset)

    def _check_declared(self, camera: CameraSpec, dataset: h5py.Dataset, place: str) -> None:
        for name in (native.COLOR_ORDER_ATTRIBUTE, native.ORIENTATION_ATTRIBUTE):
            declared, stored = getattr(camera, name), attribute_text(dataset, name)
            if stored and stored != declared:
                found = f"{name} {stored!r}, and {declared!r} in the conventions"
                remedy = (
                    f"Correct the one that is wrong; the first is the dataset's attribute {name}."
                )
                where = f"{self.where}, {place}"
                self.fault(WRONG_DECLARATION, where, found, "the same in both", remedy)

    def _video_frames(self, camera: CameraSpec, place: Video) -> tuple[ImageSource | None, int]:
        file = video_file(place, self.group, self.path, may_leave=self.layout.allow_external_links)
        where = f"{self.where}, camera {camera.name!r}"
        if file is None:
            found = f"no file like {place.video!r}"
            remedy = "Copy it there, or leave the episode out."
            self.fault(MISSING_PART, where, found, "a video", remedy)
            return None, -1
        try:
            length, size = video_length_and_size(file)
        except UndecodableVideoError as error:
            found, remedy = f"{file}: {error}", "Copy or download it again."
            self.fault(UNREADABLE_FILE, where, found, "a video", remedy)
            return None, -1
        if size != (camera.height, camera.width):
            found = f"{file} of {size[0]} x {size[1]} pixels (height x width)"
            expected = f"{camera.height} x {camera.width}"
            remedy = "Correct the camera's size in the conventions."
            self.fault(WRONG_FORM, where, found, expected, remedy)
        return ImageSource(str(file), "video", False, camera), length


def _fits(numbers: npt.NDArray[np.generic], rows: int) -> bool:
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < rows)


def _is_chunk_per_frame(dataset: h5py.Dataset) -> bool:
    is_one_row = len(dataset.shape) > 1 and dataset.chunks == (1, *dataset.shape[1:])
    return is_one_row and dataset.id.get_create_plist().get_nfilters() == 0


def _dataset_names(group: h5py.Group) -> list[str]:
    names: list[str] = []
    group.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return sorted(name for name in names if isinstance(name, str))
