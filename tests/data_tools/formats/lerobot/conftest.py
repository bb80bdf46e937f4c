"""LeRobot folders of both versions, made by hand in the shape LeRobot writes them."""

import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

LENGTHS = (7, 5, 9)
FPS = 10
SIZE = (48, 64)
FEATURE = "observation.images.front"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

MakeFolder = Callable[..., Path]


def frame_of(episode: int, step: int) -> np.ndarray:
    """uint8[48, 64, 3]: every frame of the dataset has a colour of its own, plus a gradient."""
    frame = np.zeros((*SIZE, 3), np.uint8)
    frame[..., 0] = 20 + 25 * step
    frame[..., 1] = 20 + 80 * episode
    frame[..., 2] = np.linspace(0, 200, SIZE[1]).astype(np.uint8)
    return frame


def numbers_of(episode: int) -> tuple[np.ndarray, np.ndarray]:
    """float32[t, 3] and float32[t, 2]: state and actions."""
    rng = np.random.default_rng(episode)
    length = LENGTHS[episode]
    state = rng.normal(size=(length, 3)).astype(np.float32)
    return state, rng.normal(size=(length, 2)).astype(np.float32)


def task_of(episode: int) -> int:
    return episode % 2


def png(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, format="PNG")
    return stream.getvalue()


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    """h264 with B-frames and a key frame every 8: finding a frame needs decoding others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"g": "8", "bf": "2", "crf": "12", "threads": "1", "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def table_of(episodes: list[int], mode: str) -> pa.Table:
    """The rows of these episodes, in the schema of LeRobot's writer."""
    parts = []
    for episode in episodes:
        state, actions = numbers_of(episode)
        steps, first = np.arange(LENGTHS[episode]), sum(LENGTHS[:episode])
        columns = {
            "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(state.ravel()), 3),
            "action": pa.FixedSizeListArray.from_arrays(pa.array(actions.ravel()), 2),
            "timestamp": pa.array((steps / FPS).astype(np.float32)),
            "frame_index": pa.array(steps),
            "episode_index": pa.array(np.full(len(steps), episode)),
            "index": pa.array(first + steps),
            "task_index": pa.array(np.full(len(steps), task_of(episode))),
        }
        if mode == "image":
            images = [{"bytes": png(frame_of(episode, t)), "path": f"{t}.png"} for t in steps]
            columns[FEATURE] = pa.array(images, IMAGE)
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def info_of(version: str, mode: str) -> dict[str, object]:
    features: dict[str, object] = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": ["x", "y", "opening"]},
        "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["dx", "gripper"]}},
        FEATURE: {"dtype": mode, "shape": [*SIZE, 3], "names": ["height", "width", "channels"]},
    }
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        kind = "float32" if name == "timestamp" else "int64"
        features[name] = {"dtype": kind, "shape": [1], "names": None}
    data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    if version == "v3.0":
        data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    return {
        "codebase_version": version,
        "robot_type": "testbot",
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        "total_tasks": 2,
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{len(LENGTHS)}"},
        "data_path": data,
        "video_path": video if mode == "video" else None,
        "features": features,
    }


def write_v21(folder: Path, mode: str) -> None:
    """A Parquet file and a video an episode; indices in lines of JSON."""
    for episode, length in enumerate(LENGTHS):
        data = folder / f"data/chunk-000/episode_{episode:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table_of([episode], mode), data)
        if mode == "video":
            video = folder / f"videos/chunk-000/{FEATURE}/episode_{episode:06d}.mp4"
            write_video(video, [frame_of(episode, step) for step in range(length)])
    rows = [
        {"episode_index": i, "tasks": [f"task {task_of(i)}"], "length": length, "operator": "Ann"}
        for i, length in enumerate(LENGTHS)
    ]
    tasks = [{"task_index": i, "task": f"task {i}"} for i in range(2)]
    for name, lines in (("episodes", rows), ("tasks", tasks)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"meta/{name}.jsonl").write_text(text)


def write_v30(folder: Path, mode: str) -> None:
    """Two Parquet files, the first with two episodes; one video of all; indices in Parquet."""
    for file, episodes in enumerate(([0, 1], [2])):
        data = folder / f"data/chunk-000/file-{file:03d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table_of(episodes, mode), data, row_group_size=LENGTHS[0])
    rows = []
    for i, length in enumerate(LENGTHS):
        first = sum(LENGTHS[:i])
        row = {
            "episode_index": i,
            "tasks": [f"task {task_of(i)}"],
            "length": length,
            "data/chunk_index": 0,
            "data/file_index": i // 2,
            "dataset_from_index": first,
            "dataset_to_index": first + length,
            "stats/action/min": [0.0, 0.0],
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            "operator": "Ann",
        }
        if mode == "video":
            row |= {f"videos/{FEATURE}/{part}": 0 for part in ("chunk_index", "file_index")}
            row[f"videos/{FEATURE}/from_timestamp"] = first / FPS
            row[f"videos/{FEATURE}/to_timestamp"] = (first + length) / FPS
        rows.append(row)
    index = folder / "meta/episodes/chunk-000/file-000.parquet"
    index.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), index)
    tasks = pa.table({"task_index": [0, 1], "__index_level_0__": ["task 0", "task 1"]})
    pq.write_table(tasks, folder / "meta/tasks.parquet")
    if mode == "video":
        frames = [frame_of(i, t) for i, length in enumerate(LENGTHS) for t in range(length)]
        write_video(folder / f"videos/{FEATURE}/chunk-000/file-000.mp4", frames)


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """A LeRobot folder of this version, with its images in Parquet or as video."""

    def make(version: str = "v3.0", mode: str = "image", name: str = "pick") -> Path:
        folder = tmp_path / name
        (folder / "meta").mkdir(parents=True)
        (folder / "meta/info.json").write_text(json.dumps(info_of(version, mode)))
        {"v2.1": write_v21, "v3.0": write_v30}[version](folder, mode)
        return folder

    return make


@pytest.fixture
def true_frame() -> Callable[[int, int], np.ndarray]:
    return frame_of


@pytest.fixture
def true_numbers() -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    return numbers_of
