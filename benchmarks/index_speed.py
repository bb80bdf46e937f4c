"""How long a dataset of 50,000 episodes takes to open, and how much memory, without and with index.

Writes files with everything but pixels and numbers: 50 files of 1,000 native episodes of 200 steps,
10 million frames, two cameras. A process of its own opens them each time; the first has no cache of
the index. Another one builds the windows and draws two epochs of shuffled order.

    python benchmarks/index_speed.py --json runs/index_speed.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data_tools import ActionSpec, CameraSpec, Conventions, StateSpec

CAMERAS = ("front", "wrist")
DIM = 14
SIDE = 224
BYTES_A_FRAME = 30_000

OPEN = """
import json, resource, sys, time
from data_tools import open_dataset
begun = time.perf_counter(), time.process_time()
dataset = open_dataset(sys.argv[1])
print(json.dumps({
    "episodes": len(dataset),
    "wall_s": time.perf_counter() - begun[0],
    "cpu_s": time.process_time() - begun[1],
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""
ORDER = """
import json, pickle, resource, sys, time
import numpy as np
from data_tools import open_dataset
from policy_ft.data.shuffle import sample_at
dataset = open_dataset(sys.argv[1])
begun = time.perf_counter()
frames = sum(dataset[index].num_steps for index in range(len(dataset)))
lengths_s = time.perf_counter() - begun
begun = time.perf_counter()
blob = pickle.dumps(dataset)
pickle.loads(blob)
pickle_s = time.perf_counter() - begun
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
begun = time.perf_counter()
sample_at(np.arange(frames - 32, frames + 32), frames, seed=0)
print(json.dumps({
    "frames": frames,
    "lengths_s": lengths_s,
    "pickled_mb": len(blob) / 1e6,
    "pickle_and_back_s": pickle_s,
    "two_epochs_order_s": time.perf_counter() - begun,
    "order_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before,
}))
"""


def main() -> None:
    """Measure and print; --json keeps it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--episodes", type=int, default=1000, help="in each file")
    parser.add_argument("--steps", type=int, default=200, help="of each episode")
    parser.add_argument("--folder", type=Path, help="where the files are kept for another run")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = options.folder or Path(scratch) / "data"
        if not data.exists():
            data.mkdir(parents=True)
            for number in range(options.files):
                path = data / f"part_{number}.hdf5"
                write_headers(path, options.episodes, options.steps)
        environment = os.environ | {"XDG_CACHE_HOME": f"{scratch}/cache"}
        rows = {
            name: in_process(code, data, environment)
            for name, code in (("cold", OPEN), ("cached", OPEN), ("order", ORDER))
        }
    for name, row in rows.items():
        print(f"{name:8}", *(f"{key} {value:,.3f}" for key, value in row.items()))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"options": str(options), "rows": rows}))


def in_process(code: str, data: Path, environment: dict[str, str]) -> dict[str, Any]:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, data], env=environment, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def write_headers(path: Path, episodes: int, steps: int) -> None:
    """A native file whose arrays are allocated and never written: holes in the file."""
    with h5py.File(path, "w") as file:
        root = file.create_group("data")
        root.attrs["schema_version"] = 1
        root.attrs["conventions"] = conventions(SIDE).model_dump_json()
        for number in range(episodes):
            demo = root.create_group(f"demo_{number}")
            demo.attrs["language_instruction"] = f"task {number % 40} of the kitchen"
            demo.attrs["num_samples"] = steps
            demo.attrs["fps"] = 50.0
            demo.attrs["success"] = True
            demo.attrs["attributes"] = json.dumps({"seed": number, "task": number % 40})
            allocated(demo, "actions", (steps, DIM))
            allocated(demo, "obs/state", (steps, DIM))
            for camera in CAMERAS:
                frames = demo.create_dataset(
                    f"obs/{camera}_image",
                    shape=(steps, BYTES_A_FRAME),
                    dtype=np.uint8,
                    chunks=(1, BYTES_A_FRAME),
                )
                frames.attrs["encoding"] = "jpeg"
                frames.attrs["color_order"] = "rgb"
                frames.attrs["orientation"] = "upright"
    # An index is kept of files that have not changed for a few seconds.
    os.utime(path, (time.time() - 60,) * 2)


def conventions(side: int) -> Conventions:
    """Two cameras and fourteen joints."""
    names = tuple(f"joint_{number}" for number in range(DIM))
    columns = {"names": names, "units": ("rad",) * DIM}
    return Conventions(
        cameras=tuple(CameraSpec(name=name, height=side, width=side) for name in CAMERAS),
        state=StateSpec(**columns),
        action=ActionSpec(
            **columns, references=("absolute",) * DIM, low=(-10.0,) * DIM, high=(10.0,) * DIM
        ),
        control_hz=50.0,
    )


def allocated(group: h5py.Group, name: str, shape: tuple[int, ...]) -> None:
    """A float32 dataset in one piece that has its place in the file, and no values yet."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space, kind = h5py.h5s.create_simple(shape), h5py.h5t.NATIVE_FLOAT
    h5py.h5d.create(group.id, name.encode(), kind, space, dcpl=plan, lcpl=links)


if __name__ == "__main__":
    main()
