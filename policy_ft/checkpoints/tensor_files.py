"""Files of tensors, safetensors or others, as one mapping of tensors that lie on the disk."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from policy_ft.errors import UserError, describe, nearest, raise_faults, read_json
from policy_ft.ranks import whole

WEIGHTS_FILE = "model.safetensors"
INDEX_SUFFIX = ".index.json"
MAX_SHARD_BYTES = 5 * 10**9
"""The shard size that files on the hub are commonly cut to."""

_GIT_LFS_HEAD = b"version https://git-lfs"
_FLOATS = ("F", "BF")
_DTYPES = {
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class StoredTensor(NamedTuple):
    """What a file's header says about a tensor."""

    shape: tuple[int, ...]
    is_floating_point: bool


class TensorStore(Protocol):
    """Tensors that lie on the disk otherwise than in a safetensors file."""

    @property
    def path(self) -> Path:
        """How messages call it."""

    def open(self) -> AbstractContextManager[Any]:
        """What has the methods `keys`, `get_slice` and `get_tensor` of `safetensors.safe_open`."""


class TensorFiles:
    """Tensors of several files by name; a context manager.

    Tensors are views of the mapped files: reading one brings it into the page cache, which the
    system may drop again, and into no memory of this process.

    Args:
        files: safetensors files and stores that hold the tensors between them.

    Attributes:
        headers: name -> what its file says about the tensor.

    Raises:
        UserError: no such file, a damaged file, or a name that stands in two of the files.
    """

    def __init__(self, files: Sequence[Path | TensorStore]) -> None:
        self.files = tuple(file if isinstance(file, Path) else file.path for file in files)
        self.headers: dict[str, StoredTensor] = {}
        self._opened: dict[str, tuple[Path, Any]] = {}
        with ExitStack() as stack:
            faults: list[str] = []
            for path, file in zip(self.files, files, strict=True):
                opened = _open(file) if isinstance(file, Path) else file.open()
                faults += self._add(path, stack.enter_context(opened))
            raise_faults(faults)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    @property
    def where(self) -> str:
        """How messages call the files: the one file, or the directory of the shards."""
        return str(self.files[0] if len(self.files) == 1 else self.files[0].parent)

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._opened[name][0]

    def tensor(self, name: str) -> Tensor:
        """The tensor as stored, on the disk until it is read; not to be written to."""
        return self._opened[name][1].get_tensor(name)

    def _add(self, path: Path, file: Any) -> list[str]:
        """Takes in the names of a file; returns the faults."""
        faults = []
        for name in file.keys():  # noqa: SIM118 - a safetensors file is not a mapping
            if name in self._opened:
                other = self.path(name).name
                remedy = "Remove the file that is left over, or download the checkpoint again."
                found = f"a tensor that {other} holds as well"
                faults.append(describe(f"{path}, {name}", found, "each name in one file", remedy))
                continue
            header = file.get_slice(name)
            is_float = header.get_dtype().startswith(_FLOATS)
            self.headers[name] = StoredTensor(tuple(header.get_shape()), is_float)
            self._opened[name] = path, file
        return faults


def tensor_files(path: Path) -> list[Path]:
    """The files of the weights at `path`: itself, or the shards that its index beside it lists.

    A path at which there is neither is returned as it is; opening it says what is wrong.

    Args:
        path: e.g. of model.safetensors, with the index model.safetensors.index.json.

    Raises:
        UserError: there are both, or the index is damaged or names files elsewhere.
    """
    index = path.with_name(path.name + INDEX_SUFFIX)
    if not index.is_file():
        return [path]
    if path.is_file():
        found = f"{path.name} beside {index.name}"
        remedy = "Remove the one that is left over from another checkpoint."
        raise UserError(describe(str(path.parent), found, "one of the two", remedy))
    content = read_json(index)
    placed = content.get("weight_map") if isinstance(content, dict) else None
    if not placed or not isinstance(placed, dict):
        expected = "a mapping from names of tensors to files"
        remedy = "Download the checkpoint again."
        raise UserError(describe(f"{index}, weight_map", repr(placed), expected, remedy))
    names = sorted({str(name) for name in placed.values()})
    outside = [name for name in names if Path(name).name != name or name in (".", "..")]
    if outside:
        remedy = "Download the checkpoint again."
        expected = "names of files in the same directory"
        raise UserError(describe(str(index), f"the shards {outside}", expected, remedy))
    return [path.with_name(name) for name in names]


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    max_shard_bytes: int | None = MAX_SHARD_BYTES,
    seen: Callable[[str, Tensor], object] = lambda name, stored: None,
) -> list[Path]:
    """Write tensors to one file, or to shards and their index where they are larger than a shard.

    Tensors that lie on the disk (TensorFiles) go from file to file; those on an accelerator, those
    that a mapping makes when asked, and those of which other processes hold a part (which must
    `lend_tensors` meanwhile) pass through host memory one at a time.

    Args:
        path: of the one file. Shards stand beside it: model.safetensors becomes
            model-00001-of-00002.safetensors and so on, listed in model.safetensors.index.json.
        tensors: by name.
        max_shard_bytes: a shard holds no more, but for a single tensor that is larger; None writes
            one file whatever its size.
        seen: called with the name and what was written of each tensor, contiguous in host memory.

    Returns:
        The files written, without the index.
    """
    sizes = _sizes(tensors, max_shard_bytes)
    shards = list(_shards(sizes, max_shard_bytes))
    paths = [
        path.with_name(f"{path.stem}-{number:05d}-of-{len(shards):05d}{path.suffix}")
        for number in range(1, len(shards) + 1)
    ]
    paths = [path] if len(shards) == 1 else paths
    for target, names in zip(paths, shards, strict=True):
        _write_file(target, names, tensors, seen)
    if len(shards) > 1:
        placed = {n: p.name for p, names in zip(paths, shards, strict=True) for n in names}
        index = {
            "metadata": {"total_size": sum(sizes.values())},
            "weight_map": dict(sorted(placed.items())),
        }
        text = json.dumps(index, indent=2) + "\n"
        path.with_name(path.name + INDEX_SUFFIX).write_text(text, encoding="utf-8")
    return paths


def lend_tensors(
    tensors: Mapping[str, Tensor], max_shard_bytes: int | None = MAX_SHARD_BYTES
) -> None:
    """What every other process does while the first writes tensors of which each holds a part.

    Args:
        tensors: the same as there.
        max_shard_bytes: as there.
    """
    for names in _shards(_sizes(tensors, max_shard_bytes), max_shard_bytes):
        for name in _in_file_order({name: tensors[name].dtype for name in names}):
            whole(tensors[name])


def locate_tensors(files: Sequence[Path | TensorStore], names: Iterable[str]) -> dict[str, Path]:
    """Name -> file of some of the tensors that the files hold; as Policy.unused takes them."""
    with TensorFiles(files) as stored:
        return {name: stored.path(name) for name in names}


def copy_tensors(sources: Mapping[str, Path], target: Path) -> None:
    """Write tensors that lie in other files to a file of their own, bit for bit.

    Args:
        sources: name -> file that holds it.
        target: of the new file.

    Raises:
        UserError: a file or a tensor is gone.
    """
    remedy = (
        "Put the file back where the policy was loaded from, or save the policy without these "
        "tensors: dataclasses.replace(policy, unused={})."
    )
    files = sorted(set(sources.values()))
    gone = {path: [n for n in sources if sources[n] == path] for path in files if not path.exists()}
    raise_faults(
        describe(str(path), "no such file", f"the unused tensors {_some(names)}", remedy)
        for path, names in gone.items()
    )
    with ExitStack() as stack:
        opened = {path: stack.enter_context(TensorFiles([path])) for path in files}
        raise_faults(
            describe(f"{path}, {name}", "no such tensor", "one that no weight uses", remedy)
            for name, path in sources.items()
            if name not in opened[path].headers
        )
        tensors = {name: opened[path].tensor(name) for name, path in sources.items()}
        write_tensors(target, tensors, max_shard_bytes=None)


def _sizes(tensors: Mapping[str, Tensor], max_shard_bytes: int | None) -> dict[str, int]:
    """Name -> bytes, in the order of names."""
    if max_shard_bytes is None:  # nobody asks, and a mapping may have to make each tensor
        return dict.fromkeys(sorted(tensors), 0)
    return {name: tensors[name].nbytes for name in sorted(tensors)}


def _shards(sizes: Mapping[str, int], max_bytes: int | None) -> Iterator[list[str]]:
    """Names in order, cut so that a shard holds at most max_bytes; one empty shard of none."""
    shard: list[str] = []
    total = 0
    for name, size in sizes.items():
        if shard and max_bytes is not None and total + size > max_bytes:
            yield shard
            shard, total = [], 0
        shard.append(name)
        total += size
    yield shard


def _in_file_order(types: Mapping[str, torch.dtype]) -> list[str]:
    """Names of a file's tensors: wide types first, so that all are aligned."""
    return sorted(types, key=lambda name: (-types[name].itemsize, name))


def _write_file(
    path: Path,
    names: Sequence[str],
    tensors: Mapping[str, Tensor],
    seen: Callable[[str, Tensor], object],
) -> None:
    """Write one file: the length of a JSON header, the header, and the tensors' bytes in its order.

    The library's own writer needs all tensors of a file in memory at once. Source: the section
    "Format" of safetensors' README.
    """
    kinds = {name: (tensors[name].dtype, list(tensors[name].shape)) for name in names}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in _in_file_order({name: dtype for name, (dtype, _) in kinds.items()}):
        dtype, shape = kinds[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in list(header)[1:]:
            stored = whole(tensors[name]).cpu().contiguous()
            seen(name, stored)
            file.write(stored.reshape(-1).view(torch.uint8).numpy().data)


def _some(names: Sequence[str]) -> str:
    """The first three names and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(name) for name in names[:3]) + more


def _open(path: Path) -> Any:
    _require_weights(path)
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        found = f"a damaged file of {path.stat().st_size} bytes ({error})"
        raise UserError(
            describe(str(path), found, "complete safetensors", "Copy or download it again.")
        ) from None


def _require_weights(path: Path) -> None:
    if not path.is_file():
        beside = [each.name for each in path.parent.glob(f"*{path.suffix}")]
        remedy = "Copy the whole checkpoint directory again"
        hint = nearest(path.name, beside)
        remedy += f"; {hint}" if hint else "."
        raise UserError(describe(str(path), "no such file", "the weights", remedy))
    with path.open("rb") as file:
        head = file.read(len(_GIT_LFS_HEAD))
    if head == _GIT_LFS_HEAD:
        remedy = "Run `git lfs pull` there."
        raise UserError(describe(str(path), "a Git LFS pointer", "the weights themselves", remedy))
