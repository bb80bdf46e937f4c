"""Memory and open files of a data worker over ten epochs of 2,000 files, opened in turn.

Writes files of one episode, opens them as one dataset, and reads in one process a sample of every
file, in another order each epoch: two frames, the state and 50 actions. Prints resident memory and
open files after each epoch.

    python benchmarks/data_memory.py --json runs/data_memory.json
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from index_speed import CAMERAS, DIM, conventions

from data_tools import open_dataset
from data_tools.storage.frames.images import encode_frames

HORIZON = 50
SIDE = 224


def main() -> None:
    """Measure and print; --json keeps it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--store", choices=("jpeg", "raw", "gzip"), default="jpeg")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.files):
            write(Path(folder) / f"demo_{number}.hdf5", options.steps, options.store)
        rows = [{"epoch": 0, "megabytes": resident_mb(), "open_files": open_files()}]
        dataset = open_dataset(folder)
        rng = np.random.default_rng(0)
        for epoch in range(1, options.epochs + 1):
            start = time.process_time()
            for index in rng.permutation(len(dataset)).tolist():
                episode = dataset[index]
                step = int(rng.integers(episode.num_steps - HORIZON))
                episode.observation(step, CAMERAS)
                np.array(episode.actions()[step : step + HORIZON])
            row = {"epoch": epoch, "megabytes": resident_mb(), "open_files": open_files()}
            rows.append(row | {"samples_per_cpu_s": len(dataset) / (time.process_time() - start)})
            print(*(f"{key} {value:,.1f}" for key, value in rows[-1].items()))
    print(f"from epoch 2 on: {rows[-1]['megabytes'] - rows[2]['megabytes']:+.1f} MB")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"options": str(options), "rows": rows}))


def write(path: Path, steps: int, store: str) -> None:
    """A native file of one episode; its frames are all alike, which the reader cannot know."""
    rng = np.random.default_rng(0)
    kinds = {"raw": {}, "gzip": {"compression": "gzip", "compression_opts": 1}}
    with h5py.File(path, "w") as file:
        root = file.create_group("data")
        root.attrs["schema_version"] = 1
        root.attrs["conventions"] = conventions(SIDE).model_dump_json()
        demo = root.create_group("demo_0")
        demo.attrs["language_instruction"] = "put the cup on the plate"
        demo["actions"] = rng.normal(size=(steps, DIM)).astype(np.float32)
        demo["obs/state"] = rng.normal(size=(steps, DIM)).astype(np.float32)
        for camera in CAMERAS:
            ramp = np.broadcast_to(np.arange(SIDE, dtype=np.uint8)[:, None, None], (SIDE, SIDE, 3))
            frames = np.stack([ramp] * steps)
            if store == "jpeg":
                rows = encode_frames(frames[:1], 95)
                frames = np.broadcast_to(rows, (steps, rows.shape[1]))
            demo.create_dataset(
                f"obs/{camera}_image",
                data=frames,
                chunks=(1, *frames.shape[1:]),
                **kinds.get(store, {}),
            )


def resident_mb() -> float:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


if __name__ == "__main__":
    main()
