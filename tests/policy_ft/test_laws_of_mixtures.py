"""No source of a mixture is validated on what it is trained on."""

import pytest

from data_tools.formats.reader import open_dataset
from policy_ft.assemble import build_policy
from policy_ft.data.opening import in_one_convention, open_data, open_or_collect
from policy_ft.data.sources import training_and_validation

HELD_OUT = 0.34


def episodes_of(windows):
    return {windows.locate(sample_id)[0] for sample_id in range(len(windows))}


def windows_of(config):
    transforms = build_policy(config, open_or_collect(config.data, config.seed)).transforms
    episodes = in_one_convention(open_data(config.data, config.seed))
    return training_and_validation(episodes, transforms, config.data, config.seed)


@pytest.mark.parametrize(
    "statistics",
    [{}, {"mixture_statistics": "own", "policy_statistics_of": "new"}],
    ids=["shared", "own"],
)
def test_each_source_is_validated_on_its_own_episodes_that_it_is_not_trained_on(
    mixed, tmp_path, old, statistics
):
    config = mixed(data={"validation_fraction": HELD_OUT, **statistics})
    training, validation = windows_of(config)
    trained_on = episodes_of(training)
    sources = {"new": tmp_path / "demos.hdf5", "old": old}
    assert set(validation) == set(sources)
    for name, path in sources.items():
        every = {episode.name for episode in open_dataset(path)}
        held_out = episodes_of(validation[name])
        assert held_out
        assert held_out.isdisjoint(trained_on)
        assert held_out | (trained_on & every) == every


def test_one_dataset_is_validated_on_the_episodes_it_is_not_trained_on(run_config, tmp_path):
    config = run_config(data={"validation_fraction": HELD_OUT})
    training, validation = windows_of(config)
    every = {episode.name for episode in open_dataset(tmp_path / "demos.hdf5")}
    (held_out,) = map(episodes_of, validation.values())
    assert held_out
    assert held_out.isdisjoint(episodes_of(training))
    assert held_out | episodes_of(training) == every
