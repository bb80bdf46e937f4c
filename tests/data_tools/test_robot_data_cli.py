import json
import subprocess
import sys

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
    code, out, _ = robot_data("inspect", demos)
    assert code == 0
    assert "push the red block" in out


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
