"""Faults of whole episodes, their sentences and their files."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from data_tools.doctor.planting.bed import Bed, Fault, Planted, Strength, UnfitError
from data_tools.doctor.planting.writing import replace_dataset
from data_tools.doctor.repairs.tree_edits import rename_episodes
from data_tools.formats.layouts import native
from data_tools.formats.layouts.places import InAttribute
from data_tools.formats.layouts.sidecar import sidecar_of
from data_tools.rewrite.frame_storage import find_frames
from data_tools.rewrite.stats_files import openpi_stats
from data_tools.stats import dataset_stats
from data_tools.storage.hdf5.links import find_dataset

_NUMBER: Final = re.compile(r"(.*?)(\d+)(\D*)", flags=re.DOTALL)
FRAMES_A_CHUNK: Final = 16


def _next_name(names: list[str], name: str) -> str:
    """The name with the number after the largest of these names'."""
    match = _NUMBER.fullmatch(name)
    if match is None:
        raise UnfitError("the episode's name has no number")
    numbers = [int(found[2]) for each in names if (found := _NUMBER.fullmatch(each))]
    return f"{match[1]}{max(numbers) + 1:0{len(match[2])}}{match[3]}"


def add_copy(bed: Bed, index: int) -> str:
    """Store an episode once more, behind the others; where it is."""
    bed.require_own_group(index)
    record = bed.record(index)
    path = Path(record.path)
    if not record.group:
        if path == bed.top:
            raise UnfitError("the file is the only episode")
        twin = path.with_name(_next_name([each.name for each in path.parent.iterdir()], path.name))
        shutil.copyfile(path, twin)
        if sidecar_of(path).is_file():
            shutil.copyfile(sidecar_of(path), sidecar_of(twin))
        return str(twin)
    with bed.file(index) as file:
        group = file[record.group]
        root, name = group.parent, record.group.rpartition("/")[2]
        twin_name = _next_name(list(root), name)
        root.copy(group, twin_name)
        if native.TOTAL_ATTRIBUTE in root.attrs:
            root.attrs[native.TOTAL_ATTRIBUTE] += len(file[record.actions.parts[0].dataset])
        return f"{record.path}:{root[twin_name].name.lstrip('/')}"


def _duplicate(bed: Bed) -> Iterator[Planted]:
    for index in bed.chosen:
        yield Planted(add_copy(bed, index), f"{bed.record(index).name} again")


def _near_duplicate(bed: Bed) -> Iterator[Planted]:
    for index in bed.chosen:
        twin, recording = add_copy(bed, index), bed.recording(index)
        for values in (recording.state, recording.actions):
            spans = np.ptp(values, axis=0)
            values += bed.rng.normal(size=values.shape) * bed.strength * spans
        action = bed.declared.conventions.action
        actions = recording.actions.clip(action.low, action.high)
        bed.write(index, state=recording.state, actions=actions)
        yield Planted(twin, f"{bed.record(index).name} again, but for noise")


def _fail(bed: Bed, index: int) -> None:
    record, place = bed.record(index), bed.layout(index).success
    if not isinstance(place, InAttribute):
        raise UnfitError("no attribute of the episode says whether it is a success")
    with bed.file(index) as file:
        group = file[record.group or "/"]
        before = group.attrs.get(place.attribute)
        group.attrs[place.attribute] = "failure" if isinstance(before, str) else False
    bed.expect_failure(index)


def _failed(bed: Bed) -> Iterator[Planted]:
    for index in bed.chosen:
        _fail(bed, index)
    yield Planted("", f"{len(bed.chosen)} episodes were judged failures")


def _sentence(say: Callable[[str], str]) -> Callable[[Bed], Iterator[Planted]]:
    def plant(bed: Bed) -> Iterator[Planted]:
        def one(index: int) -> str:
            said = say(bed.record(index).instruction)
            bed.write_sentence(index, said)
            return f"the sentence {said!a}"

        return bed.each(one)

    return plant


def _variant(bed: Bed) -> Iterator[Planted]:
    (index,) = bed.chosen
    told = bed.record(index).instruction
    if sum(each.instruction == told for each in bed.dataset.records) < 2:
        raise UnfitError("no other episode has its sentence")
    said = f"{told.upper()}!"
    bed.write_sentence(index, said)
    yield Planted("", f"{bed.record(index).name}: the sentence {said!a}")


def _foreign_sentence(bed: Bed) -> Iterator[Planted]:
    def one(index: int) -> str:
        own = bed.record(index).instruction
        others = sorted({each.instruction for each in bed.dataset.records} - {own})
        if not others:
            raise UnfitError("all episodes have one sentence")
        said = str(bed.rng.choice(others))
        bed.write_sentence(index, said)
        return f"the sentence {said!r} where it was {own!r}"

    return bed.each(one)


def _stale_statistics(bed: Bed) -> Iterator[Planted]:
    path = Path(bed.record(0).path).with_name("norm_stats.json")
    if bed.top.is_file():
        raise UnfitError("the data is one file and no folder, in which statistics could lie")
    content = openpi_stats(dataset_stats(bed.dataset))
    for told in content["norm_stats"].values():
        told["mean"] = (np.array(told["mean"]) + bed.strength * np.array(told["std"])).tolist()
    path.write_text(json.dumps(content), encoding="utf-8")
    yield Planted(str(path), f"means {bed.strength:g} deviations off")


def _surplus(bed: Bed) -> Iterator[Planted]:
    path = Path(bed.record(bed.chosen[0]).path)
    with path.open("ab") as file:
        file.write(b"\0" * int(bed.strength))
    yield Planted(str(path), f"{bed.strength:g} bytes more")


def _hidden(bed: Bed) -> Iterator[Planted]:
    path = Path(bed.record(bed.chosen[0]).path)
    if path == bed.top:
        raise UnfitError("the data is one file and no folder")
    path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7 of macOS")
    yield Planted(str(bed.top), f"._{path.name} beside {path.name}")


def _root(bed: Bed, file: h5py.File) -> h5py.Group:
    group = bed.record(bed.chosen[0]).group
    if not group or bed.layout(bed.chosen[0]).episodes != "groups":
        raise UnfitError("episodes are no groups of one file")
    return file[group].parent


def _stale_total(bed: Bed) -> Iterator[Planted]:
    with bed.file(bed.chosen[0]) as file:
        root = _root(bed, file)
        if native.TOTAL_ATTRIBUTE not in root.attrs:
            raise UnfitError("the file counts no steps")
        root.attrs[native.TOTAL_ATTRIBUTE] += int(bed.strength)
    yield Planted(bed.record(bed.chosen[0]).path, f"{bed.strength:g} steps more than there are")


def _number_gap(bed: Bed) -> Iterator[Planted]:
    with bed.file(bed.chosen[0]) as file:
        root = _root(bed, file)
        names = [
            each.group.rpartition("/")[2] for each in bed.records if each.path == file.filename
        ]
        name = names[-1]
        rename_episodes(root, {name: _next_name([*root, _next_name(list(root), name)], name)})
    yield Planted(bed.record(bed.chosen[0]).path, f"the last number but one is missing: {name}")


def _slow_chunks(bed: Bed) -> Iterator[Planted]:
    changed = 0
    for index in bed.chosen:
        record = bed.record(index)
        with bed.file(index) as file:
            for image in record.images.values():
                frames = None if image.encoding == "video" else find_frames(file[image.dataset])
                if frames is not None and frames.dataset.ndim > 1 and len(frames) > 1:
                    shape = frames.dataset.shape
                    chunks = (min(FRAMES_A_CHUNK, shape[0]), *shape[1:])
                    replace_dataset(frames.dataset, frames.dataset[()], chunks)
                    changed += 1
    if not changed:
        raise UnfitError("no frames in chunks")
    yield Planted("", f"{FRAMES_A_CHUNK} frames a chunk")


def _missing_ends(bed: Bed) -> Iterator[Planted]:
    layout, record = bed.layout(bed.chosen[0]), bed.record(bed.chosen[0])
    with bed.file(bed.chosen[0]) as file:
        root = file[layout.root or "/"]
        there = [name for name in layout.ends if find_dataset(root, name) is not None]
        idle = [name for name in there if not np.any(root[name][()])]
        if len(there) < 2:
            raise UnfitError("fewer than two datasets that mark where episodes end")
        del root[(idle or there)[0]]
    yield Planted(record.path, f"without {(idle or there)[0]}")


def _unreadable(bed: Bed) -> Iterator[Planted]:
    def one(index: int) -> str:
        place = bed.record(index).actions.parts[0].dataset
        with bed.file(index) as file:
            values = file[place][()]
            above, _, name = place.rpartition("/")
            group = file[above or "/"]
            attributes = dict(file[place].attrs)
            del group[name]
            damaged = group.create_dataset(
                name, values.shape, values.dtype, chunks=values.shape, compression="gzip"
            )
            damaged.attrs.update(attributes)
            damaged.id.write_direct_chunk((0,) * values.ndim, b"no numbers")
        return f"{place} does not decompress"

    return bed.each(one)


_TEXT: Final = frozenset({"instruction_variants", "foreign_sentence", "instruction_is_file_name"})
FAULTS: Final = (
    Fault(
        "duplicate_episode",
        "An episode is stored twice.",
        "one",
        _duplicate,
        also=frozenset({"same_pictures", "near_duplicate_episode"}),
    ),
    Fault(
        "near_duplicate_episode",
        "An episode is stored twice, once with noise.",
        "one",
        _near_duplicate,
        Strength("noise, as a share of each column's span", 1e-6, 1e-5, 1e-3),
        also=frozenset({"same_pictures", "quaternion_norm"}),
    ),
    Fault("no_success", "Every episode was judged a failure.", "all", _failed),
    Fault("failed_episodes", "An episode was judged a failure.", "one", _failed),
    Fault(
        "instruction",
        "A sentence is a placeholder.",
        "one",
        _sentence(lambda told: "test"),
        also=_TEXT,
    ),
    Fault(
        "instruction_is_file_name",
        "A sentence is a file's name.",
        "one",
        _sentence(lambda told: "_".join(told.split())),
        also=_TEXT,
    ),
    Fault(
        "instruction_spaces",
        "A sentence has spaces doubled.",
        "one",
        _sentence(lambda told: "  ".join(told.split()) if " " in told else f"do   {told}"),
        also=_TEXT,
    ),
    Fault(
        "instruction_not_ascii",
        "A sentence has typographic quotes.",
        "one",
        _sentence(lambda told: f"\u201c{told}\u201d"),
        also=_TEXT,
    ),
    Fault(
        "instruction_variants",
        "A sentence is spelt otherwise than its like.",
        "one",
        _variant,
        also=_TEXT,
    ),
    Fault(
        "foreign_sentence",
        "An episode has the sentence of another task.",
        "one",
        _foreign_sentence,
        also=frozenset({"length_outlier"}),
    ),
    Fault(
        "surplus_bytes",
        "Bytes follow the end of a file.",
        "one",
        _surplus,
        Strength("how many", 1, 100, 1e6, least=1),
    ),
    Fault(
        "stale_statistics",
        "Statistics of other data lie in the folder.",
        "all",
        _stale_statistics,
        Strength("how far means are off [deviations]", 0.3, 1, 3),
    ),
    Fault("hidden_files", "macOS leaves a hidden file beside a recording.", "one", _hidden),
    Fault(
        "stale_total",
        "A file counts more steps than it holds.",
        "one",
        _stale_total,
        Strength("how many more", 1, 10, 1000, least=1),
    ),
    Fault("number_gap", "The last episode has a number too high.", "one", _number_gap),
    Fault("slow_chunks", "Frames are stored many to a chunk.", "all", _slow_chunks),
    Fault(
        "missing_ends", "A dataset that marks ends of episodes is missing.", "all", _missing_ends
    ),
    Fault("unreadable_numbers", "The actions of an episode do not decompress.", "one", _unreadable),
)
