"""The mixtures that docs/mixtures.md shows train, and mean what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, GripperSpec, StateSpec
from data_tools.writer import EpisodeWriter
from eval_envs.collect import collect
from policy_ft.assemble import check, train
from policy_ft.config.config_file import load_config
from policy_ft.data.opening import in_one_convention, open_data
from policy_ft.formats.load import load_policy

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs/mixtures.md").read_text()
SHORT = (
    "training.steps=2",
    "training.batch_size=2",
    "training.num_threads=1",
    "optimizer.warmup_steps=1",
    "validation.num_windows=2",
    "data.num_workers=0",
)


def shown(number: int) -> dict[str, object]:
    """A data block of the guide."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    return yaml.safe_load(blocks[number])["data"]


def written(tmp_path: Path, recipe: str, data: object, *overrides: str):
    """The settings of a recipe with another data block."""
    values = yaml.safe_load((ROOT / recipe).read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**values, "data": data}))
    return load_config(
        tmp_path / "run.yaml", [*SHORT, f"output_dir={tmp_path / 'run'}", *overrides]
    )


def test_the_replay_that_is_shown_takes_the_place_of_the_data_of_the_quickstart(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    collect(Path("data/place.hdf5"), task="place", num_episodes=2, seed=0)
    collect(Path("data/old.hdf5"), task="reach+push+pick", num_episodes=3, seed=1)
    base = ROOT / "policy_ft/assets/tabletop_base"
    config = written(tmp_path, "configs/quickstart.yaml", shown(0), f"policy.path={base}")
    assert check(config) == []
    result = train(config)
    trained = load_policy(result.last_checkpoint)
    assert trained.transforms.statistics == load_policy(base).transforms.statistics
    told = [row for row in result.metrics if row["kind"] == "validation"][-1]
    assert told["loss"] == pytest.approx(0.8 * told["loss/new"] + 0.2 * told["loss/old"], rel=1e-6)


def robot(size: int, cameras: tuple[str, ...], state: dict[str, str], gripper: str, opens: float):
    """A robot whose action columns are its first two state columns and a gripper."""
    first = list(state)[:2]
    return Conventions(
        cameras=tuple(CameraSpec(name=name, height=size, width=size) for name in cameras),
        state=StateSpec(names=tuple(state), units=tuple(state.values()), frame="world"),
        action=ActionSpec(
            names=(*first, gripper),
            units=("m", "m", "1"),
            references=("absolute",) * 3,
            low=(-1, -1, -1),
            high=(1, 1, 1),
            grippers=(GripperSpec(column=gripper, open_value=opens, closed_value=-opens),),
        ),
        control_hz=10,
    )


def write(path: Path, conventions: Conventions, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    with EpisodeWriter(path, conventions) as writer:
        for _ in range(3):
            writer.add(
                images={
                    each.name: rng.integers(0, 256, (5, each.height, each.width, 3), dtype=np.uint8)
                    for each in conventions.cameras
                },
                state=rng.normal(size=(5, len(conventions.state.names))).astype(np.float32),
                actions=np.c_[rng.uniform(-1, 1, (5, 2)), np.ones(5)].astype(np.float32),
                instruction="close the drawer",
                success=True,
                attributes={},
            )


def test_the_mapping_that_is_shown_turns_their_robot_into_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = {"x": "m", "y": "m", "z": "m"}
    theirs = {"eef_x": "m", "eef_y": "m", "eef_z": "mm", "torso": "m"}
    write(Path("demos/own.hdf5"), robot(64, ("front", "wrist"), ours, "gripper", 1), 0)
    write(Path("demos/theirs.hdf5"), robot(96, ("agentview",), theirs, "grip", -1), 1)
    config = written(tmp_path, "configs/own_hdf5.yaml", shown(1))

    assert check(config) == []
    own, mapped = (
        source.episodes for source in in_one_convention(open_data(config.data, 0)).sources
    )
    recorded = open_data(config.data, 0).sources[1].episodes
    assert mapped.conventions.action == own.conventions.action
    np.testing.assert_allclose(
        mapped[0].state(), recorded[0].state()[:, :3] * [1, 1, 0.001], rtol=1e-6
    )
    np.testing.assert_array_equal(mapped[0].actions()[:, 2], -recorded[0].actions()[:, 2])
    assert mapped[0].image("front", 0).shape == (64, 64, 3)
    policy = load_policy(train(config).last_checkpoint)
    assert policy.provenance["data"]["theirs"]["share"] == 0.25
