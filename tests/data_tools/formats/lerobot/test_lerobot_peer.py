"""LeRobot itself reads what we write, and we read what it writes."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from data_tools.formats.lerobot import LeRobotOptions, open_lerobot, write_lerobot

PYTHON = Path.home() / ".cache/policy_ft/peers/lerobot/bin/python"
BENCHMARKS = Path(__file__).resolve().parents[4] / "benchmarks"
FEATURES = {"front": "observation.images.front", "wrist": "observation.images.wrist"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="run benchmarks/peers/lerobot.sh to make it"),
]


def ask_lerobot(tmp_path, requests):
    file = tmp_path / "requests.json"
    file.write_text(json.dumps(requests))
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
    command = [str(PYTHON), "-m", "peers.lerobot_data_child", str(file)]
    done = subprocess.run(
        command, cwd=BENCHMARKS, env=os.environ | offline, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def steps():
    """The arrays of three episodes by LeRobot's names; each frame has a colour of its own."""
    rng, arrays = np.random.default_rng(0), {}
    for episode, length in enumerate((6, 11, 4)):
        for step in range(length):
            frame = np.zeros((64, 96, 3), np.uint8)
            frame[..., 0] = np.linspace(10, 230, 96)
            frame[..., 1] = 20 + 20 * step
            frame[..., 2] = 70 * episode
            arrays[f"{episode}/{step}/observation.state"] = rng.normal(size=3).astype(np.float32)
            arrays[f"{episode}/{step}/action"] = rng.normal(size=2).astype(np.float32)
            arrays[f"{episode}/{step}/observation.images.front"] = frame
            arrays[f"{episode}/{step}/observation.images.wrist"] = frame[:, :64]
            arrays[f"{episode}/{step}/task"] = np.array(f"push block {episode % 2}")
    return arrays


def assert_same_steps(found, steps, max_mean_error):
    assert set(found) == set(steps)
    for name, value in steps.items():
        if value.ndim == 3:
            error = np.abs(found[name].astype(int) - value).mean()
            assert error <= max_mean_error, name  # a neighbour is 20 / 3 away in the mean
        else:
            np.testing.assert_array_equal(found[name], value)


def read_by_us(folder):
    dataset, arrays = open_lerobot(folder), {}
    for index in range(len(dataset)):
        episode = dataset[index]
        for step in range(episode.num_steps):
            place = f"{index}/{step}"
            arrays[f"{place}/observation.state"] = episode.state()[step]
            arrays[f"{place}/action"] = episode.actions()[step]
            arrays[f"{place}/task"] = np.array(episode.observation(step, ()).instruction)
            for camera, feature in FEATURES.items():
                arrays[f"{place}/{feature}"] = episode.image(camera, step)
    return arrays


def test_both_sides_read_what_the_other_writes(tmp_path, steps):
    np.savez(tmp_path / "steps.npz", **steps)
    common = {"frames": str(tmp_path / "steps.npz"), "fps": 10}
    folders = {mode: tmp_path / f"theirs_{mode}" for mode in ("image", "video")}
    ask_lerobot(
        tmp_path,
        [
            {"do": "write", "folder": str(folder), "mode": mode, **common}
            for mode, folder in folders.items()
        ],
    )
    assert_same_steps(read_by_us(folders["image"]), steps, 0)
    assert_same_steps(read_by_us(folders["video"]), steps, 2.5)

    theirs = open_lerobot(folders["image"])
    requests = []
    for images in ("png", "video"):
        ours = tmp_path / f"ours_{images}"
        episodes = (theirs[index] for index in range(len(theirs)))
        write_lerobot(ours, theirs.conventions, episodes, LeRobotOptions(images=images))
        out = str(tmp_path / f"{images}.npz")
        requests.append({"do": "read", "folder": str(ours), "frames": out})
    ask_lerobot(tmp_path, requests)
    for images, tolerance in (("png", 0), ("video", 2.5)):
        with np.load(tmp_path / f"{images}.npz") as found:
            assert_same_steps(dict(found), steps, tolerance)
