"""A small sample of the fuzz, the same in every run; `make fuzz` runs thousands of cases."""

import pytest

from data_tools.formats.reader import open_dataset
from tests.data_tools.fuzz.case import GOOD, Cases
from tests.data_tools.fuzz.originals import LAYOUTS, LEROBOT_KINDS, place_of, write_originals
from tests.data_tools.fuzz.pool import run_cases
from tests.data_tools.fuzz.touched import Touched

NUM_HDF5, NUM_LEROBOT = 60, 10


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    write_originals(folder)
    return folder


def test_damaged_data_is_refused_with_a_remedy_or_read_as_it_was(originals, tmp_path):
    names = [f"hdf5:{i}" for i in range(NUM_HDF5)] + [f"lerobot:{i}" for i in range(NUM_LEROBOT)]
    outcomes = list(run_cases(names, originals, tmp_path))
    assert not [outcome for outcome in outcomes if outcome.verdict not in GOOD]
    # A fuzz of which nothing is refused, or everything, would show nothing.
    verdicts = [outcome.verdict for outcome in outcomes]
    assert verdicts.count("refused") > 10
    assert verdicts.count("same") > 10


def test_undamaged_data_of_every_kind_opens(originals):
    for kind in (*LAYOUTS, *LEROBOT_KINDS):
        assert len(open_dataset(place_of(originals / kind))) >= 2


def test_a_case_is_the_same_each_time(originals, tmp_path):
    cases = Cases(originals, tmp_path)
    for name in ("hdf5:3", "lerobot:3"):
        first, second = (cases.damaged(name, tmp_path / f"{name}{i}") for i in range(2))
        assert first[:3] == second[:3]
        files = [
            {p.relative_to(tmp_path / f"{name}{i}"): p.read_bytes() for p in found if p.is_file()}
            for i in range(2)
            for found in [(tmp_path / f"{name}{i}").rglob("*")]
        ]
        assert files[0].keys() == files[1].keys()


def test_a_value_that_changed_untouched_is_found(originals, tmp_path, monkeypatch):
    """The judge itself: rows in another order, which the damage is said not to have touched."""
    cases = Cases(originals, tmp_path)
    monkeypatch.setattr(Touched, "covers", lambda self, file, dataset: False)
    outcomes = (cases.run(f"hdf5:{i}") for i in range(100))
    assert any(outcome.verdict == "wrong" for outcome in outcomes)


def test_a_process_that_dies_is_told_and_replaced(originals, tmp_path):
    bad, good = run_cases(["hdf5:not a number", "hdf5:0"], originals, tmp_path)
    assert bad.verdict == "died"
    assert "invalid literal for int" in bad.detail
    assert good.verdict in GOOD
