"""Every recipe for a published policy takes a step from a small checkpoint of its family."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_tools.conventions import Conventions
from data_tools.writer import EpisodeWriter
from policy_ft import assemble
from policy_ft.config.config_file import load_config
from policy_ft.formats.embodiments import load_embodiment
from policy_ft.formats.load import load_policy

ROOT = Path(__file__).parents[3]
FAMILIES = ("pi0", "pi05", "smolvla")
ROBOTS = ("libero", "aloha", "droid")
RECIPES = [f"{family}_{robot}" for family in FAMILIES for robot in ROBOTS]
ROWS, COLUMNS = 30, 40
SHORT = (
    "data.num_workers=0",
    "training.steps=1",
    "training.batch_size=2",
    "training.accumulation_steps=1",
    "training.num_threads=1",
    "training.precision=fp32",
    "validation.num_windows=1",
    "validation.num_noise=1",
    "validation.times=[0.5]",
)


def record(path: Path, conventions: Conventions) -> Path:
    """Two short episodes of a robot, its images small."""
    sizes = {"height": ROWS, "width": COLUMNS}
    cameras = tuple(camera.model_copy(update=sizes) for camera in conventions.cameras)
    small = conventions.model_copy(update={"cameras": cameras})
    rng = np.random.default_rng(0)
    with EpisodeWriter(path, small) as writer:
        for length in (4, 5):
            frames = (length, ROWS, COLUMNS, 3)
            writer.add(
                images={
                    name: rng.integers(0, 256, frames, dtype=np.uint8)
                    for name in small.camera_names
                },
                state=rng.random((length, len(small.state.names)), dtype=np.float32),
                actions=rng.random((length, len(small.action.names)), dtype=np.float32),
                instruction="open the drawer",
                success=True,
                attributes={},
            )
    return path


def test_there_is_a_recipe_for_every_policy_and_robot() -> None:
    found = [*ROOT.glob("configs/pi*_*.yaml"), *ROOT.glob("configs/smolvla_*.yaml")]
    assert sorted(path.stem for path in found) == sorted(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_takes_a_step(
    recipe: str,
    tmp_path: Path,
    openpi_directory: Callable[..., Path],
    lerobot_directory: Callable[..., Path],
    tokenizer_file: Path,
) -> None:
    family, robot = recipe.split("_")
    write = lerobot_directory if family == "smolvla" else openpi_directory
    checkpoint = write(tmp_path / "published", family)
    demos = record(tmp_path / "demos.hdf5", load_embodiment(robot).conventions)
    overrides = [
        *SHORT,
        f"policy.path={checkpoint}",
        f"data.path={demos}",
        f"output_dir={tmp_path / 'run'}",
    ]
    if family != "smolvla":
        overrides.append(f"policy.tokenizer={tokenizer_file}")
    config = load_config(ROOT / f"configs/{recipe}.yaml", overrides)

    assert assemble.check(config) == []
    trained = load_policy(assemble.train(config).last_checkpoint)

    assert trained.config.family == family
    assert trained.conventions.action == load_embodiment(robot).conventions.action
    assert trained.transforms.statistics.state.num_frames is not None
