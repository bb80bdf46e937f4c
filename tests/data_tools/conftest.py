"""A small dataset: two cameras of different size, three state and three action columns."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from data_tools.cli import main
from data_tools.conventions import ActionSpec, CameraSpec, Conventions, GripperSpec, StateSpec
from data_tools.writer import EpisodeWriter
from tests.data_tools.column_cases import LENGTHS, rising

MakeEpisode = Callable[..., dict[str, object]]


@pytest.fixture
def conventions() -> Conventions:
    return Conventions(
        cameras=(
            CameraSpec(name="front", height=32, width=48),
            CameraSpec(name="wrist", height=24, width=24),
        ),
        state=StateSpec(names=("x", "y", "opening"), units=("m", "m", "1")),
        action=ActionSpec(
            names=("dx", "dy", "gripper"),
            units=("1", "1", "1"),
            references=("delta", "delta", "absolute"),
            low=(-1.0, -1.0, -1.0),
            high=(1.0, 1.0, 1.0),
            grippers=(GripperSpec(column="gripper", open_value=-1.0, closed_value=1.0),),
        ),
        control_hz=10.0,
    )


@pytest.fixture
def make_episode() -> MakeEpisode:
    """The arguments of `EpisodeWriter.add` for an episode drawn from this seed."""

    def make(seed: int = 0, num_steps: int = 20, **changes: object) -> dict[str, object]:
        rng = np.random.default_rng(seed)
        # A gradient that moves: smooth, so that JPEG keeps it, and different at each step.
        ramp = np.linspace(40, 200, 48)[None, None, :, None]
        shift = np.arange(num_steps)[:, None, None, None]
        frames = np.broadcast_to(ramp + shift + seed % 13, (num_steps, 32, 48, 3)).astype(np.uint8)
        arguments: dict[str, object] = {
            "images": {"front": frames, "wrist": frames[:, :24, :24]},
            "state": (0.02 * rng.normal(size=(num_steps, 3))).astype(np.float32),
            "actions": rng.uniform(-1, 1, size=(num_steps, 3)).astype(np.float32),
            "instruction": "push the red block",
            "success": True,
            "attributes": {"seed": seed},
        }
        return arguments | changes

    return make


@pytest.fixture
def demos(tmp_path: Path, conventions: Conventions, make_episode: MakeEpisode) -> Path:
    """A file of 12 episodes of 20, 21, ... 31 steps."""
    path = tmp_path / "push.hdf5"
    with EpisodeWriter(path, conventions, source="a test") as writer:
        for seed in range(12):
            writer.add(**make_episode(seed, num_steps=20 + seed))
    return path


@pytest.fixture
def robot_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `robot-data` with these arguments; gives exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["robot-data", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def columned(tmp_path, conventions, make_episode):
    """A native file of three episodes, each with these columns."""

    def make(name="push.hdf5", **columns):
        path = tmp_path / name
        with EpisodeWriter(path, conventions) as writer:
            for index, length in enumerate(LENGTHS):
                own = {key: each[index] for key, each in columns.items()}
                writer.add(**make_episode(index, num_steps=length, columns=own))
        return path

    return make


@pytest.fixture
def bare(columned):
    """A file without columns, with numbers that a sidecar may name."""
    path = columned()
    with h5py.File(path, "r+") as file:
        for index, length in enumerate(LENGTHS):
            demo = file[f"data/demo_{index}"]
            demo["extra/quality"] = rising(length, index)
            demo["extra/twice"] = np.stack([rising(length), rising(length, 1)], axis=1)
            demo.attrs["score"] = 0.5 + index
            demo["judged"] = float(index)
    scores = {f"demo_{index}": 2.0 * index for index in range(3)}
    (path.parent / "scores.json").write_text(json.dumps(scores))
    return path
