"""validate on the command line: text, JSON, one page, exit codes; and the page about the rules."""

import ast
import io
import json
import re
import sys
from pathlib import Path

import h5py
import pytest
from rich.console import Console

import data_tools
from data_tools.cli import main
from data_tools.doctor.checks.catalogue import RULES, page
from data_tools.doctor.report import MAX_LINES, MAX_ROWS, Report, print_report, render_html
from data_tools.finding import Finding, Rule

ROOT = Path(data_tools.__file__).resolve().parent.parent


@pytest.fixture
def robot_data(monkeypatch, capsys):
    """Runs `robot-data validate` with these arguments; gives exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["robot-data", "validate", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


def break_actions(path, episodes):
    with h5py.File(path, "r+") as file:
        for index in episodes:
            file[f"data/demo_{index}/actions"][7, 1] = 5.0


def test_clean_data_ends_with_0_findings_with_1_unreadable_with_2(robot_data, demos, tmp_path):
    code, out, _ = robot_data(demos)
    assert (code, out.splitlines()[-1]) == (0, "0 findings in 12 episodes")
    break_actions(demos, [3])
    code, out, _ = robot_data(demos)
    assert code == 1
    assert "error [action_out_of_range] An action lies beyond the range" in out
    assert "demo_3, step 7: found action 'dy' = 5; expected -1 to 1" in out
    assert "-> Correct the declared range" in out
    assert out.endswith("1 finding in 12 episodes, 1 of them errors\n")
    (tmp_path / "page.hdf5").write_text("<!DOCTYPE html>")
    code, out, err = robot_data(tmp_path / "page.hdf5")
    assert (code, out) == (2, "")
    assert "page.hdf5" in err


def test_json_holds_every_finding_with_the_seven_keys(robot_data, demos):
    assert json.loads(robot_data(demos, "--json")[1])["findings"] == []
    break_actions(demos, range(12))
    code, out, _ = robot_data(demos, "--json")
    findings = json.loads(out)["findings"]
    assert (code, len(findings)) == (1, 12)
    assert findings[4] == {
        "rule": "action_out_of_range",
        "severity": "error",
        "episode": f"{demos}:data/demo_4",
        "step": 7,
        "value": "action 'dy' = 5",
        "threshold": "-1 to 1 as the conventions declare",
        "remedy": RULES["action_out_of_range"].remedy,
    }


def test_the_page_holds_the_findings_and_fetches_nothing(robot_data, demos, tmp_path):
    break_actions(demos, [3])
    html = tmp_path / "report.html"
    assert robot_data(demos, "--html", html)[0] == 1
    text = html.read_text(encoding="utf-8")
    assert "1 finding in 12 episodes, 1 of them errors" in text
    assert "action &#39;dy&#39; = 5" in text
    assert f"{demos}:data/demo_3" in text
    assert "front 48 x 32" in text
    # what was checked without a finding is listed, too, and apart from it what was not
    passed, left_out = text.split("Checked without a finding")[1].split("Not checked")
    assert "<code>frozen_camera</code>" in passed
    assert "repeated_frames" not in passed
    assert "repeated_frames" in left_out
    assert "--deep decodes all" in left_out
    assert re.findall(r"(?:src|href|url)\s*[=(]", text) == []
    assert "<script" not in text


def test_the_page_escapes_what_files_hold_and_counts_what_it_leaves_out():
    finding = Finding(
        rule="instruction",
        severity="warning",
        where="<b>bold</b>",
        value="<script>alert(1)</script>",
        threshold="t",
        remedy="r",
    )
    report = Report(("a.hdf5",), {"episodes": "700"}, (finding,) * (MAX_ROWS + 20))
    text = render_html(report)
    assert "<script>" not in text
    assert "<b>bold" not in text
    assert "and 20 more" in text


def test_the_terminal_tells_many_alike_findings_of_a_rule_once(robot_data, demos):
    with h5py.File(demos, "r+") as file:
        for episode in file["data"].values():
            episode["actions"][7, :2] = (5.0, -4.0)
    _, out, _ = robot_data(demos)
    assert out.count("found action") == 2
    assert out.count("(12 episodes: data/demo_0, data/demo_1, data/demo_2, ..., data/demo_11)") == 2
    assert "24 findings in 12 episodes" in out


def test_the_terminal_shows_the_first_findings_of_a_rule_and_counts_the_rest():
    rule = Rule(name="r", severity="error", sentence="s", threshold="less", remedy="Do.")
    findings = tuple(rule.found("a.hdf5", f"column x{number}") for number in range(24))
    console = Console(record=True, file=io.StringIO())
    print_report(Report(("a.hdf5",), {"episodes": "1"}, findings), console)
    text = console.export_text()
    assert text.count("found column") == MAX_LINES
    assert f"... and {24 - MAX_LINES} more" in text


def test_ignored_rules_end_with_0_and_are_named_on_the_page(robot_data, demos, tmp_path):
    break_actions(demos, [3])
    html = tmp_path / "report.html"
    assert robot_data(demos, "--ignore", "action_out_of_range", "--html", html)[0] == 0
    assert "Left out on request: action_out_of_range." in html.read_text(encoding="utf-8")
    code, _, err = robot_data(demos, "--ignore", "action_out_of_rang")
    assert code == 2
    assert "did you mean 'action_out_of_range'" in err


def test_deep_decodes_the_frames_in_between(robot_data, demos):
    with h5py.File(demos, "r+") as file:
        file["data/demo_2/obs/front_image"][5] = 0
    assert robot_data(demos)[0] == 0
    code, out, _ = robot_data(demos, "--deep")
    assert code == 1
    assert "demo_2, step 5" in out
    assert "undecodable_frame" in out


def test_fix_writes_a_new_file_and_says_what_it_changed(robot_data, demos, tmp_path):
    with h5py.File(demos, "r+") as file:
        file["data"].attrs["total"] = 1
        file["data/demo_4"].attrs["language_instruction"] = "push  the red block"
    out = tmp_path / "fixed.hdf5"
    before = demos.read_bytes()
    code, text, _ = robot_data(demos, "--fix", out)
    assert code == 1
    assert "repaired [stale_total]" in text
    assert "demo_4: now 'push the red block'" in text
    assert f"written to {out}; repairs: 2" in text
    assert demos.read_bytes() == before
    assert robot_data(out)[0] == 0
    code, text, _ = robot_data(out, "--fix", tmp_path / "again.hdf5", "--json")
    told = json.loads(text)
    assert (code, told["findings"], told["repairs"]) == (0, [], [])
    assert not (tmp_path / "again.hdf5").exists()


def test_validation_data_that_training_holds_is_found(robot_data, demos, tmp_path):
    code, out, _ = robot_data(demos, "--validation", demos, "--json")
    rules = {finding["rule"] for finding in json.loads(out)["findings"]}
    assert (code, rules) == (1, {"split_overlap"})


def test_filter_keys_are_compared_as_training_and_validation(robot_data, demos):
    with h5py.File(demos, "r+") as file:
        file["mask/train"] = [f"demo_{i}".encode() for i in range(9)]
        file["mask/valid"] = [f"demo_{i}".encode() for i in (9, 10, 11)]
        file["mask/mixed"] = [f"demo_{i}".encode() for i in (8, 9)]
    code, out, _ = robot_data(demos, "--mask", "train", "--validation", "valid")
    assert (code, out.splitlines()[-1]) == (0, "0 findings in 9 episodes")
    code, out, _ = robot_data(demos, "--mask", "train", "--validation", "mixed")
    assert code == 1
    assert "demo_8: found in validation, and in training" in out


def test_the_page_about_the_rules_is_the_code():
    written = (ROOT / "docs" / "data-checks.md").read_text(encoding="ascii")
    remedy = "run python -m data_tools.doctor.checks.catalogue docs/data-checks.md"
    assert written == page(), remedy


def test_every_rule_is_in_the_table_and_says_all_it_must():
    assert len(RULES) > 50
    for name, rule in RULES.items():
        assert rule.name == name
        assert re.fullmatch(r"[a-z_]+", name)
        for text in (rule.sentence, rule.remedy):
            assert text.endswith("."), name
    used = {
        node.value.value
        for path in (ROOT / "data_tools").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword)
        and node.arg == "rule"
        and isinstance(node.value, ast.Constant)
    }
    assert used <= set(RULES), "add the rule to data_tools/rules.py"


def test_every_rule_of_the_checks_has_a_broken_dataset():
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py"))
    from_files = {
        "stale_total",
        "number_gap",
        "slow_chunks",
        "corrected_conventions",
        "trimmed_rows",
    }
    from_files |= {"unreadable_camera", "camera_not_read", "larger_than_memory"}
    from_files |= {"surplus_bytes", "missing_ends", "empty_place", "unusable_column"}
    from_files |= {
        "hidden_files",
        "names_not_read",
        "wrong_clock",
        "frame_count",
        "unreadable_video",
    }  # lerobot/
    missing = [name for name in RULES if f'"{name}"' not in tests and name not in from_files]
    assert missing == []
