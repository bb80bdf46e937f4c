"""LeRobot's own dataset class in an environment of its own: reads and writes folders for tests.

Started from the folder `benchmarks` as `python -m peers.lerobot_data_child REQUESTS`, a file of
JSON, a list of these:

    {"do": "read", "folder": "data", "frames": "out.npz"}    every step LeRobot reads, by feature
    {"do": "write", "folder": "data", "frames": "in.npz", "fps": 10, "mode": "image" | "video"}
    {"do": "time", "folder": "data", "num_samples": 200}     prints random samples per (CPU) second

The arrays of `frames` are named `<episode>/<step>/<feature>`, and of a step's task
`<episode>/<step>/task`. Frames are uint8[y, x, 3]. LeRobot 0.4.4's only decoder on a current
torchvision is torchcodec: where it does not load, video frames are decoded by the function below,
through PyAV, at the times LeRobot asks for.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

LIBRARIES = Path(av.__file__).parent.parent / "av.libs"
SEARCHED = os.environ.get("LD_LIBRARY_PATH", "")
if str(LIBRARIES) not in SEARCHED:
    # torchcodec finds FFmpeg there (see lerobot.sh), and the loader reads this only at the start
    os.execve(
        sys.executable,
        [sys.executable, "-m", "peers.lerobot_data_child", *sys.argv[1:]],
        os.environ | {"LD_LIBRARY_PATH": f"{LIBRARIES}:{SEARCHED}"},
    )

if not torch.version.cuda:
    # see lerobot_child.py: torchvision's wheel is built for CUDA
    schemas = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        schemas.define(schema)  # type: ignore[no-untyped-call]

from lerobot.datasets import lerobot_dataset  # type: ignore[import-not-found]  # noqa: E402

INDEX = {"timestamp", "frame_index", "episode_index", "index", "task_index"}


def decode_with_pyav(path: Any, times: list[float], tolerance_s: float, backend: str) -> Tensor:
    """float32[n, 3, y, x]: the frames nearest to these times, decoding the file from its start."""
    with av.open(str(path)) as container:
        decoded = [
            (frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]
    nearest = [min(decoded, key=lambda pair: abs(pair[0] - at)) for at in times]
    late = max(abs(pair[0] - at) for pair, at in zip(nearest, times, strict=True))
    assert late < tolerance_s, f"{path}: {late} s away; expected less than {tolerance_s} s"
    frames = np.stack([pixels for _, pixels in nearest])
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def open_folder(folder: str, **settings: Any) -> Any:
    """LeRobot's dataset over the folder."""
    return lerobot_dataset.LeRobotDataset("local/dataset", root=folder, **settings)


def read(folder: str, frames: str) -> None:
    """Every step as LeRobot delivers it, saved by name."""
    dataset = open_folder(folder)
    arrays: dict[str, Any] = {}
    for index in range(len(dataset)):
        step = dataset[index]
        place = f"{int(step['episode_index'])}/{int(step['frame_index'])}"
        arrays[f"{place}/task"] = np.array(step["task"])
        for name, value in step.items():
            if name in dataset.meta.camera_keys:
                pixels = (value * 255).round().to(torch.uint8)
                arrays[f"{place}/{name}"] = pixels.permute(1, 2, 0).numpy()
            elif isinstance(value, Tensor) and name not in INDEX:
                arrays[f"{place}/{name}"] = value.numpy()
    np.savez(frames, **arrays)


def write(folder: str, frames: str, fps: int, mode: str) -> None:
    """The steps of a file of arrays as LeRobot records them."""
    with np.load(frames) as arrays:
        steps: dict[tuple[int, int], dict[str, Any]] = {}
        for name in arrays.files:
            episode, step, feature = name.split("/")
            steps.setdefault((int(episode), int(step)), {})[feature] = arrays[name]
    features = {}
    for name, value in steps[0, 0].items():
        if name != "task":
            axes = ["height", "width", "channels"] if value.ndim == 3 else None
            dtype = mode if value.ndim == 3 else str(value.dtype)
            features[name] = {"dtype": dtype, "shape": value.shape, "names": axes}
    dataset = lerobot_dataset.LeRobotDataset.create(
        "local/dataset", fps, features, root=folder, use_videos=mode == "video"
    )
    places = sorted(steps)
    for place, following in zip(places, [*places[1:], None], strict=True):
        dataset.add_frame({**steps[place], "task": str(steps[place]["task"])})
        if following is None or following[0] != place[0]:
            dataset.save_episode(parallel_encoding=False)
    dataset.finalize()


def time_access(folder: str, num_samples: int) -> None:
    """Samples a second at random places, on one thread: images, state, 50 actions."""
    torch.set_num_threads(1)
    fps = json.loads((Path(folder) / "meta/info.json").read_text(encoding="utf-8"))["fps"]
    dataset = open_folder(folder, delta_timestamps={"action": [i / fps for i in range(50)]})
    places = np.random.default_rng(0).integers(len(dataset), size=num_samples + 10).tolist()
    for place in places[:10]:
        dataset[place]
    begun = time.perf_counter(), time.process_time()
    for place in places[10:]:
        dataset[place]
    rates = {
        "samples_per_s": num_samples / (time.perf_counter() - begun[0]),
        "samples_per_cpu_s": num_samples / (time.process_time() - begun[1]),
        "decoder": lerobot_dataset.get_safe_default_codec() if dataset.meta.video_keys else "png",
    }
    print(json.dumps(rates))


def main() -> None:
    """Do what the requests say, in order."""
    if lerobot_dataset.get_safe_default_codec() != "torchcodec":
        lerobot_dataset.decode_video_frames = decode_with_pyav
    works: dict[str, Callable[..., None]] = {"read": read, "write": write, "time": time_access}
    for request in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        works[request.pop("do")](**request)


if __name__ == "__main__":
    main()
