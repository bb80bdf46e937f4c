"""Every configuration that starts from what ships builds what it says and takes a step.

Those that start from a published checkpoint are in checkpoints/test_recipes.py.
"""

from pathlib import Path

import pytest

from eval_envs.collect import collect
from policy_ft import assemble
from policy_ft.config.config_file import load_config

ROOT = Path(__file__).parents[2]
RECIPES = {*ROOT.glob("configs/pi*_*.yaml"), *ROOT.glob("configs/smolvla_*.yaml")}
CONFIGS = sorted({*ROOT.glob("configs/*.yaml")} - RECIPES)
SHORT = (
    "data.num_workers=0",
    "training.steps=1",
    "training.batch_size=2",
    "training.num_threads=1",
    "validation.num_windows=2",
)


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Path:
    """Three demonstrations of the embedded environment, whose cameras every configuration names."""
    path = tmp_path_factory.mktemp("demos") / "reach.hdf5"
    return collect(path, task="reach", num_episodes=3, seed=0)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_takes_a_step(path, demos, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    overrides = [*SHORT, f"data.path={demos}", "data.collect=off"]
    overrides.append(f"output_dir={tmp_path / 'run'}")
    if load_config(path).evaluation != "off":
        overrides += ["evaluation.episodes=1", "policy.model.num_sampling_steps=1"]
    config = load_config(path, overrides)
    assert assemble.check(config) == []
    result = assemble.train(config)
    assert result.last_checkpoint.name == "step_00000001"
