"""TableWriter: rows of steps to one Parquet file in the schema of LeRobot's features."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

# Reading one frame reads its row group, so groups with images are small. LeRobot makes one an
# episode: tens of megabytes for a frame that is not in the cache.
ROW_GROUP_BYTES: Final = 1 << 20
IMAGE: Final = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

Features = Mapping[str, Mapping[str, Any]]


class TableWriter:
    """One Parquet file of steps that is being written.

    Attributes:
        num_rows: rows given so far.
    """

    def __init__(self, path: Path, features: Features) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.num_rows = 0
        self._schema = _schema(features)
        images = {f"{name}.bytes" for name, each in features.items() if each["dtype"] == "image"}
        numbers = [name for name, each in features.items() if each["dtype"] not in _IN_FILES]
        # a PNG is compressed already, and no two are equal
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression=dict.fromkeys(images, "none") | dict.fromkeys(numbers, "snappy"),
            use_dictionary=numbers,
        )

    def add(
        self,
        columns: Mapping[str, npt.NDArray[np.generic]],
        images: Mapping[str, list[dict[str, object]]],
    ) -> None:
        """Write a row group: equally many rows of numbers [n, d] or [n], and of encoded images."""
        arrays = []
        for field in self._schema:
            if field.name in images:
                arrays.append(pa.array(images[field.name], type=IMAGE))
                continue
            values = np.ascontiguousarray(columns[field.name]).reshape(-1)
            flat = pa.array(values)
            if pa.types.is_fixed_size_list(field.type):
                flat = pa.FixedSizeListArray.from_arrays(flat, field.type.list_size)
            arrays.append(flat)
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        self.num_rows += len(table)

    @property
    def num_bytes(self) -> int:
        """Size of the file so far."""
        return self._path.stat().st_size

    def close(self) -> None:
        """Write the footer and close the file."""
        self._writer.close()


_IN_FILES: Final = ("image", "video")


def _schema(features: Features) -> pa.Schema:
    """The columns in Arrow's words and, as metadata, in those of Hugging Face's datasets."""
    fields: list[pa.Field] = []
    described: dict[str, dict[str, object]] = {}
    for name, feature in features.items():
        if feature["dtype"] == "video":
            continue
        if feature["dtype"] == "image":
            fields.append(pa.field(name, IMAGE))
            described[name] = {"_type": "Image"}
            continue
        kind: pa.DataType = pa.from_numpy_dtype(np.dtype(feature["dtype"]))
        value: dict[str, object] = {"dtype": feature["dtype"], "_type": "Value"}
        (width,) = feature["shape"]
        if width > 1:
            kind = pa.list_(kind, width)
            value = {"feature": value, "length": width, "_type": "Sequence"}
        fields.append(pa.field(name, kind))
        described[name] = value
    metadata = json.dumps({"info": {"features": described}})
    return pa.schema(fields, metadata={"huggingface": metadata})
