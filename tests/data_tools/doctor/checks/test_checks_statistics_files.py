"""Statistics beside the data: told where they are of other data, whoever computed them."""

import json
import shutil

import numpy as np
import pytest

from data_tools.doctor.examination import examine
from data_tools.formats.lerobot.statistics import vector_statistics
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert
from data_tools.rewrite.stats_files import openpi_stats
from data_tools.stats import dataset_stats
from tests.data_tools.doctor.checks.conftest import record
from tests.data_tools.doctor.checks.recorded import write

NAME = "stale_statistics"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return write(
        record("joints", seconds=4.0), tmp_path_factory.mktemp("one") / "arm.hdf5", ("go",)
    )


@pytest.fixture
def folder(stored, tmp_path):
    shutil.copy(stored, tmp_path / "arm.hdf5")
    return tmp_path


def told(place):
    diagnosis = examine(open_dataset(place))
    return (
        [finding for finding in diagnosis.findings if finding.rule == NAME],
        [line.why for line in diagnosis.ledger if NAME in line.rules],
    )


def openpi(folder):
    return openpi_stats(dataset_stats(open_dataset(folder / "arm.hdf5")))


def test_statistics_of_the_data_fit_also_when_padded_and_turned_as_openpi_does(folder):
    content = openpi(folder)
    state = content["norm_stats"]["state"]
    state["mean"] = [-state["mean"][0], *state["mean"][1:], *[0.0] * 25]
    state["std"] = [*state["std"][:6], 0.4, *[0.0] * 25]
    (folder / "norm_stats.json").write_text(json.dumps(content))
    assert told(folder) == ([], [])


@pytest.mark.parametrize("change", [lambda mean: mean + 1, lambda mean: mean * 180 / np.pi + 9])
def test_statistics_of_other_data_are_told(folder, change):
    content = openpi(folder)
    state = content["norm_stats"]["state"]
    state["mean"] = change(np.array(state["mean"])).tolist()
    (folder / "norm_stats.json").write_text(json.dumps(content))
    (found,), _ = told(folder)
    assert found.where == str(folder / "norm_stats.json")
    assert "in the data (6 of 7 columns differ)" in found.value
    assert "robot-data stats" in found.remedy


def test_one_column_of_lerobot_statistics_and_a_count_are_enough(folder):
    dataset = open_dataset(folder / "arm.hdf5")
    states = [dataset[index].state() for index in range(len(dataset))]
    content = {"observation.state": vector_statistics(states)}
    place = folder / "meta/stats.json"
    place.parent.mkdir()
    place.write_text(json.dumps(content))
    assert told(folder) == ([], [])
    content["observation.state"]["std"][3] *= 2
    place.write_text(json.dumps(content))
    (found,), _ = told(folder)
    assert "'observation.state', column 3" in found.value
    content = {"observation.state": vector_statistics(states[:-1])}
    place.write_text(json.dumps(content))
    (found,), _ = told(folder)
    assert f"of {sum(map(len, states[:-1]))} steps, and {sum(map(len, states))}" in found.value


def test_the_statistics_of_a_lerobot_folder_fit_until_they_are_changed(stored, tmp_path):
    place = tmp_path / "lerobot"
    convert(open_dataset(stored), place, "lerobot-v3", images="png", sources=[stored])
    assert told(place) == ([], [])
    path = place / "meta/stats.json"
    content = json.loads(path.read_text())
    content["action"]["mean"][0] += 3
    path.write_text(json.dumps(content))
    (found,), _ = told(place)
    assert "'action', column 0" in found.value


def test_statistics_that_nobody_can_judge_are_in_the_ledger(folder):
    content = openpi(folder)
    (folder / "norm_stats.json").write_text(json.dumps(content))
    shutil.copy(folder / "arm.hdf5", folder / "other.hdf5")
    assert told(folder / "arm.hdf5") == (
        [],
        ["it lies beside other data, too, which was not opened"],
    )
    (folder / "other.hdf5").unlink()
    (folder / "norm_stats.json").write_text("{not json")
    assert told(folder) == ([], ["it cannot be read as JSON of numbers (JSONDecodeError)"])
    (folder / "norm_stats.json").write_text('{"norm_stats": {"state": {"mean": "?", "std": [1]}}}')
    assert told(folder)[1] == ["it cannot be read as JSON of numbers (ValueError)"]
