"""docs/ten-minutes.md is walked as it stands, from the files to the policy, in four layouts."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from data_tools.cli import main as robot_data_main
from data_tools.formats.reader import open_dataset
from policy_ft.cli import app as policy_ft_app
from tests.data_tools.fixtures import aloha, isaaclab, robomimic

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs/ten-minutes.md").read_text()
EPISODES, STEPS = 4, 48

# as in the tests of policy_ft: a second thread costs more than it brings on so small a model
torch.set_num_threads(1)


class Block(NamedTuple):
    """A fence of the guide, with the heading it stands under."""

    heading: str
    language: str
    text: str


class Done(NamedTuple):
    """What a command gave."""

    command: str
    code: int
    text: str


def blocks() -> list[Block]:
    found, heading = [], ""
    pattern = r"^#+ (?P<heading>[^\n]*)$|^```(?P<language>\w+)\n(?P<text>.*?)^```"
    for match in re.finditer(pattern, GUIDE, re.DOTALL | re.MULTILINE):
        heading = match["heading"] or heading
        if match["language"]:
            found.append(Block(heading, match["language"], match["text"]))
    return found


def settings_of(layout: str) -> list[Any]:
    """Cameras, their number, width of the state and of the actions, from the guide's table."""
    (row,) = re.findall(rf"^\| {layout} \|(.*)\|$", GUIDE, re.MULTILINE)
    return [yaml.safe_load(cell.strip(" `")) for cell in row.split("|")]


def to_and_fro(width: int, episode: int, reach: float = 0.2) -> np.ndarray:
    """float64[STEPS + 1, width]: smooth motions, another in each column and episode."""
    half_turn = np.linspace(0, np.pi, STEPS + 1)[:, None]
    column = np.arange(width)[None, :]
    return reach * np.sin(half_turn + column) * (1 + 0.1 * episode + 0.03 * column)


def closing(wide: float, shut: float) -> np.ndarray:
    """float64[STEPS + 1]: a gripper that closes from the middle on."""
    return np.interp(np.arange(STEPS + 1), [STEPS // 2, STEPS * 3 // 4], [wide, shut])


def film(episode: int, camera: int) -> np.ndarray:
    """uint8[STEPS, 24, 32, 3]: a block that moves over a shaded table."""
    y, x = np.mgrid[0:24, 0:32]
    table = np.stack([60 + 4 * y, 120 - 2 * x, 90 + 10 * camera + 0 * x], axis=-1)
    frames = np.repeat(table[None].astype(np.uint8), STEPS, axis=0)
    for step in range(STEPS):
        left, top = (step // 2 + 3 * episode) % 26, 4 + 3 * episode
        frames[step, top : top + 6, left : left + 6] = (230, 220, 40)
    return frames


def fill(group: h5py.Group, values: dict[str, Any]) -> None:
    """Put values into datasets that are there, so that their storage stays the layout's."""
    for name, value in values.items():
        group[name][...] = value


def arm_in_space(demo: h5py.Group, episode: int, names: list[str], scalar_first: bool) -> None:
    """A reach that closes a gripper: position, quaternion and fingers of these names, actions."""
    place, turn, fingers = (f"obs/{name}" for name in names)
    position, opening = to_and_fro(3, episode), closing(0.04, 0.0)
    angle = to_and_fro(1, episode, reach=0.8)
    axis = np.array([1, 2, 3]) / np.sqrt(14)
    sine = np.sin(angle / 2) * axis
    parts = (np.cos(angle / 2), sine) if scalar_first else (sine, np.cos(angle / 2))
    command = np.where(np.arange(STEPS) < STEPS // 2, -1, 1)
    moves = [np.diff(position, axis=0) * 40, np.diff(angle * axis, axis=0) * 10]
    fill(
        demo,
        {
            place: position[:-1] + np.array([0.3, 0.0, 0.5]),
            turn: np.hstack(parts)[:-1],
            fingers: np.column_stack([opening, -opening])[:-1],
            "actions": np.column_stack([*moves, command]),
        },
    )


def write_robomimic(folder: Path) -> None:
    robomimic.write(folder / "lift.hdf5", EPISODES, STEPS)
    with h5py.File(folder / "lift.hdf5", "r+") as file:
        for number in range(EPISODES):
            demo = file[f"data/demo_{number}"]
            names = ["robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"]
            arm_in_space(demo, number, names, scalar_first=False)
            views = ("agentview_image", "robot0_eye_in_hand_image")
            fill(demo, {f"obs/{name}": film(number, i) for i, name in enumerate(views)})
        file["data/demo_0/obs/robot0_eef_quat"][30:] *= -1  # the same rotations, written otherwise


def write_isaac(folder: Path) -> None:
    isaaclab.write(folder / "stack.hdf5", EPISODES, STEPS)
    with h5py.File(folder / "stack.hdf5", "r+") as file:
        for number in range(EPISODES):
            demo = file[f"data/demo_{number}"]
            arm_in_space(demo, number, ["eef_pos", "eef_quat", "gripper_pos"], scalar_first=True)
            demo["actions"][:, 6] *= -1  # Isaac Lab closes below 0, robosuite above
            joints = to_and_fro(12, number)[:-1, 3:]  # the first three are the hand's position
            fill(demo, {"obs/joint_pos": joints, "obs/table_cam": film(number, 0)})


def write_aloha(folder: Path) -> None:
    folder.rmdir()
    aloha.write(folder, EPISODES, STEPS)
    for number, path in enumerate(sorted(folder.iterdir())):
        joints = to_and_fro(14, number)
        joints[:, [6, 13]] = closing(1.0, 0.0)[:, None]
        with h5py.File(path, "r+") as file:
            fill(file, {"observations/qpos": joints[:-1], "action": joints[1:]})
            views = {name: film(number, i) for i, name in enumerate(aloha.CAMERAS)}
            fill(file, {f"observations/images/{name}": view for name, view in views.items()})


def write_own(folder: Path) -> None:
    for number in range(EPISODES):
        joints, jaw = to_and_fro(6, number), closing(80.0, 20.0)
        with h5py.File(folder / f"run_{number:03d}.h5", "w") as file:
            file.attrs["task"] = "put the bolt into the tray"
            file["robot/q"], file["robot/jaw_mm"] = joints[:-1], jaw[:-1]
            file["cmd"] = np.column_stack([joints[1:], closing(0.0, 1.0)[1:]])
            file["t_ns"] = np.arange(STEPS) * 66_666_667
            frames, chunk = film(number, 0)[..., ::-1], (16, 24, 32, 3)
            file.create_dataset("cam/top", data=frames, chunks=chunk, compression="gzip")


WRITERS: dict[str, Callable[[Path], None]] = {
    "robomimic": write_robomimic,
    "ALOHA": write_aloha,
    "Isaac Lab": write_isaac,
    "A layout of your own": write_own,
}
# What each set of files has that `validate` must find, and what --fix makes of it.
FOUND = {
    "robomimic": {"quaternion_flip"},
    "ALOHA": set(),
    "Isaac Lab": {"slow_chunks"},
    "A layout of your own": {"slow_chunks"},
}


@pytest.fixture
def run(monkeypatch, capsys, tmp_path) -> Callable[[str], Done]:
    """Runs one line of the guide in a folder with the repository's configurations."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "configs").symlink_to(ROOT / "configs")

    def run(line: str) -> Done:
        words = shlex.split(line)
        if words[0] == "cp":
            shutil.copy(*words[1:])
            return Done(line, 0, "")
        if words[0] == "policy-ft":
            result = CliRunner().invoke(policy_ft_app, words[1:])
            return Done(line, result.exit_code, result.output)
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as caught:
            robot_data_main()
        captured = capsys.readouterr()
        return Done(line, int(caught.value.code or 0), captured.out + captured.err)

    return run


def edited(layout: str) -> None:
    """Edit run.yaml as the guide's table says."""
    cameras, num_cameras, state_dim, action_dim = settings_of(layout)
    values = yaml.safe_load(Path("run.yaml").read_text())
    values["policy"]["transforms"]["cameras"] = cameras
    values["policy"]["model"] |= {
        "num_cameras": num_cameras,
        "state_dim": state_dim,
        "action_dim": action_dim,
    }
    Path("run.yaml").write_text(yaml.safe_dump(values))


def walk(layout: str, run: Callable[[str], Done]) -> list[tuple[Done, str]]:
    """Each command of the guide with the output that the guide shows for it, '' for none."""
    done: list[tuple[Done, str]] = []
    for block in blocks():
        if block.language == "yaml" and block.heading == layout:
            Path("demos/conventions.yaml").write_text(block.text)
        elif block.language == "text":
            done[-1] = (done[-1][0], block.text)
        elif block.language == "python":
            names: dict[str, Any] = {}
            exec(block.text, names)
            assert names["chunk"].shape == names["policy"].chunk_shape
            assert np.isfinite(names["chunk"]).all()
        elif block.language == "sh":
            for line in block.text.splitlines():
                done.append((run(line), ""))
                if line.startswith("cp "):
                    edited(layout)
    return done


def losses(metrics: Path) -> list[float]:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]


def plain(text: str) -> str:
    """Without borders and line ends."""
    return " ".join(re.sub(r"[\u2500-\u257f]", " ", text).split())


def without_numbers(text: str) -> str:
    """The text with 0 for each number: those of training differ between machines."""
    return re.sub(r"\d+(\.\d+)*", "0", plain(text))


def require_shown(done: list[tuple[Done, str]]) -> None:
    """The outputs that the guide shows, which are of the robomimic file, were printed."""
    shown = [(each, text) for each, text in done if text]
    assert len(shown) == 5
    for each, text in shown:
        seen = without_numbers if each.command.startswith("policy-ft train") else plain
        for piece in text.split("...\n"):
            assert seen(piece) in seen(each.text), each.command


@pytest.mark.slow
@pytest.mark.parametrize("layout", WRITERS)
def test_the_guide_leads_from_files_to_a_policy(layout, run, tmp_path):
    (tmp_path / "demos").mkdir()
    WRITERS[layout](tmp_path / "demos")
    done = walk(layout, run)
    if layout == "robomimic":
        require_shown(done)
    told = {each.command: each for each, _ in done}
    assert len(told) == len(done) == 13

    inspected, drafted, declared, checked, fixed, *others = (each for each, _ in done)
    assert drafted.code == 0
    assert "wrote demos/conventions.yaml: fill in " in drafted.text
    assert inspected.code == (2 if layout == "A layout of your own" else 0)
    assert "conventions.yaml" in inspected.text
    summary = json.loads(declared.text)
    assert (declared.code, summary["undeclared"]) == (0, [])
    assert summary["episodes"] == EPISODES
    cameras, _, state_dim, action_dim = settings_of(layout)
    assert [name.split(" ")[0] for name in summary["cameras"]] == cameras
    assert (summary["state_dim"], summary["action_dim"]) == (state_dim, action_dim)

    assert checked.code == fixed.code == bool(FOUND[layout])
    assert set(re.findall(r"(?:warning|error) \[(\w+)\]", checked.text)) == FOUND[layout]
    assert Path("report.html").stat().st_size > 1000
    assert Path("fixed.hdf5").exists() == bool(FOUND[layout])
    if FOUND[layout]:
        assert run("robot-data validate fixed.hdf5").code == 0

    assert {each.command: each.code for each in others if each.code} == {}
    for name in ("index.html", "declaration.png", "contact.png", "plots.png"):
        assert Path("look", name).stat().st_size > 1000
    assert ("repack" in told["robot-data bench demos/ --seconds 0.5"].text) == (
        "slow_chunks" in FOUND[layout]
    )
    assert open_dataset("fast")[0].instruction == open_dataset("demos")[0].instruction
    assert told["policy-ft check run.yaml"].text.endswith("run.yaml: ready to train\n")
    first, last = losses(Path("runs/rehearsal/metrics.jsonl"))
    assert last < first


def test_the_guide_declares_every_layout_it_names(run, tmp_path):
    declared = {block.heading: block.text for block in blocks() if block.language == "yaml"}
    assert declared.keys() == WRITERS.keys()
    for layout, text in declared.items():
        folder = tmp_path / layout
        folder.mkdir()
        WRITERS[layout](folder)
        (folder / "conventions.yaml").write_text(text)
        dataset = open_dataset(folder)
        cameras, num_cameras, state_dim, action_dim = settings_of(layout)
        assert (len(dataset), dataset.inspected.undeclared) == (EPISODES, ())
        assert list(dataset.conventions.camera_names) == cameras
        assert len(cameras) == num_cameras
        assert dataset[1].state().shape == (STEPS, state_dim)
        assert dataset[1].actions().shape == (STEPS, action_dim)
    own = open_dataset(tmp_path / "A layout of your own")[2]
    np.testing.assert_array_equal(own.image("top", 7), film(2, 0)[7])
    np.testing.assert_allclose(own.state()[:, 6], closing(0.08, 0.02)[:-1], rtol=1e-6)
