"""The page of precision and recall is what was measured, of the rules and faults there are."""

import json
from pathlib import Path

import pytest

from benchmarks.clean_sets.sets import SETS
from benchmarks.doctor_recall import RESULTS, measure, page
from data_tools.doctor.checks.catalogue import RULES
from data_tools.doctor.planting.plant import FAULTS
from tests.data_tools.doctor.checks.clean_files import clean_file

ROOT = Path(__file__).resolve().parents[4]
TOLD = json.loads(RESULTS.read_text(encoding="utf-8"))


def test_the_page_is_what_was_measured_last():
    """Else: python -m benchmarks.doctor_recall --page docs/doctor-recall.md."""
    assert (ROOT / "docs/doctor-recall.md").read_text(encoding="utf-8") == page(TOLD)


def test_every_fault_was_measured_at_the_strengths_it_has_now():
    """Else measure again: python -m benchmarks.doctor_recall --sets FOLDER --page PAGE."""
    assert {*TOLD["rules"]} == {*FAULTS}
    for rule, found in TOLD["rules"].items():
        strength = FAULTS[rule].strength
        wanted = {""} if strength is None else {f"{value:g}" for value in strength.values}
        assert {*found} <= wanted, rule
    assert all(f"| {rule} |" in page(TOLD) for rule in RULES)


def test_no_rule_found_anything_on_the_clean_sets():
    assert TOLD["num_sets"] == len(SETS) >= 24
    assert TOLD["false_alarms"] == {}


@pytest.mark.slow
def test_what_is_counted_as_found_is_found_where_it_was_planted(tmp_path):
    for number in range(len(SETS)):
        place = tmp_path / f"{number:02d}"
        place.mkdir()
        (place / "demos.hdf5").symlink_to(clean_file("spacemouse at 10 Hz"))
    measured = measure("not_finite", tmp_path, 0)
    assert measured.found == {"1": (4, 4), "3": (4, 4), "20": (4, 4)}
    assert (measured.misplaced, measured.misled) == (0, {})
    assert measure("joint_jump", tmp_path, 0).found == {}
