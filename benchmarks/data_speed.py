"""Random training samples a second from our stores and from the peers' loaders, in one run.

A sample is two 224 x 224 frames, the state and the next 50 actions, at a random step. The same
frames, of a moving scene seen by a noisy sensor, are written as raw pixels, Blosc, PNG and JPEG
into HDF5, and as video and images into LeRobot folders. Everything is measured in turn, round by
round; the table has medians. Rates are samples a second of CPU time, so that other programs on the
machine count little; those of the loader's workers are of the clock.

    benchmarks/peers/lerobot.sh
    python benchmarks/data_speed.py --json runs/data_speed.json

Needs robomimic beside the package (`pip install --no-deps robomimic termcolor`) and LeRobot in its
own environment; a peer that is missing is left out, and said so.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import simplejpeg
import torch
from repack_speed import CAMERAS, HORIZON, sample, write_slow
from torch.utils.data import DataLoader, Dataset

from data_tools import episode as vocabulary
from data_tools import open_dataset
from data_tools.rewrite.convert import convert
from data_tools.rewrite.repack import repack
from data_tools.storage.frames.images import pad_rows

LEROBOT = Path.home() / ".cache/policy_ft/peers/lerobot"
QUALITY = 95
Sampler = Callable[[np.random.Generator], object]


class Samples(Dataset[dict[str, torch.Tensor]]):
    """Samples of a dataset by number, as a loader's workers read them."""

    def __init__(self, episodes: vocabulary.Dataset) -> None:
        self.episodes = episodes
        self.num_steps = episodes[0].num_steps

    def __len__(self) -> int:
        return len(self.episodes) * self.num_steps

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        place, step = divmod(number, self.num_steps)
        episode = self.episodes[place]
        step = min(step, self.num_steps - HORIZON)
        observation = episode.observation(step, CAMERAS)
        arrays = {**observation.images, "state": observation.state}
        arrays["actions"] = episode.actions()[step : step + HORIZON].copy()
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def main() -> None:
    """Measure and print a table; --json keeps it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=6)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--side", type=int, default=224, help="frames are side x side pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each store in each round")
    parser.add_argument("--lerobot", type=Path, default=LEROBOT, help="made by peers/lerobot.sh")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_stores(folder, options.episodes, options.steps, options.side)
        samplers = {name: from_store(folder / f"{name}.hdf5") for name in STORES}
        samplers["lerobot video, read by us"] = from_store(folder / "lerobot_video")
        samplers["lerobot images, read by us"] = from_store(folder / "lerobot_png")
        samplers["bare decoder, 444"] = bare_decoder(folder / "jpeg_444.hdf5")
        samplers["bare decoder, 420"] = bare_decoder(folder / "jpeg_420.hdf5")
        samplers |= robomimic(folder / "robomimic.hdf5")
        rates: dict[str, list[float]] = {}
        for number in range(options.rounds):
            for name, draw in samplers.items():
                rate = cpu_rate(draw, number, options.seconds)
                rates.setdefault(name, []).append(rate)
            for name, rate in lerobot(folder, options.lerobot):
                rates.setdefault(name, []).append(rate)
            for workers in (1, 2):
                rate = loader_rate(folder / "jpeg_444.hdf5", workers, options.seconds)
                rates.setdefault(f"loader, {workers} workers", []).append(rate)
        sizes = {name: megabytes(folder / place) for name, place in PLACES.items()}
    report(rates, sizes, options.json)


STORES = ("raw", "blosc", "png", "jpeg_444", "jpeg_420")
PLACES = {name: f"{name}.hdf5" for name in STORES} | {
    "robomimic, 50 steps": "robomimic.hdf5",
    "lerobot video": "lerobot_video",
    "lerobot images": "lerobot_png",
}
RATIOS = (
    ("jpeg_444", "bare decoder, 444", 0.7),
    ("jpeg_420", "bare decoder, 420", 0.7),
    ("jpeg_444", "lerobot video", 7.0),
    ("jpeg_420", "lerobot video", 7.0),
    ("raw", "robomimic, 50 steps", 15.0),
    ("loader, 2 workers", "loader, 1 workers", 1.6),
)


def write_stores(folder: Path, episodes: int, steps: int, side: int) -> None:
    """The same frames in every store."""
    slow = folder / "slow.hdf5"
    write_slow(slow, episodes, steps, side, level=1)
    repack(slow, folder / "raw.hdf5", images="raw")
    repack(slow, folder / "blosc.hdf5", images="blosc")
    repack(slow, folder / "png.hdf5", images="png")
    repack(slow, folder / "jpeg_444.hdf5", images="jpeg", quality=QUALITY)
    write_420(folder / "raw.hdf5", folder / "jpeg_420.hdf5")
    dataset = open_dataset(folder / "raw.hdf5")
    convert(dataset, folder / "robomimic.hdf5", "robomimic")
    convert(dataset, folder / "lerobot_video", "lerobot-v3", images="video")
    convert(dataset, folder / "lerobot_png", "lerobot-v3", images="png")


def write_420(source: Path, target: Path) -> None:
    """A copy with the frames as JPEG of half the colour resolution, as cameras and ffmpeg write."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        new.create_group("data").attrs.update(old["data"].attrs)
        for name, demo in old["data"].items():
            copy = new.create_group(f"data/{name}")
            copy.attrs.update(demo.attrs)
            for place in ("actions", "obs/state"):
                copy[place] = demo[place][()]
            for camera in CAMERAS:
                frames = demo[f"obs/{camera}_image"][()]
                rows = pad_rows([simplejpeg.encode_jpeg(f, QUALITY, "RGB", "420") for f in frames])
                copy.create_dataset(f"obs/{camera}_image", data=rows, chunks=(1, rows.shape[1]))


def from_store(path: Path) -> Sampler:
    """Samples of our reader."""
    dataset = open_dataset(path)
    return lambda rng: sample(dataset, rng)


def bare_decoder(path: Path) -> Sampler:
    """Two frames from memory through the decoder, and nothing else."""
    dataset = open_dataset(path)
    frames = [
        dataset[index].jpeg(camera, step)
        for index in range(len(dataset))
        for step in range(0, dataset[index].num_steps, 4)
        for camera in CAMERAS
    ]

    def draw(rng: np.random.Generator) -> None:
        for _ in CAMERAS:
            simplejpeg.decode_jpeg(frames[int(rng.integers(len(frames)))], colorspace="RGB")

    return draw


def robomimic(path: Path) -> dict[str, Sampler]:
    """SequenceDataset of robomimic, which reads the frames of all steps of a sequence."""
    if importlib.util.find_spec("robomimic") is None:
        print("robomimic is not installed: left out")
        return {}
    from robomimic.utils import dataset, obs_utils

    keys = [f"{camera}_image" for camera in CAMERAS]
    with contextlib.redirect_stdout(io.StringIO()):
        obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"rgb": keys, "low_dim": ["state"]}})
        sequences = dataset.SequenceDataset(
            str(path),
            obs_keys=(*keys, "state"),
            dataset_keys=("actions",),
            seq_length=HORIZON,
            hdf5_cache_mode=None,
            hdf5_use_swmr=False,
            load_next_obs=False,
        )
    return {"robomimic, 50 steps": lambda rng: sequences[int(rng.integers(len(sequences)))]}


def lerobot(folder: Path, environment: Path) -> list[tuple[str, float]]:
    """LeRobot's own dataset over its video and its images, in its own environment."""
    if not (environment / "bin/python").exists():
        print(f"{environment}: no LeRobot (peers/lerobot.sh makes it): left out")
        return []
    places = {"lerobot video": ("lerobot_video", 150), "lerobot images": ("lerobot_png", 15)}
    requests = [
        {"do": "time", "folder": str(folder / place), "num_samples": count}
        for place, count in places.values()
    ]
    (folder / "requests.json").write_text(json.dumps(requests))
    done = subprocess.run(
        [environment / "bin/python", "-m", "peers.lerobot_data_child", folder / "requests.json"],
        cwd=Path(__file__).parent,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    print(", ".join(f"{name}: {a['decoder']}" for name, a in zip(places, answers, strict=True)))
    return [(n, a["samples_per_cpu_s"]) for n, a in zip(places, answers, strict=True)]


def cpu_rate(draw: Sampler, seed: int, seconds: float) -> float:
    """Samples a second of CPU time."""
    rng = np.random.default_rng(seed)
    for _ in range(3):
        draw(rng)
    count, start = 0, time.process_time()
    while count < 5 or time.process_time() - start < seconds:
        draw(rng)
        count += 1
    return count / (time.process_time() - start)


def loader_rate(path: Path, workers: int, seconds: float) -> float:
    """Samples a second of the clock from a DataLoader with so many workers."""
    samples = Samples(open_dataset(path))
    generator = torch.Generator().manual_seed(0)
    order = torch.randint(len(samples), (1 << 20,), generator=generator).tolist()
    loader = DataLoader(
        samples,
        sampler=order,
        batch_size=32,
        num_workers=workers,
        prefetch_factor=4,
        multiprocessing_context="forkserver",
    )
    batches = iter(loader)
    for _ in range(8 * workers):  # what was prefetched does not count
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < 2 * seconds:
        count += len(next(batches)["state"])
    return count / (time.perf_counter() - start)


def megabytes(path: Path) -> float:
    """Size of a file or of all files in a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files) / 1e6


def report(rates: dict[str, list[float]], sizes: dict[str, float], target: Path | None) -> None:
    """Print medians, and the ratios that are asked for; write them as JSON."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        size = f"{sizes[name]:8.1f} MB" if name in sizes else " " * 11
        print(f"{name:26} {size} {rate:10.1f} samples/s")
    ratios: list[dict[str, Any]] = [
        {"of": of, "to": to, "ratio": medians[of] / medians[to], "asked": asked}
        for of, to, asked in RATIOS
        if of in medians and to in medians
    ]
    for row in ratios:
        print(f"{row['of']} / {row['to']}: {row['ratio']:.2f} (asked {row['asked']})")
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        content = {"samples_per_s": medians, "all": rates, "megabytes": sizes, "ratios": ratios}
        target.write_text(json.dumps(content))


if __name__ == "__main__":
    main()
