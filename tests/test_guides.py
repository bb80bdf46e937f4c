"""The examples of the guides do what the guides say."""

import re
from pathlib import Path

import h5py
import numpy as np
import yaml

from data_tools.formats.mapping.mapping import map_columns
from data_tools.formats.reader import open_dataset
from policy_ft.assemble import check, train
from policy_ft.config.config_file import load_config
from policy_ft.config.starting_policy import PretrainedPolicy
from policy_ft.config.transforms import TransformsConfig
from policy_ft.formats.embodiments import PRESETS, Embodiment, load_embodiment
from policy_ft.formats.load import load_policy
from tests.policy_ft import point_world

ROOT = Path(__file__).resolve().parent.parent


def fenced(page: str, language: str) -> list[str]:
    """The text of every fence of this language in a page."""
    fence = rf"^```{language}\n(.*?)^```"
    return re.findall(fence, (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def write_robomimic_file(path: Path, num_steps: int) -> None:
    """One episode as robosuite records it: frames from the bottom row up, the state in parts."""
    rows = np.broadcast_to(np.arange(84, dtype=np.uint8)[:, None, None], (num_steps, 84, 84, 3))
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo.attrs["num_samples"] = num_steps
        demo["actions"] = np.linspace(-1, 1, num_steps)[:, None] * np.ones(7)
        for name, width in (
            ("robot0_eef_pos", 3),
            ("robot0_eef_quat", 4),
            ("robot0_gripper_qpos", 2),
        ):
            demo[f"obs/{name}"] = np.full((num_steps, width), width, np.float64)
        for name in ("agentview_image", "robot0_eye_in_hand_image"):
            demo[f"obs/{name}"] = rows


def test_the_declaration_shown_in_the_guide_opens_a_robomimic_file(tmp_path):
    declaration, *_ = fenced("docs/bring-your-own-hdf5.md", "yaml")
    write_robomimic_file(tmp_path / "lift.hdf5", num_steps=5)
    (tmp_path / "lift.hdf5.conventions.yaml").write_text(declaration)

    dataset = open_dataset(tmp_path / "lift.hdf5")

    assert len(dataset) == 1
    observation = dataset[0].observation(4, ["wrist"])
    assert observation.instruction == "lift the cube"
    assert observation.state.tolist() == [3, 3, 3, 4, 4, 4, 4, 2, 2]
    # The file's last row is the top of the upright image.
    assert observation.images["wrist"][:, 0, 0].tolist() == list(range(83, -1, -1))


def test_the_configurations_shown_in_the_guide_train_on_robomimic_files(tmp_path):
    declaration, continued, *_ = fenced("docs/bring-your-own-hdf5.md", "yaml")
    for number in range(2):
        write_robomimic_file(tmp_path / f"lift_{number}.hdf5", num_steps=4 + number)
    (tmp_path / "conventions.yaml").write_text(declaration)
    short = ("training.steps=2", "training.batch_size=2", "optimizer.warmup_steps=1")
    here = (*short, f"data.path={tmp_path}", "data.num_workers=0")
    first = load_config(ROOT / "configs/own_hdf5.yaml", [*here, f"output_dir={tmp_path / 'own'}"])

    assert check(first) == []
    checkpoint = train(first).best_checkpoint

    values = yaml.safe_load((ROOT / "configs/own_hdf5.yaml").read_text())
    (tmp_path / "continued.yaml").write_text(yaml.safe_dump(values | yaml.safe_load(continued)))
    places = (f"policy.path={checkpoint}", f"output_dir={tmp_path / 'continued'}")
    second = load_config(tmp_path / "continued.yaml", [*here, *places])
    assert check(second) == []
    policy = load_policy(train(second).last_checkpoint)
    observation = open_dataset(tmp_path)[0].observation(0, ["front", "wrist"])
    (chunk,) = policy.act([observation])
    assert chunk.shape == (16, 7)


def test_the_data_without_images_that_the_guide_shows_trains(tmp_path):
    *_, block, declaration = fenced("docs/bring-your-own-hdf5.md", "yaml")
    recipe = yaml.safe_load((ROOT / "configs/state_only.yaml").read_text())
    for part, values in yaml.safe_load(block)["policy"].items():
        assert part == "kind" or recipe["policy"][part].items() >= values.items()
    path = point_world.write_d4rl(tmp_path / "point.hdf5")
    (tmp_path / "point.hdf5.conventions.yaml").write_text(declaration)
    page = " ".join((ROOT / "docs/bring-your-own-hdf5.md").read_text().split())
    (command,) = re.findall(r"`policy-ft check configs/state_only.yaml ([^`]*)`", page)
    said = [word for word in command.split() if word != "--set"]
    said[0] = f"data.path={path}"
    short = ("training.steps=2", "training.batch_size=2", "optimizer.warmup_steps=1")
    config = load_config(
        ROOT / "configs/state_only.yaml",
        [*said, *short, f"output_dir={tmp_path / 'run'}", "data.num_workers=0"],
    )
    assert check(config) == []
    assert train(config).best_checkpoint.is_dir()


def test_the_embodiment_shown_in_the_guide_means_what_the_guide_says(tmp_path):
    """85 mm between the fingers is open, 0 for pi0; 0 mm is closed, 1; j3 counts the other way."""
    declaration, policy = fenced("docs/embodiments.md", "yaml")
    (tmp_path / "bench_arm.yaml").write_text(declaration)
    robot = load_embodiment(str(tmp_path / "bench_arm.yaml"))
    names = robot.conventions.state.names

    state = map_columns([0.1, 0.2, 0.3, 0, 0, 0, 85], robot.state_maps, names)
    np.testing.assert_allclose(state, [0.1, 0.2, -0.3, 0, 0, 0, 0], atol=1e-5)
    closed = map_columns([0, 0, 0, 0, 0, 0, 0], robot.action_maps, names)
    np.testing.assert_allclose(closed, [0, 0, 0, 0, 0, 0, 1])
    assert robot.conventions.action.high[5] == float("inf")
    assert TransformsConfig(**robot.transforms).camera_names == ("top", "wrist")
    block = PretrainedPolicy.model_validate(yaml.safe_load(policy)["policy"])
    assert block.embodiment == "bench_arm.yaml"


def test_the_guide_names_every_preset_and_every_field_of_an_embodiment():
    page = (ROOT / "docs/embodiments.md").read_text()
    for name in (*PRESETS, *Embodiment.model_fields):
        assert re.search(rf"(`|^){name}(`|:)", page, re.MULTILINE), name
