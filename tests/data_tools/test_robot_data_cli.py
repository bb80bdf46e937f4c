import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from data_tools.cli import main
from data_tools.reader import open_dataset
from data_tools.stats import NormalizationStats, dataset_stats
from tests.data_tools.fixtures import libero, libero_no_noops


@pytest.fixture
def robot_data(monkeypatch, capsys):
    """Runs `robot-data` with these arguments; gives exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["robot-data", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


def test_inspect_tells_what_a_file_holds(robot_data, demos):
    code, out, _ = robot_data("inspect", demos, "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["layout"], told["episodes"], told["frames"]) == (["native"], 12, 306)
    assert (told["state_dim"], told["action_dim"], told["duration_s"]) == (3, 3, 30.6)
    assert told["cameras"] == ["front 48 x 32", "wrist 24 x 24"]
    assert told["instructions"] == [{"text": "push the red block", "episodes": 12}]
    assert told["fingerprint"] == open_dataset(demos).fingerprint
    assert told["conventions"]["control_hz"] == 10.0
    assert told["warnings"] == []
    assert (told["successes"], told["judged"], told["files"]) == (12, 12, 1)
    assert told["megabytes"] == pytest.approx(demos.stat().st_size / 1e6)
    assert told["tree"][:3] == [
        "data/",
        "  demo_0/  (and 11 more to demo_11)",
        "    actions  float32[20, 3], 240 bytes",
    ]
    code, out, _ = robot_data("inspect", demos)
    assert code == 0
    assert "  push the red block (12)\n" in out
    assert "12 of 12 judged" in out


def test_the_outline_of_a_file_is_finite_and_stays_in_it(robot_data, demos):
    with h5py.File(demos, "r+") as file:
        file["data/demo_0/again"] = file["data"]
        file["data/demo_0/elsewhere"] = h5py.ExternalLink("other.hdf5", "/data")
        file["data/demo_0/soft"] = h5py.SoftLink("/data/demo_1")
        file["notes"] = "kept by hand"
    told = json.loads(robot_data("inspect", demos, "--json")[1])["tree"]
    at = told.index("    again/")
    assert told[at + 1] == "      ..."
    assert "    elsewhere  in another file, not followed" in told
    assert "    soft -> /data/demo_1" in told
    assert any(line.startswith("notes  text[], ") for line in told)


def test_a_filter_key_and_a_layout_choose_what_every_command_sees(robot_data, demos, tmp_path):
    path, new = demos, tmp_path / "one.hdf5"
    with h5py.File(path, "r+") as file:
        file["mask/short"] = np.array(["demo_1"], dtype="S")
    for command in ("inspect", "validate", "stats"):
        code, _, err = robot_data(command, path, "--mask", "shrot")
        assert (code, "mean 'short'" in err) == (2, True)
        code, _, err = robot_data(command, path, "--layout", "droit")
        assert (code, "mean 'droid'" in err) == (2, True)
    chosen = json.loads(robot_data("inspect", path, "--mask", "short", "--json")[1])
    assert chosen["episodes"] == 1
    code, _, err = robot_data("convert", path, new, "--to", "native", "--mask", "short")
    assert (code, len(open_dataset(new))) == (0, 1), err
    code, _, err = robot_data("stats", path, "--layout", "aloha")
    assert (code, "/observations" in err or "action" in err) == (2, True)


def test_stats_prints_every_column_and_the_exact_numbers_as_json(robot_data, demos):
    code, out, _ = robot_data("stats", demos, "--json")
    told = json.loads(out)
    stats = dataset_stats(open_dataset(demos))
    assert code == 0
    assert NormalizationStats.model_validate(told["actions"]) == stats["actions"]
    assert NormalizationStats.model_validate(told["state"]) == stats["state"]
    assert "opening" in robot_data("stats", demos)[1]


@pytest.mark.parametrize("command", ["inspect", "validate", "stats"])
def test_an_unreadable_file_ends_with_2_and_one_sentence(robot_data, tmp_path, command):
    (tmp_path / "empty.hdf5").touch()
    code, out, err = robot_data(command, tmp_path / "empty.hdf5")
    assert (code, out) == (2, "")
    assert "empty file" in err
    assert "record it again" in err


def test_data_tools_loads_neither_torch_nor_the_policy():
    code = (
        "import sys, data_tools.cli; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'policy_ft', 'eval_envs')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_inspect_lists_what_a_person_must_declare_and_the_lines_to_write(robot_data, tmp_path):
    path = libero_no_noops.write(tmp_path / "demos.hdf5")
    code, out, _ = robot_data("inspect", path, "--json")
    told = json.loads(out)
    assert (code, told["layout"], told["episodes"]) == (0, ["libero_no_noops"], 2)
    assert "has data/*/obs/agentview_rgb" in told["evidence"]
    assert 'cameras:\n  - {name: "*", orientation: <upright' in told["undeclared"][0]
    assert told["conventions"]["cameras"][0]["orientation"] == "unknown"
    assert told["instructions"] == [{"text": libero_no_noops.TASK, "episodes": 2}]
    code, _, err = robot_data("stats", path)
    assert (code, "a declaration of each" in err) == (2, True)


def test_inspect_says_what_was_done_to_rows(robot_data, tmp_path):
    _, out, _ = robot_data("inspect", libero.write(tmp_path / "demos.hdf5"), "--json")
    (rule,) = json.loads(out)["rules"]
    assert "row t is paired with the action in row t + 1" in rule
