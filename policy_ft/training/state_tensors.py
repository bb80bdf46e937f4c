"""The tensors of a run's state on the disk: complete, and the bytes that were written."""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors.torch import save_file
from torch import Tensor

from policy_ft.checkpoints.tensor_files import TensorFiles
from policy_ft.errors import UserError, describe, read_json

CHECKSUMS_FILE = "checksums.json"
Checksums = Mapping[str, Mapping[str, int]]
"""File without its suffix -> tensor -> CRC-32 of its bytes."""


def write_tensors(files: Mapping[str, Mapping[str, Tensor]], directory: Path) -> None:
    """Writes `<name>.safetensors` for each of `files`, and what their tensors' bytes add up to."""
    checksums = {}
    for name, tensors in files.items():
        on_host = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        checksums[name] = {key: checksum(value) for key, value in on_host.items()}
        save_file(on_host, directory / f"{name}.safetensors")
    (directory / CHECKSUMS_FILE).write_text(json.dumps(checksums), encoding="utf-8")


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


def stored_tensors(path: Path, expected: Mapping[str, int] | None) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a file by name, one after the other, not to be kept or written to.

    The first rank alone reads, and sends what it read to the others: eight that each read the
    moments of pi0 would ask the disk for 208 GB.

    Args:
        path: of the file.
        expected: the checksum of each tensor; None where none was noted.

    Raises:
        UserError: on every rank, where the file is damaged or missing, or a tensor has other bytes
            than were saved.
    """
    process = PartialState()
    with ExitStack() as stack:
        file, headers = _opened(path, stack) if process.is_main_process else (None, None)
        for name, shape, dtype in _from_first(headers):
            fault = None
            if file is not None:
                on_host = file.tensor(name)
                if expected is not None and checksum(on_host) != expected.get(name):
                    found = f"other bytes in the tensor {name!r}"
                    fault = UserError(_fault(path, found, "those that were saved"))
                tensor = on_host.to(process.device)
            else:
                tensor = torch.empty(shape, dtype=dtype, device=process.device)
            if process.num_processes > 1:
                _from_first(fault)
                torch.distributed.broadcast(tensor, src=0)
            elif fault is not None:
                raise fault
            yield name, tensor


def _from_first(value: Any) -> Any:
    """The first rank's value on every rank; raised, where it is a UserError."""
    told = [value]
    broadcast_object_list(told)
    if isinstance(told[0], UserError):
        raise told[0]
    return told[0]


def _opened(path: Path, stack: ExitStack) -> tuple[TensorFiles | None, Any]:
    """The file, and name, shape and type of its tensors; or None, and what is wrong."""
    try:
        file = stack.enter_context(TensorFiles([path]))
    except UserError as error:
        found, expected = f"no whole file ({error})", "the state the run was saved with"
        return None, UserError(_fault(path, found, expected))
    tensors = {name: file.tensor(name) for name in file.headers}
    return file, [(name, each.shape, each.dtype) for name, each in tensors.items()]


def _fault(path: Path, found: str, expected: str) -> str:
    remedy = f"Move {path.parent.parent} away to go on from the checkpoint before it."
    return describe(str(path), found, expected, remedy)
