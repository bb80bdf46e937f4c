"""The files below `meta`: the index of episodes with their statistics, the tasks, info.json.

TableWriter: rows of steps to one Parquet file in the schema of LeRobot's features.

VideoWriter: frames to one video, encoded as LeRobot does.
"""

import json
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from data_tools.conventions import CameraSpec
from data_tools.formats.lerobot.info import INFO_FILE
from data_tools.formats.lerobot.lerobot_options import ENCODERS, LeRobotOptions
from data_tools.formats.lerobot.meta_files import (
    EPISODES_FOLDER,
    EPISODES_JSONL,
    TASKS_JSONL,
    TASKS_PARQUET,
)
from data_tools.formats.lerobot.statistics import QUANTILES, Statistics

EPISODES_STATS_JSONL: Final = "meta/episodes_stats.jsonl"
STATS_JSON: Final = "meta/stats.json"
BATCH: Final = 100
MIB: Final = 1 << 20
INDEX_COLUMN: Final = "__index_level_0__"


class EpisodeLines:
    """The index of v2.1: a line of JSON an episode, and one with its statistics."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, row: Mapping[str, Any], statistics: Mapping[str, Statistics]) -> None:
        """Write one episode; v2.1 knows no quantiles."""
        plain = {
            feature: {name: value for name, value in each.items() if name not in QUANTILES}
            for feature, each in statistics.items()
        }
        index = {"episode_index": row["episode_index"], "stats": plain}
        for name, line in ((EPISODES_JSONL, row), (EPISODES_STATS_JSONL, index)):
            with (self._folder / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")

    def close(self) -> None:
        """Nothing is left to write."""


class EpisodeTable:
    """The index of v3.0: Parquet files with a row an episode, its statistics among the columns."""

    def __init__(self, folder: Path, options: LeRobotOptions) -> None:
        self._folder, self._options = folder / EPISODES_FOLDER, options
        self._rows: list[dict[str, Any]] = []
        self._file = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: Mapping[str, Any], statistics: Mapping[str, Statistics]) -> None:
        """Write one episode."""
        flat = {
            f"stats/{feature}/{name}": value
            for feature, each in statistics.items()
            for name, value in each.items()
        }
        chunk, file = divmod(self._file, self._options.chunks_size)
        place = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        self._rows.append({**row, **flat, **place})
        if len(self._rows) == BATCH:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._rows:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        chunk, file = divmod(self._file, self._options.chunks_size)
        path = self._folder / f"chunk-{chunk:03d}" / f"file-{file:03d}.parquet"
        inferred = pa.Table.from_pylist(self._rows[:1]).schema
        place = inferred.get_field_index("success")
        schema = inferred.set(place, pa.field("success", pa.bool_()))
        if self._writer is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, schema, compression="snappy")
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=schema))
        self._rows = []
        if path.stat().st_size >= self._options.data_files_size_in_mb * MIB:
            self._writer.close()
            self._writer = None
            self._file += 1


def write_task_lines(folder: Path, tasks: Mapping[str, int]) -> None:
    """The tasks of v2.1, from text to number."""
    lines = [json.dumps({"task_index": number, "task": text}) for text, number in tasks.items()]
    (folder / TASKS_JSONL).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_task_table(folder: Path, tasks: Mapping[str, int]) -> None:
    """The tasks of v3.0: a table of pandas whose rows are named by the texts."""
    numpy_type = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    text_type = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    names = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    described = {
        "index_columns": [INDEX_COLUMN],
        "column_indexes": [{**names, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **numpy_type},
            {"name": None, "field_name": INDEX_COLUMN, **text_type},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    schema = pa.schema(
        [("task_index", pa.int64()), (INDEX_COLUMN, pa.string())],
        metadata={"pandas": json.dumps(described)},
    )
    columns = [pa.array(list(tasks.values()), pa.int64()), pa.array(list(tasks), pa.string())]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), folder / TASKS_PARQUET)


def write_info(folder: Path, info: Mapping[str, Any]) -> None:
    """info.json."""
    _write_json(folder / INFO_FILE, info)


def write_statistics(folder: Path, statistics: Mapping[str, Statistics]) -> None:
    """stats.json, of the whole dataset."""
    _write_json(folder / STATS_JSON, statistics)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False)
    path.write_text(text, encoding="utf-8")


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


PIXEL_FORMAT = "yuv420p"


class VideoWriter:
    """One video file that is being written.

    Attributes:
        path: the file.
        num_frames: frames given so far; the next one's time is num_frames / fps.
        num_bytes: of the frames encoded so far, which lag some behind those given.
    """

    def __init__(self, path: Path, camera: CameraSpec, fps: float, options: LeRobotOptions) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.num_frames = self.num_bytes = 0
        rate = Fraction(fps).limit_denominator(1001)
        self._time_base = 1 / rate
        # the encoder of AV1 reads this where it starts, and talks to the terminal without it
        os.environ.setdefault("SVT_LOG", "1")
        self._container = av.open(str(path), "w", format="mp4")
        stream = self._container.add_stream(
            ENCODERS[options.codec], rate=rate, options=_encoder_options(options)
        )
        assert isinstance(stream, VideoStream)  # ENCODERS names encoders of videos
        self._stream = stream
        self._stream.width, self._stream.height = camera.width, camera.height
        self._stream.pix_fmt = PIXEL_FORMAT

    def add(self, frame: npt.NDArray[np.uint8], *, is_first: bool) -> None:
        """Encode uint8[y, x, 3], RGB, as the next frame, a key frame if it is an episode's first.

        Without that, an episode could begin with a blend of the last frame of the one before.
        """
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = self.num_frames, self._time_base
        if is_first:
            picture.pict_type = PictureType.I
        self._mux(self._stream.encode(picture))
        self.num_frames += 1

    def close(self) -> None:
        """Encode what is left and finish the file."""
        self._mux(self._stream.encode(None))
        self._container.close()

    def abandon(self) -> None:
        """Close a file that will be deleted."""
        self._stream.encode(None)  # AV1's encoder complains of a stream without an end
        self._container.close()

    def _mux(self, packets: "list[Packet[VideoStream]]") -> None:
        self._container.mux(packets)
        self.num_bytes += sum(packet.size for packet in packets)


def video_info(camera: CameraSpec, fps: float, options: LeRobotOptions) -> dict[str, object]:
    """What info.json says about the videos of a camera."""
    return {
        "video.height": camera.height,
        "video.width": camera.width,
        "video.codec": options.codec,
        "video.pix_fmt": PIXEL_FORMAT,
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }


def _encoder_options(options: LeRobotOptions) -> dict[str, str]:
    threads = str(options.encoder_threads)
    common = {"g": str(options.keyframe_interval), "crf": str(options.crf)}
    match options.codec:
        case "av1":
            # LeRobot's preset 12 blurs every second frame in the SVT-AV1 of PyAV 18
            return {**common, "preset": "8", "svtav1-params": f"lp={threads}"}
        case "h264":
            return {**common, "threads": threads}
        case "hevc":
            return {
                **common,
                "x265-params": f"log-level=error:pools={threads}:open-gop=0:bframes=0",
            }
