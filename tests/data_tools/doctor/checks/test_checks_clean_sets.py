"""Robots, operators, cameras and rooms that differ in kind: no rule finds anything on them."""

import pytest

from benchmarks.clean_sets.sets import SETS
from data_tools.doctor.examination import validate
from data_tools.formats.reader import open_dataset
from tests.data_tools.doctor.checks.clean_files import clean_file


def test_there_are_two_dozen_clean_sets_that_differ_in_kind():
    assert len({each.name for each in SETS}) == len(SETS) >= 24
    arms = [each.arm for each in SETS]
    assert len({each.kind for each in arms}) == 5
    assert {each.hz for each in arms} >= {5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0}
    assert {each.base for each in arms} == {"", "speeds", "pose"}
    assert any(each.fingers for each in arms)
    assert any(each.arms == 2 for each in SETS)
    assert any(each.look.drift for each in SETS)
    assert any(each.quality < 50 for each in SETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [each.name for each in SETS])
def test_a_clean_set_has_no_finding(name):
    found = validate(open_dataset(clean_file(name)), deep=True)
    assert [str(finding) for finding in found] == []
