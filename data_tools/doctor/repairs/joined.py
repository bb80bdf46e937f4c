"""Several files of `data/demo_N` episodes merged for a repair, and what one file cannot keep."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.errors import UserError
from data_tools.formats.layouts.native import NATIVE_LAYOUT
from data_tools.formats.reading.hdf5_dataset import Hdf5Dataset
from data_tools.rewrite.demo_files import demo_name
from data_tools.rewrite.merge import merge
from data_tools.storage.files.disk import PARTIAL_SUFFIX
from data_tools.storage.hdf5.opening import open_hdf5

MERGED = (NATIVE_LAYOUT.root, "mask")


@dataclass(frozen=True)
class Joined:
    """A file that holds all episodes.

    Attributes:
        path: the file, with the episodes in their order; None where they do not fit into one.
        note: what is left out of it, or why there is none; '' for nothing.
    """

    path: Path | None
    note: str


@contextmanager
def one_file(
    dataset: Hdf5Dataset, target: Path, sources: Sequence[str | Path], layout: str
) -> Iterator[Joined]:
    """The dataset's one file, or its files merged beside the target while the block lasts."""
    files = dataset.inspected.files
    if len(files) == 1:
        yield Joined(Path(files[0]), "")
        return
    why = f"it is made of {len(files)} files, and"
    if any(demo_name(record.name) is None for record in dataset.records):
        yield Joined(None, f"{why} their episodes are no groups data/demo_N")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=f"{target.name}.", suffix=PARTIAL_SUFFIX
    ) as folder:
        try:
            path = merge(dataset, Path(folder) / target.name, list(map(Path, sources)), layout)
        except UserError as error:
            one = Joined(None, f"{why} they cannot be merged ({error.faults[0]})")
        else:
            one = Joined(path, _left_out(dataset))
        yield one


def _left_out(dataset: Hdf5Dataset) -> str:
    """What of the files is neither an episode, nor a filter key, nor what the first one says."""
    names: dict[str, None] = {}
    episodes = {(record.path, record.group) for record in dataset.records}
    first: dict[str, object] = {}
    for index, path in enumerate(dataset.inspected.files):
        with open_hdf5(path) as file:
            root = file[NATIVE_LAYOUT.root]
            names |= {f"{path}:{name}": None for name in file if name not in MERGED}
            names |= {
                f"{path}:{root.name[1:]}/{name}": None
                for name in root
                if (path, f"{root.name[1:]}/{name}") not in episodes
            }
            said = {key: np.asarray(value).tolist() for key, value in root.attrs.items()}
            said.pop("total", None)
            first = first or said
            names |= {
                f"{path}:{root.name[1:]}, attribute {key!r}": None
                for key, value in said.items()
                if index and first.get(key) != value
            }
            names |= {f"{path}: attribute {key!r}": None for key in file.attrs}
    return f"left out in merging: {', '.join(names)}" if names else ""
