"""How much faster random training samples come from a file after `robot-data repack`.

Writes a robomimic-shaped file with the frames gzipped in chunks of 100, as `compress` scripts and
appending recorders leave them, repacks it in every way, and measures from each the samples a policy
is trained on: two cameras, the state, and 50 actions. One thread, everything in the page cache.

    python benchmarks/repack_speed.py --json runs/repack_speed.json
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import numpy.typing as npt

from data_tools import ActionSpec, CameraSpec, Conventions, StateSpec, open_dataset
from data_tools.episode import Dataset
from data_tools.rewrite.frame_storage import Storage
from data_tools.rewrite.repack import repack

CAMERAS = ("front", "wrist")
DIM = 14
HORIZON = 50
SENSOR_NOISE = 4.0  # standard deviation in levels: what a camera's sensor adds in a room
STORAGES: tuple[Storage, ...] = get_args(Storage)


def main() -> None:
    """Measure and print a table; --json keeps it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--side", type=int, default=224, help="frames are side x side pixels")
    parser.add_argument("--gzip", type=int, default=4, help="compression level of the slow file")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured from each file")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slow = Path(folder) / "slow.hdf5"
        write_slow(slow, options.episodes, options.steps, options.side, options.gzip)
        rows = [measured("gzip, 100 frames a chunk", slow, options.seconds)]
        for storage in STORAGES:
            start = time.perf_counter()
            fast = Path(folder) / f"{storage}.hdf5"
            repacked = repack(slow, fast, images=storage)
            took = time.perf_counter() - start
            frames = repacked.before.frames_per_s, repacked.after.frames_per_s
            row = measured(f"repacked, {storage}", fast, options.seconds)
            rows.append(row | {"repack_s": took, "frames_per_s_before_after": frames})
    baseline = rows[0]["samples_per_s"]
    for row in rows:
        row["speedup"] = row["samples_per_s"] / baseline
        print(
            f"{row['store']:26} {row['megabytes']:8.1f} MB {row['samples_per_s']:9.1f} samples/s "
            f"{row['speedup']:7.1f} times"
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps({"options": vars(options) | {"json": None}, "rows": rows})
        )


def measured(store: str, path: Path, seconds: float) -> dict[str, Any]:
    """Size of a file and random training samples a second from it."""
    dataset = open_dataset(path)
    rng = np.random.default_rng(0)
    sample(dataset, rng)  # open the file and read its numbers
    count, start = 0, time.perf_counter()
    while count < 10 or time.perf_counter() - start < seconds:
        sample(dataset, rng)
        count += 1
    rate = count / (time.perf_counter() - start)
    return {"store": store, "megabytes": path.stat().st_size / 1e6, "samples_per_s": rate}


def sample(dataset: Dataset, rng: np.random.Generator) -> None:
    """Read what one training sample needs, anywhere in the dataset."""
    episode = dataset[int(rng.integers(len(dataset)))]
    step = int(rng.integers(episode.num_steps - HORIZON))
    observation = episode.observation(step, CAMERAS)
    chunk = episode.actions()[step : step + HORIZON]
    assert len(observation.images) == len(CAMERAS)
    assert chunk.shape == (HORIZON, DIM)


def write_slow(path: Path, episodes: int, steps: int, side: int, level: int) -> None:
    """A file as slow as labs have them, with a declaration of ours so that it can be read."""
    names = tuple(f"joint_{number}" for number in range(DIM))
    conventions = Conventions(
        cameras=tuple(CameraSpec(name=name, height=side, width=side) for name in CAMERAS),
        state=StateSpec(names=names, units=("rad",) * DIM),
        action=ActionSpec(
            names=names,
            units=("rad",) * DIM,
            references=("absolute",) * DIM,
            low=(-10.0,) * DIM,
            high=(10.0,) * DIM,
        ),
        control_hz=50.0,
    )
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        root = file.create_group("data")
        root.attrs["schema_version"] = 1
        root.attrs["conventions"] = conventions.model_dump_json()
        for number in range(episodes):
            demo = root.create_group(f"demo_{number}")
            demo.attrs["language_instruction"] = "put the cup on the plate"
            numbers = rng.normal(size=(steps, DIM))
            demo.create_dataset("actions", data=numbers, compression="gzip")
            demo.create_dataset("obs/state", data=numbers, compression="gzip")
            for camera in CAMERAS:
                demo.create_dataset(
                    f"obs/{camera}_image",
                    data=scene(rng, steps, side),
                    chunks=(100, side, side, 3),
                    compression="gzip",
                    compression_opts=level,
                )


def scene(rng: np.random.Generator, steps: int, side: int) -> npt.NDArray[np.uint8]:
    """uint8[t, y, x, 3]: blocks on a shaded table, moving, seen by a noisy sensor."""
    y, x = np.mgrid[0:side, 0:side] / side
    table = np.stack([90 + 60 * x, 110 + 40 * y, 80 + 30 * x * y], axis=-1)
    frames = np.empty((steps, side, side, 3), dtype=np.uint8)
    corners, colors = rng.uniform(0.1, 0.8, (6, 2)), rng.uniform(0, 255, (6, 3))
    speeds = rng.normal(0, 0.002, (6, 2))
    for step in range(steps):
        frame = table + rng.normal(0, SENSOR_NOISE, table.shape)
        for corner, color, speed in zip(corners, colors, speeds, strict=True):
            top, left = ((corner + speed * step) % 0.85 * side).astype(int)
            frame[top : top + side // 10, left : left + side // 10] = color
        frames[step] = frame.clip(0, 255)
    return frames


if __name__ == "__main__":
    main()
