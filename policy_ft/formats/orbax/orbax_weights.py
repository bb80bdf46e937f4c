"""Weights that openpi's JAX code saved with orbax, read as if they were one safetensors file.

An orbax directory is a key-value store (OCDBT) of arrays (zarr). TensorStore reads it without JAX;
it comes with the extra `orbax`.
"""

import math
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from policy_ft.errors import UserError, describe, nearest, raise_faults, read_json
from policy_ft.formats.orbax.jax_tree import LORA_MARK, Leaf, family_of, leaves

MANIFEST = "manifest.ocdbt"
"""The file that stands in every params directory whose save was finished."""

TYPES = {
    "float32": ("F32", torch.float32),
    "bfloat16": ("BF16", torch.bfloat16),
    "float16": ("F16", torch.float16),
}
"""Types that weights may have -> what safetensors files and torch call them."""

_METADATA = "_METADATA"
_DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}
_TOP = "params"
_TRAINED = "value"
_MAX_NAMED = 8
_CACHE_OVERHEAD = 2**20


class OrbaxSlice(NamedTuple):
    """What is known of a tensor before it is read; as a slice of a safetensors file."""

    shape: tuple[int, ...]
    dtype: str

    def get_shape(self) -> list[int]:
        """The shape."""
        return list(self.shape)

    def get_dtype(self) -> str:
        """The type as safetensors files name it: 'F32', 'BF16' or 'F16'."""
        return self.dtype


class OrbaxParams(NamedTuple):
    """The directory `params` of a checkpoint as a TensorStore."""

    path: Path

    def open(self) -> "OrbaxWeights":
        """Its tensors; UserError as OrbaxWeights."""
        return OrbaxWeights(self.path)


class OrbaxWeights:
    """The tensors of a params directory under openpi's PyTorch names; a context manager.

    It has the methods of `safetensors.safe_open` and the names of openpi's own converted files: of
    the tied pair `paligemma.lm_head.weight` alone. Opening it reads headers. The first tensor asked
    for of an array, which holds those of all layers, unpacks that array into an unnamed temporary
    file; tensors are views of the mapped file and may be asked for in any order. So the process
    needs memory for one array (at most 4.8 GB, the gates of pi0's language model in float32, where
    all layers were saved in one piece), and the directory for temporary files (TMPDIR) room for the
    tensors asked for, until the weights are closed and the last of their tensors is gone.

    Args:
        params: the directory `params` of a checkpoint, released or from openpi's trainer.

    Raises:
        UserError: TensorStore is not installed, the directory is no finished orbax checkpoint or is
            damaged, or its tree is not that of pi0 or pi0.5: leaves that are missing, unknown,
            misshaped or no floats, all of them; or it has low-rank adapters.
    """

    def __init__(self, params: Path) -> None:
        self._store = _Store(params)
        arrays = self._store.arrays()
        _refuse_adapters(params, arrays)
        tree = leaves(family_of(arrays))
        raise_faults(_path_faults(params, arrays, tree))
        raise_faults(_array_faults(params, arrays, tree))
        self._source = {
            name: (leaf, arrays[path])
            for path, leaf in tree.items()
            for name, _ in leaf.parts(arrays[path].shape[0])
        }
        self._unpacked: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._unpacked.clear()

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return list(self._source)

    def get_slice(self, name: str) -> OrbaxSlice:
        """Shape and type of a tensor, without reading it."""
        leaf, array = self._source[name]
        return OrbaxSlice(leaf.part_shape(array.shape), TYPES[array.dtype][0])

    def get_tensor(self, name: str) -> Tensor:
        """A tensor bit for bit as it was saved, not to be written to.

        Raises:
            UserError: its array is damaged, or there is no room for a temporary file.
        """
        if name not in self._unpacked:
            self._unpacked |= self._unpack(*self._source[name])
        return self._unpacked[name]

    def _unpack(self, leaf: Leaf, array: "_Array") -> dict[str, Tensor]:
        """All tensors of a leaf, as views of a temporary file."""
        names, indices = zip(*leaf.parts(array.shape[0]), strict=True)
        shape, kind = leaf.part_shape(array.shape), TYPES[array.dtype][1]
        try:
            with tempfile.TemporaryFile() as file:
                for stored in self._store.read(array, indices):
                    tensor = leaf.arrange(_as_torch(stored, kind)).contiguous()
                    file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
                file.flush()
                # copy-on-write, for torch has no tensors that cannot be written to
                mapped = np.memmap(file, dtype=np.uint8, mode="c")
        except OSError as error:
            size = len(names) * math.prod(shape) * kind.itemsize
            expected = f"room for {size} bytes of {array.key}"
            remedy = "Set it to a directory with room for all the weights."
            raise UserError(describe("TMPDIR", str(error), expected, remedy)) from None
        tensors = torch.from_numpy(mapped).view(kind).view(len(names), *shape)
        return dict(zip(names, tensors, strict=True))


class _Array(NamedTuple):
    """An array of the store: how to open it, and what its header says."""

    key: str
    driver: str
    shape: tuple[int, ...]
    dtype: str


class _Store:
    """The arrays of an orbax directory, read by TensorStore."""

    def __init__(self, params: Path) -> None:
        if find_spec("tensorstore") is None:
            found, expected = "a JAX checkpoint, without the package tensorstore", "both"
            remedy = "Run `pip install 'policy_ft[orbax]'`."
            raise UserError(describe(str(params), found, expected, remedy))
        if not (params / MANIFEST).is_file():
            found, expected = f"no {MANIFEST}", "the params of a finished orbax checkpoint"
            remedy = "Copy the whole directory again, or use a step whose save was finished."
            raise UserError(describe(str(params), found, expected, remedy))
        self._params = params
        metadata = read_json(params / _METADATA)
        if not isinstance(metadata, dict):
            raise self._damaged(f"{_METADATA} is no mapping")
        # Older versions leave out pieces that are all zero; later ones say that they do not.
        self._may_lack_pieces = not metadata.get("store_array_data_equal_to_fill_value", False)

    def arrays(self) -> dict[str, _Array]:
        """Path of each leaf below `params` -> its array."""
        import tensorstore  # optional: the extra 'orbax'

        found = []
        try:
            for name in tensorstore.KvStore.open(self._place("")).result().list().result():
                key, _, file = name.decode().rpartition("/")
                if file in _DRIVERS:
                    opened = self._open(key, _DRIVERS[file], cache_bytes=0)
                    found.append(_Array(key, _DRIVERS[file], opened.shape, opened.dtype.name))
        except ValueError as error:
            raise self._damaged(str(error)) from None
        return dict(zip(_leaf_paths([array.key for array in found]), found, strict=True))

    def read(self, array: _Array, indices: Sequence[tuple[int, ...]]) -> Iterator[np.ndarray]:
        """The parts of an array at these ascending indices, one after the other."""
        try:
            piece = self._open(array.key, array.driver, cache_bytes=0).chunk_layout.read_chunk.shape
            # Pieces often span all layers: each is then decoded once, and kept until the last.
            row = math.prod((min(piece[0], array.shape[0]), *array.shape[1:]))
            needed = row * TYPES[array.dtype][1].itemsize + _CACHE_OVERHEAD
            opened = self._open(array.key, array.driver, needed if len(indices) > 1 else 0)
            for index in indices:
                yield opened[index].read().result()
        except ValueError as error:
            raise self._damaged(str(error)) from None

    def _open(self, key: str, driver: str, cache_bytes: int) -> Any:
        import tensorstore  # optional: the extra 'orbax'

        spec = {
            "driver": driver,
            "kvstore": self._place(f"{key}/"),
            "fill_missing_data_reads": self._may_lack_pieces,
            "recheck_cached_data": False,
            "recheck_cached_metadata": False,
        }
        context = tensorstore.Context({"cache_pool": {"total_bytes_limit": cache_bytes}})
        return tensorstore.open(spec, context=context, open=True, read=True).result()

    def _place(self, path: str) -> dict[str, Any]:
        """The specification of a place in the store, its files mapped and not copied to memory."""
        files = {"driver": "file", "path": f"{self._params.resolve()}/"}
        base = {**files, "file_io_mode": {"mode": "memmap"}}
        return {"driver": "ocdbt", "base": base, "path": path}

    def _damaged(self, why: str) -> UserError:
        found = f"a damaged orbax checkpoint ({why.partition(' [')[0]})"
        remedy = "Copy or download it again."
        return UserError(describe(str(self._params), found, "a complete one", remedy))


def _as_torch(array: np.ndarray, kind: torch.dtype) -> Tensor:
    """The same bits as a tensor; torch does not know numpy's bfloat16."""
    if kind is torch.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(kind)
    return torch.from_numpy(array)


def _leaf_paths(keys: Sequence[str]) -> list[str]:
    """'params.a.b' or, of a trained checkpoint, 'params.a.b.value' as 'a/b'."""
    split = [key.split(".") for key in keys]
    is_trained = all(parts[-1] == _TRAINED for parts in split)
    inner = [parts[:-1] if is_trained else parts for parts in split]
    return ["/".join(parts[1:] if parts[0] == _TOP else parts) for parts in inner]


def _refuse_adapters(params: Path, paths: Collection[str]) -> None:
    adapters = [path for path in paths if LORA_MARK in path.rpartition("/")[2]]
    if adapters:
        remedy = (
            "Merge them in openpi with the alpha they were trained with, which the checkpoint does "
            "not say, and save the params without them."
        )
        found = f"the low-rank adapters {_named(adapters)}"
        raise UserError(describe(str(params), found, "weights that hold them already", remedy))


def _path_faults(params: Path, paths: Collection[str], tree: Mapping[str, Leaf]) -> Iterator[str]:
    family = family_of(paths)
    missing = [path for path in tree if path not in paths]
    unknown = [path for path in paths if path not in tree]
    if missing:
        remedy = "Use a complete checkpoint of pi0 or pi0.5."
        expected = f"the {len(tree)} leaves of {family}"
        yield describe(str(params), f"no {_named(missing)}", expected, remedy)
    if unknown:
        hint = nearest(unknown[0], missing)
        remedy = "Use a checkpoint of pi0 or pi0.5 that holds its parameters alone"
        remedy += f"; {hint}" if hint else "."
        expected = f"the {len(tree)} leaves of {family}"
        yield describe(str(params), f"the unknown leaves {_named(unknown)}", expected, remedy)


def _array_faults(
    params: Path, arrays: Mapping[str, _Array], tree: Mapping[str, Leaf]
) -> Iterator[str]:
    remedy = "Use a checkpoint that openpi wrote, and copy it again if it is one."
    first_of_stack: dict[str, str] = {}
    for path, leaf in tree.items():
        array = arrays[path]
        where = f"{params}, {path}"
        if array.dtype not in TYPES:
            yield describe(where, array.dtype, f"one of {list(TYPES)}", remedy)
        if not leaf.fits(array.shape):
            expected = f"[{', '.join(leaf.axes)}]"
            yield describe(where, f"the shape {list(array.shape)}", expected, remedy)
        elif leaf.is_stacked:
            first = first_of_stack.setdefault(leaf.stack, path)
            if array.shape[0] != arrays[first].shape[0]:
                expected = f"{arrays[first].shape[0]} as in {first}"
                yield describe(where, f"{array.shape[0]} layers", expected, remedy)


def _named(paths: Sequence[str]) -> str:
    """The first of the paths, and how many more there are."""
    more = f" and {len(paths) - _MAX_NAMED} more" if len(paths) > _MAX_NAMED else ""
    return ", ".join(paths[:_MAX_NAMED]) + more
