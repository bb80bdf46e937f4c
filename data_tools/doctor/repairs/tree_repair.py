"""A repaired copy of one HDF5 file: everything as it is, but for what a repair names."""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.doctor.repairs.tree_edits import (
    Mend,
    SignTurns,
    count_anew,
    new_names,
    rename_episodes,
    rename_in_masks,
    sentence_holder,
    slow_frames,
    write_one_a_chunk,
    write_sentence,
)
from data_tools.episode import Episode
from data_tools.errors import UserError, describe, raise_faults
from data_tools.finding import Finding
from data_tools.formats.layouts import native
from data_tools.formats.layouts.detect import detect
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.layouts.native import declared_root
from data_tools.formats.layouts.places import InPath
from data_tools.formats.layouts.sidecar import Sidecar, sidecar_of
from data_tools.formats.reader import open_dataset
from data_tools.formats.reading.hdf5_dataset import Hdf5Dataset
from data_tools.formats.reading.records import EpisodeRecord
from data_tools.formats.walks.file_walk import find_episodes
from data_tools.rewrite.provenance import (
    Provenance,
    content_of,
    declaring_sidecar,
    sidecar_for_copy,
    write_provenance,
)
from data_tools.rewrite.tree import copy_objects, read_tree
from data_tools.rewrite.unfinished import Advance, Unfinished
from data_tools.rules import CORRECTED_CONVENTIONS, NUMBER_GAP, SLOW_CHUNKS, STALE_TOTAL
from data_tools.storage.hdf5.opening import open_hdf5

# Name of an episode -> how it must be read from the copy; None where nobody has looked at it.
Expected = Callable[[str], Episode | None]


@dataclass
class TreeRepair:
    """Repairs of one file, in its own layout.

    Attributes:
        path: the file; it stays as it is.
        target: the file to make.
        layout: how it is read.
        layout_name: the layout that the caller names; '' to look.
        conventions: what the file declares, as stored.
        records: every episode of the file, in natural order.
        sidecar: what declares it beside it, if anything does.
        is_native: whether it declares itself.
        turns: signs to be changed.
        sentences: name of an episode -> its old sentence, to be single-spaced.
        removed: names of episodes to be left out.
        rules: of the repairs of the file as a whole.
        slow: datasets of frames to be rewritten -> whether that loses bits.
        rewritten: the same for the places that are told of.
    """

    path: Path
    target: Path
    layout: Layout
    layout_name: str
    conventions: Conventions
    records: dict[str, EpisodeRecord]
    sidecar: Sidecar | None
    is_native: bool
    turns: SignTurns = field(default_factory=SignTurns)
    sentences: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    rules: set[str] = field(default_factory=set)
    slow: dict[str, bool] = field(default_factory=dict)
    rewritten: dict[str, bool] = field(default_factory=dict)

    def add(self, episode: Episode, mend: Mend) -> str:
        """Note what to repair in an episode; why that cannot be, '' where it can."""
        record = self.records[episode.name]
        with open_hdf5(self.path) as file:
            if mend.turn is not None and not self.turns.add(file, record, *mend.turn):
                quaternion = mend.turn[0]
                return (
                    f"{episode.name}: {quaternion.part} {quaternion.name} keeps its signs, for it "
                    "does not lie in columns of its own; robot-data convert --to native makes some"
                )
            if mend.instruction is not None:
                group = file[record.group or "/"]
                if sentence_holder(self.layout, group, self.path) is None:
                    said = self.sidecar and self.sidecar.file_of(("layout", "instruction"))
                    by = said or "the name of the file"
                    return (
                        f"{episode.name}: its sentence keeps its spaces, for no text in the file "
                        f"says it; correct {by}"
                    )
                self.sentences[episode.name] = episode.instruction
        return ""

    def add_rules(self, findings: Sequence[Finding], dataset: Hdf5Dataset) -> None:
        """Note the repairs of the file as a whole, told of the dataset's files."""
        own = {STALE_TOTAL.name, NUMBER_GAP.name, CORRECTED_CONVENTIONS.name}
        self.rules |= {finding.rule for finding in findings} & own
        places = {finding.where for finding in findings if finding.rule == SLOW_CHUNKS.name}
        cameras = {
            place: camera
            for record in dataset.records
            for camera, image in record.images.items()
            if (place := f"{record.path}:{image.dataset}") in places
        }
        if cameras:
            with open_hdf5(self.path) as file:
                self.slow = slow_frames(file, list(self.records.values()), {*cameras.values()})
        for place, camera in cameras.items():
            frames = [record.images[camera].dataset for record in self.records.values()]
            found = [self.slow[name] for name in frames if name in self.slow]
            if found:
                self.rewritten[place] = any(found)

    def make(
        self, work: Unfinished, made: Provenance, expected: Expected, advance: Advance
    ) -> None:
        """Write, compare and publish the copy.

        Args:
            work: where it is made.
            made: its provenance.
            expected: name of an episode that is kept -> how it must be read.
            advance: called with the episodes compared and the episodes there are.

        Raises:
            UserError: a sidecar that would speak for the copy exists already, the file holds what
                cannot be copied, or the copy is read otherwise than it must be.
        """
        sidecar = None if self._is_declared_inside() else self.sidecar
        content = sidecar_for_copy(self.target, sidecar, is_native=self.is_native)
        folder = work.folder / "copy"
        folder.mkdir()
        whole = folder / self.target.name
        if sidecar is not None:
            sidecar_of(whole).write_bytes(content_of(sidecar))
        try:
            names = self._write(whole, made)
        except (OSError, RuntimeError) as error:  # h5py raises either when the disk is full
            found, remedy = f"{type(error).__name__} ({error})", "Free space there, and go on."
            raise UserError(
                describe(str(self.target), found, "a disk that takes the data", remedy)
            ) from error
        self._require_same(whole, names, expected, advance)
        work.publish(whole, content)

    def _is_declared_inside(self) -> bool:
        """Whether the copy's own declaration will say all that the sidecar says."""
        if self.sidecar is None or CORRECTED_CONVENTIONS.name not in self.rules:
            return False
        return self.sidecar.layout is None

    def _write(self, whole: Path, made: Provenance) -> dict[str, str]:
        """Copy and edit; name of each episode that is kept -> its new group."""
        is_smaller = bool(self.removed or self.slow)
        edited = whole.with_name("edited") if is_smaller else whole
        if is_smaller:
            with open_hdf5(self.path) as file:
                read_tree(file, self.path)  # refuses what a copy of objects would break
        shutil.copyfile(self.path, edited)
        with h5py.File(edited, "r+") as file:
            self._edit_contents(file)
            groups = self._edit_names(file)
            write_provenance(file, made, earlier=file)
        if is_smaller:
            copy_objects(edited, whole)
            edited.unlink()
        return groups

    def _edit_contents(self, file: h5py.File) -> None:
        self.turns.apply(file)
        for name, told in self.sentences.items():
            group = file[self.records[name].group or "/"]
            found = sentence_holder(self.layout, group, self.path)
            if found is not None:  # several episodes may share one, mended by now
                write_sentence(*found, told)
        write_one_a_chunk(file, self.slow)
        if CORRECTED_CONVENTIONS.name in self.rules:
            root = file[self.layout.root or "/"]
            root.attrs[native.CONVENTIONS_ATTRIBUTE] = self.conventions.model_dump_json()

    def _edit_names(self, file: h5py.File) -> dict[str, str]:
        root = file[self.layout.root or "/"]
        old = {name: record.group.rpartition("/")[2] for name, record in self.records.items()}
        kept = {name: record for name, record in self.records.items() if name not in self.removed}
        if STALE_TOTAL.name in self.rules or (
            self.removed and native.TOTAL_ATTRIBUTE in root.attrs
        ):
            count_anew(file, root, list(kept.values()))
        for name in self.removed:
            del root[old[name]]
        names = [old[name] for name in kept]
        had_gap = [*new_names(list(old.values())).values()] != [*old.values()]
        is_renamed = NUMBER_GAP.name in self.rules or (self.removed and not had_gap)
        renamed = new_names(names) if is_renamed else {name: name for name in names}
        rename_episodes(root, renamed)
        rename_in_masks(file, renamed, {old[name] for name in self.removed})
        above = f"{self.layout.root}/" if self.layout.root else ""
        return {name: f"{above}{renamed[old[name]]}" if old[name] else "" for name in kept}

    def _require_same(
        self, whole: Path, names: Mapping[str, str], expected: Expected, advance: Advance
    ) -> None:
        """UserError where the copy is not read as the source is, but for the repairs."""
        copy = open_dataset(whole, layout=self.layout_name or None, allow_undeclared=True)
        found = {copy[index].name: copy[index] for index in range(len(copy))}
        for done, (name, group) in enumerate(names.items(), start=1):
            ours, theirs = found.get(f"{whole}:{group}" if group else str(whole)), expected(name)
            if ours is None or not (theirs is None or _is_same(ours, theirs, self._exact())):
                remedy = "Convert it first (robot-data convert --to native), and repair that."
                what = "a copy that is not read as this episode is"
                raise UserError(describe(name, what, "the same, but for the repairs", remedy))
            advance(done, len(names))

    def _exact(self) -> list[str]:
        """Cameras whose frames keep every bit."""
        first = next(iter(self.records.values()))
        return [
            name for name, image in first.images.items() if not self.slow.get(image.dataset, False)
        ]


def tree_repair(
    dataset: Hdf5Dataset,
    path: Path,
    target: Path,
    *,
    layout: str,
    sources: Sequence[str | Path],
) -> TreeRepair | str:
    """What repairs a dataset's one file in its own layout, or why there is no such thing.

    Args:
        dataset: what to repair.
        path: its file, or its files merged.
        target: the file to make.
        layout: the layout that it is read as; '' to look.
        sources: what the dataset was opened from.
    """
    if not path.is_file():
        return "the file is not on a disk of this machine"
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    top = next((folder for folder in folders if folder in path.parents), path.parent)
    with open_hdf5(path) as file:
        detected = detect(file, path, layout, top)
        walked = find_episodes(file, path, detected.layout, detected.conventions)
        raise_faults(walked.faults)
        is_native = declared_root(file) is not None
    is_merged = len(dataset.inspected.files) > 1
    names = [record.name for record in (dataset.records if is_merged else walked.episodes)]
    return _not_by_copying(detected.layout, path, target) or TreeRepair(
        path,
        target,
        detected.layout,
        layout,
        detected.conventions,
        dict(zip(names, walked.episodes, strict=True)),
        declaring_sidecar(path, is_native=is_native, places=folders),
        is_native,
    )


def _not_by_copying(layout: Layout, path: Path, target: Path) -> str:
    """Why a copy of the file would not be read as it is; '' when nothing keeps it from that."""
    if layout.episodes == "rows":
        return "the episodes are rows of the same datasets"
    if layout.episodes == "numbers":
        return "the episodes lie side by side in one group"
    if layout.file_patterns:
        return "the episodes are read with files beside them"
    facts = [*layout.instruction, layout.success, layout.rate, *layout.attributes.values()]
    if any(isinstance(place, InPath) and _says_other(place, path, target) for place in facts):
        return f"the name {path.name} and its folders say what {target} would not"
    return ""


def _says_other(place: InPath, path: Path, target: Path) -> bool:
    said = [re.search(place.path_pattern, each.resolve().as_posix()) for each in (path, target)]
    ours, theirs = (None if match is None else match["value"] for match in said)
    return ours != theirs


def _is_same(ours: Episode, theirs: Episode, cameras: Sequence[str]) -> bool:
    facts = (
        (each.instruction, each.is_success, each.num_steps, each.columns) for each in (ours, theirs)
    )
    if len(set(facts)) > 1:
        return False
    pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [
        (ours.state(), theirs.state()),
        (ours.actions(), theirs.actions()),
        *((ours.column(name), theirs.column(name)) for name in ours.columns),
        *(
            (ours.image(camera, step), theirs.image(camera, step))
            for camera in cameras
            for step in {0, ours.num_steps - 1}
        ),
    ]
    times, expected = ours.times(), theirs.times()
    if times is not None and expected is not None:
        pairs.append((times, expected))
    return all(np.array_equal(*pair, equal_nan=True) for pair in pairs)
