import json
import math
import subprocess
import sys

import h5py
import numpy as np
import pytest
import yaml

from data_tools.formats.reader import open_dataset
from data_tools.stats import NormalizationStats, dataset_stats
from tests.data_tools.fixtures import libero, libero_no_noops


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
        "data/, attributes: conventions, schema_version, total",
        "  demo_0/ (and 11 more to demo_11), attributes: "
        "attributes, fps, language_instruction, num_samples, source, success",
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
    at = next(i for i, line in enumerate(told) if line.startswith("    again/"))
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


def test_infinite_limits_are_words_in_json(robot_data, tmp_path, demos):
    sidecar = yaml.safe_load(open_dataset(demos).conventions.model_dump_json())
    sidecar["action"] |= {"low": [-math.inf] * 3, "high": [math.inf] * 3}
    (tmp_path / f"{demos.name}.conventions.yaml").write_text(yaml.safe_dump(sidecar))
    _, out, _ = robot_data("inspect", demos, "--json")

    def no_number(name):
        raise AssertionError(f"{name} is no JSON")

    told = json.loads(out, parse_constant=no_number)
    assert told["conventions"]["action"]["high"] == ["Infinity"] * 3


@pytest.mark.parametrize("name", ["demos.hdf5", "notes.txt", "folder", "report.html"])
def test_a_report_is_written_over_nothing_but_a_page_that_may_be_replaced(
    robot_data, demos, tmp_path, name
):
    (tmp_path / "notes.txt").write_text("by hand")
    (tmp_path / "folder").mkdir()
    (tmp_path / "report.html").write_text("by hand")
    before = demos.read_bytes()
    code, _, err = robot_data("validate", demos, "--html", tmp_path / name)
    assert (code, "Choose another name" in err or "Name a page" in err) == (2, True)
    assert demos.read_bytes() == before
    assert (tmp_path / "notes.txt").read_text() == "by hand"
    assert (tmp_path / "report.html").read_text() == "by hand"
    code, _, err = robot_data("validate", demos, "--html", tmp_path / name, "--overwrite")
    assert code == (0 if name == "report.html" else 2), err
    assert demos.read_bytes() == before


NOWHERE = {
    "stats": ("--openpi", "/proc/none/norm_stats.json"),
    "validate": ("--html", "/proc/none/report.html"),
    "view": ("--out", "/proc/none/sheet.png"),
}


@pytest.mark.parametrize("command", ["stats", "validate", "view"])
def test_what_cannot_be_written_ends_with_2_and_one_sentence(robot_data, demos, command):
    code, _, err = robot_data(command, demos, *NOWHERE[command])
    assert code == 2
    assert "Choose another name, or make room." in err


def test_two_statistics_files_need_two_names_that_are_free(robot_data, demos, tmp_path):
    new = tmp_path / "stats.json"
    code, _, err = robot_data("stats", demos, "--openpi", new, "--lerobot", new)
    assert (code, "Give each its own name" in err, new.exists()) == (2, True, False)
    (tmp_path / "old.json").write_text("{}")
    code, _, err = robot_data("stats", demos, "--openpi", new, "--lerobot", tmp_path / "old.json")
    assert (code, "Choose another name" in err, new.exists()) == (2, True, False)


def test_salvage_ends_with_2_where_nothing_is_whole(robot_data, demos, tmp_path):
    layout = h5py.VirtualLayout((20, 3), float)
    layout[:] = h5py.VirtualSource("other.hdf5", "data/demo_0/actions", (20, 3))
    with h5py.File(demos, "r+") as file:
        for demo in file["data"].values():
            demo.create_virtual_dataset("elsewhere", layout)
    code, out, _ = robot_data("salvage", demos, tmp_path / "saved.hdf5")
    assert (code, "nothing written" in out) == (2, True)
    assert not (tmp_path / "saved.hdf5").exists()
