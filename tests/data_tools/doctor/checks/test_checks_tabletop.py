"""The embedded environment's demonstrations are clean data: no rule may find anything."""

import pytest

from data_tools.doctor.examination import validate
from data_tools.formats.reader import open_dataset
from eval_envs.collect import collect


@pytest.mark.parametrize(
    ("task", "noise"),
    [("reach", 0.0), ("push", 0.0), ("pick", 1.0), ("place", 0.0), ("stack", 0.0)],
)
def test_demonstrations_of_every_task_have_no_findings(tmp_path, task, noise):
    path = collect(tmp_path / "demos.hdf5", task=task, num_episodes=6, seed=5, noise=noise)
    assert [str(finding) for finding in validate(open_dataset(path), deep=True)] == []
