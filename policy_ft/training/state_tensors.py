"""The tensors of a run's state on the disk: complete, and the bytes that were written."""

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor

from data_tools.storage.files.disk import flush_to_disk
from policy_ft.checkpoints import tensor_files
from policy_ft.checkpoints.tensor_files import TensorFiles
from policy_ft.errors import UserError, describe, read_json
from policy_ft.ranks import is_sharded, of_first_rank, own_part, own_rows

CHECKSUMS_FILE = "checksums.json"
Checksums = Mapping[str, Mapping[str, int]]
"""File without its suffix -> tensor -> CRC-32 of its bytes."""


def write_tensors(files: Mapping[str, Mapping[str, Tensor]], directory: Path) -> None:
    """Writes `<name>.safetensors` for each of `files`, and what their tensors' bytes add up to.

    Where processes hold a part of a tensor, each writes its own rows into
    `<name>-<process>-of-<processes>.safetensors`, the first also what is whole; the rows of all
    files, one after the other, are the tensor. One tensor at a time is copied to the host. Every
    process must call it.
    """
    written = [_write_own(name, tensors, directory) for name, tensors in files.items()]
    own = {stem: checksums for each in written for stem, checksums in each.items()}
    found = gather_object([own])
    if PartialState().is_main_process:
        checksums = {stem: each[stem] for each in found for stem in each}
        text = json.dumps(dict(sorted(checksums.items())))
        (directory / CHECKSUMS_FILE).write_text(text, encoding="utf-8")


def _write_own(
    name: str, tensors: Mapping[str, Tensor], directory: Path
) -> dict[str, dict[str, int]]:
    """This process's file of one name and the checksums in it; nothing where it has none."""
    process, checksums = PartialState(), dict[str, int]()
    held = {
        key: own_part(value)
        for key, value in tensors.items()
        if (own_part(value).numel() if is_sharded(value) else process.is_main_process)
    }
    if not held and not process.is_main_process:
        return {}
    if any(map(is_sharded, tensors.values())):
        name = f"{name}-{process.process_index + 1:05d}-of-{process.num_processes:05d}"
    path = directory / f"{name}.safetensors"
    tensor_files.write_tensors(
        path, held, None, lambda key, stored: checksums.update({key: checksum(stored)})
    )
    flush_to_disk(path)
    return {name: checksums}


def checksum(tensor: Tensor) -> int:
    """CRC-32 of the bytes of a contiguous tensor in host memory."""
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)


def read_checksums(directory: Path) -> Checksums:
    """What was written there.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    checksums: Checksums = read_json(directory / CHECKSUMS_FILE)
    return checksums


def incomplete_files(directory: Path, checksums: Checksums) -> Iterator[str]:
    """Faults of files that are missing, damaged, or hold other tensors than were written.

    Reads their headers alone.
    """
    for name, expected in checksums.items():
        path = directory / f"{name}.safetensors"
        try:
            with TensorFiles([path]) as file:
                found = set(file.headers)
        except UserError as error:
            yield _fault(path, f"no whole file ({error})", "the state the run was saved with")
            continue
        missing, more = sorted(expected.keys() - found), sorted(found - expected.keys())
        if missing or more:
            listed = [f"{len(missing)} tensors missing, e.g. {missing[0]!r}"] if missing else []
            listed += [f"{len(more)} more, e.g. {more[0]!r}"] if more else []
            yield _fault(path, " and ".join(listed), f"the {len(expected)} that were saved")


class Rows(NamedTuple):
    """Some rows of a stored tensor, or all of it."""

    name: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    start: int
    """Which row of it is the first of `values`."""
    values: Tensor
    """float[n, ...], or a scalar; not to be kept or written to."""

    def into(self, target: Tensor) -> None:
        """Puts those rows in place that this process holds of the target."""
        part = own_part(target)
        if not self.shape:
            part.copy_(self.values)
            return
        held, stop = own_rows(target), self.start + len(self.values)
        first, last = max(held.start, self.start), min(held.stop, stop)
        if first < last:
            found = self.values[first - self.start : last - self.start]
            part[first - held.start : last - held.start].copy_(found)


def stored_rows(directory: Path, name: str, checksums: Checksums | None) -> Iterator[Rows]:
    """The tensors of one of the names that `write_tensors` was given, part by part.

    However many processes wrote them, and however many there are now: the first alone reads, from
    mapped files, and sends each part to the others. Eight that each read the moments of pi0 would
    ask the disk for 208 GB.

    Args:
        directory: of the state.
        name: e.g. 'optimizer'. Of one that was not written there is nothing.
        checksums: of every tensor there; None where none were noted.

    Raises:
        UserError: on every process, where a file is damaged or missing, or a tensor has other bytes
            than were saved.
    """
    process, opened = PartialState(), dict[str, TensorFiles]()

    def parts() -> list[_Part]:
        for stem in _stems(directory, name, checksums):
            opened[stem] = stack.enter_context(_open(directory / f"{stem}.safetensors"))
        return list(_parts(opened))

    with ExitStack() as stack:
        for part in of_first_rank(parts):
            of_first_rank(partial(_require_saved, part, opened, checksums))
            if process.is_main_process:
                values = opened[part.stem].tensor(part.name).to(process.device)
            else:
                values = torch.empty(part.own_shape, dtype=part.dtype, device=process.device)
            if process.num_processes > 1:
                torch.distributed.broadcast(values, src=0)
            yield Rows(part.name, part.shape, part.start, values)


class _Part(NamedTuple):
    """Where rows of a tensor are stored; sent from process to process."""

    stem: str
    name: str
    shape: tuple[int, ...]
    start: int
    own_shape: tuple[int, ...]
    dtype: torch.dtype


def _stems(directory: Path, name: str, checksums: Checksums | None) -> list[str]:
    """The files of one name, without their suffix, in the order of the processes that wrote."""
    if checksums is None:
        is_needed = not name.startswith("hook_") or (directory / f"{name}.safetensors").exists()
        return [name] if is_needed else []
    of_name = re.compile(rf"{re.escape(name)}(-\d+-of-\d+)?")
    return sorted(stem for stem in checksums if of_name.fullmatch(stem))


def _open(path: Path) -> TensorFiles:
    try:
        return TensorFiles([path])
    except UserError as error:
        found = f"no whole file ({error})"
        raise UserError(_fault(path, found, "the state the run was saved with")) from None


def _parts(opened: Mapping[str, TensorFiles]) -> Iterator[_Part]:
    """Those of one tensor after the other, by the order of the files."""
    holders: dict[str, list[str]] = {}
    for stem, file in opened.items():
        for key in file.headers:
            holders.setdefault(key, []).append(stem)
    for key, stems in holders.items():
        shapes = [opened[stem].headers[key].shape for stem in stems]
        shape = (sum(each[0] for each in shapes), *shapes[0][1:]) if shapes[0] else ()
        start = 0
        for stem, own_shape in zip(stems, shapes, strict=True):
            dtype = opened[stem].tensor(key).dtype
            yield _Part(stem, key, shape, start, own_shape, dtype)
            start += own_shape[0] if own_shape else 0


def _require_saved(
    part: _Part, opened: Mapping[str, TensorFiles], checksums: Checksums | None
) -> None:
    """UserError for a part that has other bytes than were written."""
    file = opened[part.stem]
    if checksums is None or checksum(file.tensor(part.name)) == checksums[part.stem][part.name]:
        return
    found = f"other bytes in the tensor {part.name!r}"
    raise UserError(_fault(file.path(part.name), found, "those that were saved"))


def _fault(path: Path, found: str, expected: str) -> str:
    remedy = f"Move {path.parent.parent} away to go on from the checkpoint before it."
    return describe(str(path), found, expected, remedy)
