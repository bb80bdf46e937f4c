"""Rows of Parquet files: footers checked, row groups read once and kept while there is room."""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.errors import UserError, describe
from data_tools.rules import MISSING_PART, UNREADABLE_FILE
from data_tools.storage.files.cache import LruCache

MAX_OPEN_FILES: Final = 32
ROW_GROUP_CACHE_BYTES: Final = 192 << 20
# A minute of three cameras, embedded as PNG, in one row group takes a tenth of it.
MAX_GROUP_BYTES: Final = 4 << 30
BATCH_ROWS: Final = 1024
VALUE_BYTES: Final = {"BOOLEAN": 0.125, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 8}
MAGIC: Final = b"PAR1"
DAMAGE: Final = (pa.ArrowException, OSError, UnicodeDecodeError)  # what pyarrow raises of it


@dataclass(frozen=True)
class _Opened:
    """An open file; row group g holds the rows starts[g] to starts[g + 1]."""

    file: pq.ParquetFile
    starts: tuple[int, ...]

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class ParquetFiles:
    """Parquet files kept open in this process, with the row groups read last.

    A frame is one value of a row group, and Parquet reads a group's column as a whole, so what was
    read is kept up to 192 MiB. Picklable and safe to inherit: nothing that is open is shared.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forget()

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]

    def names(self, path: str) -> frozenset[str]:
        """The columns of a file; UserError when it is missing or broken."""
        with self._lock:
            return frozenset(self._open(path).file.schema_arrow.names)

    def rows(self, path: str, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """These columns of the rows from `start` to before `stop`.

        Raises:
            UserError: the file is missing or broken, or lacks a column or rows.
        """
        with self._lock:
            opened = self._open(path)
            _require_columns(path, opened.file, columns)
            if stop > opened.starts[-1]:
                raise UserError(rows_fault(path, opened.starts[-1], stop))
            groups = [
                group
                for group, (first, last) in enumerate(
                    zip(opened.starts[:-1], opened.starts[1:], strict=True)
                )
                if first < stop and last > start
            ]
            parts = [self._group(path, opened.file, group, tuple(columns)) for group in groups]
        offset = start - opened.starts[groups[0]] if groups else 0
        return pa.concat_tables(parts).slice(offset, stop - start)

    def _group(
        self, path: str, file: pq.ParquetFile, group: int, columns: tuple[str, ...]
    ) -> pa.Table:
        def read() -> pa.Table:
            return read_groups(path, file, [group], columns, MAX_GROUP_BYTES)

        return self._groups.get_or_make((path, group, columns), read)

    def _open(self, path: str) -> _Opened:
        if self._pid != os.getpid():
            self._forget()

        def open_file() -> _Opened:
            file = open_parquet(Path(path))
            counts = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            return _Opened(file, (0, *accumulate(counts)))

        return self._files.get_or_make(path, open_file)

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._files: LruCache[_Opened] = LruCache(
            MAX_OPEN_FILES, weigh=lambda _: 1, on_evict=_Opened.close
        )
        self._groups: LruCache[pa.Table] = LruCache(
            ROW_GROUP_CACHE_BYTES, weigh=lambda table: table.nbytes
        )


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, its footer read.

    Raises:
        UserError: it is missing, no Parquet file, damaged, or was never finished by its writer.
    """
    try:
        return pq.ParquetFile(path, memory_map=False, pre_buffer=False)
    except DAMAGE as error:
        if not os.path.isfile(path):  # nor is there a file whose name is too long
            remedy = "Download or copy the dataset again, with all its files."
            raise UserError(
                describe(str(path), "no such file", "a Parquet file", remedy, UNREADABLE_FILE.name)
            ) from error
        raise UserError(_unopenable(path, error)) from error


def read_groups(
    path: str | Path,
    file: pq.ParquetFile,
    groups: Sequence[int],
    columns: Sequence[str],
    max_bytes: int,
) -> pa.Table:
    """These columns of these row groups, as long as they take no more than so many bytes.

    Parquet packs a value that repeats into nothing: a file of 100 kB may hold a thousand million.

    Raises:
        UserError: the file is damaged, or the columns take more.
    """
    parts, size = [], 0
    try:
        least = sum(_least_bytes(file.metadata.row_group(group), columns) for group in groups)
        if least > max_bytes:
            raise UserError(_too_large(path, least, max_bytes))
        for part in file.iter_batches(BATCH_ROWS, groups, list(columns), use_threads=False):
            size += part.nbytes
            if size > max_bytes:
                raise UserError(_too_large(path, size, max_bytes))
            parts.append(part)
    except DAMAGE as error:
        raise UserError(_broken(str(path), error)) from error
    empty = pa.schema([field for field in file.schema_arrow if field.name in columns])
    return pa.Table.from_batches(parts, parts[0].schema if parts else empty)


def columns_fault(path: str, names: Sequence[str], missing: Sequence[str]) -> str:
    """The fault of a file without columns that are needed, or with one of them twice."""
    remedy = "Name other features in conventions.yaml: layout, or download the dataset again."
    expected = f"{list(missing)}, each once"
    return describe(path, f"the columns {list(names)}", expected, remedy, MISSING_PART.name)


def rows_fault(path: str | Path, rows: int, expected: int) -> str:
    """The fault of a file with another number of rows than the episodes it is said to hold."""
    remedy = "Copy or download the dataset again; if it stays so, correct the lengths in its index."
    return describe(str(path), f"{rows} rows", f"{expected}, the lengths of its episodes", remedy)


def matrix(column: pa.ChunkedArray, width: int, where: str) -> npt.NDArray[np.float64]:
    """float64[n, width] of a column of numbers, or of lists of them.

    Raises:
        UserError: a value is missing, is no number, or a row has another length.
    """
    flat = column.combine_chunks()
    if isinstance(flat, pa.ChunkedArray):  # what older versions of pyarrow return
        flat = pa.concat_arrays(flat.chunks) if flat.num_chunks else pa.array([], column.type)
    rows, kind, remedy = len(flat), column.type, "Leave the episode out or record it again."
    expected = f"{rows} rows of {width} numbers"
    if flat.null_count:
        raise UserError(describe(where, f"{flat.null_count} missing rows", expected, remedy))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = pc.unique(pc.list_value_length(flat)).to_pylist()
        if rows and lengths != [width]:
            raise UserError(describe(where, f"rows of {lengths} numbers", expected, remedy))
        flat = flat.flatten()
    if not _is_number(flat.type) or flat.null_count or len(flat) != rows * width:
        found = f"{kind} with {flat.null_count} missing values"
        raise UserError(describe(where, found, expected, remedy))
    values = flat.to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64).reshape(rows, width)


def integers(column: pa.ChunkedArray, where: str) -> npt.NDArray[np.int64]:
    """int64[n] of a column of whole numbers; UserError when it holds anything else."""
    if column.null_count or not pa.types.is_integer(column.type):
        found = f"{column.type} with {column.null_count} missing values"
        raise UserError(describe(where, found, "whole numbers", "Download the dataset again."))
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _least_bytes(group: pq.RowGroupMetaData, columns: Sequence[str]) -> int:
    """What the numbers of these columns take, and their texts and images where none repeats."""
    starts = tuple(f"{name}." for name in columns)
    leaves = [group.column(place) for place in range(group.num_columns)]
    return int(
        sum(
            leaf.num_values * VALUE_BYTES.get(leaf.physical_type, 0) or leaf.total_uncompressed_size
            for leaf in leaves
            if f"{leaf.path_in_schema}.".startswith(starts)
        )
    )


def _too_large(path: str | Path, size: int, max_bytes: int) -> str:
    found = f"columns of {size / 2**20:,.0f} MiB or more when unpacked"
    remedy = "Download it again; if it is meant so, write it in smaller row groups or datasets."
    expected = f"at most {max_bytes >> 20:,} MiB"
    return describe(str(path), found, expected, remedy, UNREADABLE_FILE.name)


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    )


def _require_columns(path: str, file: pq.ParquetFile, columns: Sequence[str]) -> None:
    names = file.schema_arrow.names
    missing = [name for name in columns if names.count(name) != 1]
    if missing:
        raise UserError(columns_fault(path, names, missing))


def _unopenable(path: Path, error: Exception) -> str:
    start, end = b"", b""
    if os.access(path, os.R_OK):
        with path.open("rb") as file:
            start = file.read(64)
            file.seek(max(0, path.stat().st_size - len(MAGIC)))
            end = file.read()
    if start.startswith(MAGIC) and end != MAGIC:
        found = "a Parquet file without its footer, as a writer that was not finalized leaves it"
        remedy = (
            "Record it again and end with `dataset.finalize()`, or copy it again if the copy was "
            "cut short."
        )
        return describe(str(path), found, "a finished Parquet file", remedy, UNREADABLE_FILE.name)
    if start.startswith(b"version https://git-lfs"):
        found = "a Git LFS pointer, a text that stands for the data"
        remedy = "Run `git lfs pull` in its repository."
        return describe(str(path), found, "a Parquet file", remedy, UNREADABLE_FILE.name)
    return _broken(str(path), error)


def _broken(path: str, error: Exception) -> str:
    found = f"a damaged file ({' '.join(str(error).split())[:200]})"
    expected, remedy = "a whole Parquet file", "Copy or download it again."
    return describe(path, found, expected, remedy, UNREADABLE_FILE.name)
