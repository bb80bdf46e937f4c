"""A run on several datasets: what is trained on, validated, kept, resumed and refused."""

import json
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data_tools.formats.lerobot.lerobot_options import LeRobotOptions
from data_tools.formats.lerobot.write import write_lerobot
from data_tools.formats.reader import open_dataset
from data_tools.stats import exact_stats
from policy_ft import assemble
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.config_file import load_config
from policy_ft.data import opening
from policy_ft.data.loader import BatchLoader
from policy_ft.data.opening import in_one_convention, open_data
from policy_ft.data.sources import limited, training_and_validation
from policy_ft.formats.load import load_policy
from policy_ft.models.solvers import Euler
from tests.policy_ft.test_methods import Stop

TASKS = ("lift the blue cylinder", "push the red block")


def windows_of(config, transforms):
    episodes = in_one_convention(open_data(config.data, config.seed))
    return training_and_validation(episodes, transforms, config.data, config.seed)


def built(config):
    return assemble.build_policy(config, opening.open_or_collect(config.data, config.seed))


def steps_of(windows, first_step, count, **settings):
    loader = BatchLoader(windows, order=windows.order(7), seed=7, num_draws=2, **settings)
    with closing(loader.iter_from(first_step)) as batches:
        return list(islice(batches, count))


def joined(micro_batches):
    """All samples of some micro-batches by sample id, epoch first."""
    whole = {name: torch.cat([part[name] for part in micro_batches]) for name in micro_batches[0]}
    order = torch.from_numpy(np.lexsort((whole["sample_id"].numpy(), whole["epoch"].numpy())))
    return {name: values[order] for name, values in whole.items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def final_weights(result):
    state = result.last_checkpoint / "training_state"
    return {file.name: weights_hash(load_file(file)) for file in state.glob("*.safetensors")}


# What a sample is


def test_a_camera_that_a_source_lacks_is_black_and_masked(mixed):
    config = mixed()
    windows, _ = windows_of(config, built(config).transforms)
    new, old = windows[0], windows[len(windows) - 1]
    assert new["image_mask"].tolist() == [True, True, False]
    assert old["image_mask"].tolist() == [True, False, False]
    assert old["image_1"].shape == new["image_1"].shape
    assert not old["image_1"].any()
    assert old["image_0"].any()


def test_what_stands_in_a_masked_slot_does_not_change_what_a_policy_predicts(mixed):
    config = mixed()
    policy = built(config)
    windows, _ = windows_of(config, policy.transforms)
    (batch,) = steps_of(windows, 0, 1, batch_size=8)[0]
    is_old = batch["image_mask"][:, 1].logical_not()
    assert 0 < is_old.sum() < 8
    noise = torch.randn(8, 4, 4)
    chunks = []
    for value in (0, 200):
        batch["image_1"][is_old] = value
        inputs = policy.transforms.encode_batch(batch, "cpu")
        with torch.no_grad():
            chunks.append(policy.model.sample_actions(inputs, noise=noise, solver=Euler(2)))
    torch.testing.assert_close(chunks[0], chunks[1], rtol=0, atol=1e-6)


def test_sample_ids_count_through_the_sources_and_name_their_episode(mixed):
    """So a cache of features, noise and messages tell the windows of two sources apart."""
    config = mixed()
    windows, _ = windows_of(config, built(config).transforms)
    names = [windows.locate(sample_id)[0] for sample_id in range(len(windows))]
    first_old = next(i for i, name in enumerate(names) if "old.hdf5" in name)
    assert all("demos.hdf5" in name for name in names[:first_old])
    assert all("old.hdf5" in name for name in names[first_old:])
    assert [int(windows[i]["sample_id"]) for i in range(len(windows))] == list(range(len(windows)))
    with pytest.raises(IndexError, match=str(len(windows))):
        windows[len(windows)]


def test_the_batches_of_a_run_hold_the_shares(mixed):
    config = mixed()
    windows, _ = windows_of(config, built(config).transforms)
    batches = steps_of(windows, 0, 125, batch_size=8)
    num_old = sum((~step[0]["image_mask"][:, 1]).sum().item() for step in batches)
    assert num_old == 250


@pytest.mark.parametrize(("world_size", "accumulation_steps"), [(1, 4), (2, 2)])
def test_a_step_of_a_mixture_does_not_depend_on_ranks_and_micro_batches(
    world_size, accumulation_steps, mixed
):
    config = mixed()
    windows, _ = windows_of(config, built(config).transforms)
    reference = steps_of(windows, 3, 2, batch_size=8)
    settings = {
        "batch_size": 8,
        "world_size": world_size,
        "accumulation_steps": accumulation_steps,
    }
    ranks = [steps_of(windows, 3, 2, rank=rank, **settings) for rank in range(world_size)]
    for step in range(2):
        parts = [micro for rank in ranks for micro in rank[step]]
        assert_same(joined(parts), joined(reference[step]))


def test_workers_yield_the_mixture_that_the_training_process_yields(mixed):
    config = mixed()
    windows, _ = windows_of(config, built(config).transforms)
    here = steps_of(windows, 2, 3, batch_size=8)
    there = steps_of(windows, 2, 3, batch_size=8, num_workers=2, prefetch=2)
    for one, other in zip(here, there, strict=True):
        assert_same(one[0], other[0])


def test_a_task_has_no_more_episodes_than_it_may(old):
    episodes = open_dataset(old)
    for most in (1, 2, 3):
        few = limited(episodes, most, seed=0)
        said = [few[index].instruction for index in range(len(few))]
        assert said.count(TASKS[0]) == min(most, 2)
        assert said.count(TASKS[1]) == most
    choices = {
        tuple(few[i].name for i in range(len(few)))
        for few in (limited(episodes, 1, seed) for seed in range(12))
    }
    assert len(choices) > 1, "chosen at random, not the first ones"
    names = [[limited(episodes, 2, 5)[i].name for i in range(4)] for _ in range(2)]
    assert names[0] == names[1]


def test_a_limit_of_a_source_is_kept_in_the_run(mixed):
    config = mixed({"max_episodes_per_task": 1})
    assert len(open_data(config.data, config.seed).sources[1].episodes) == 2


# Whose statistics


def test_shared_statistics_are_of_the_training_episodes_of_all_sources(mixed):
    config = mixed()
    transforms = built(config).transforms
    windows, _ = windows_of(config, transforms)
    states = [part.episodes[int(index)].state() for part in windows.parts for index in part.indices]
    assert transforms.statistics.state == exact_stats(np.concatenate(states))
    assert [part.transforms.statistics for part in windows.parts] == [transforms.statistics] * 2


@pytest.mark.parametrize("kept_of", [None, "new", "old"])
def test_own_statistics_normalize_each_source_and_the_policy_keeps_the_named(mixed, kept_of):
    config = mixed(data={"mixture_statistics": "own", "policy_statistics_of": kept_of})
    transforms = built(config).transforms
    windows, validation = windows_of(config, transforms)
    for part in windows.parts:
        own = [part.episodes[int(index)] for index in part.indices]
        expected = exact_stats(np.concatenate([episode.actions() for episode in own]))
        assert part.transforms.statistics.actions.mean == pytest.approx(expected.mean)
        assert part.transforms.conventions == transforms.conventions
    place = 1 if kept_of == "old" else 0
    assert transforms.statistics.state == windows.parts[place].transforms.statistics.state
    assert validation["old"].transforms == windows.parts[1].transforms


# A run


def test_a_run_on_a_mixture_tells_each_source_and_all_together(mixed):
    config = mixed(training={"log_every": 3})
    assert assemble.check(config) == []
    result = assemble.train(config)
    rows = [row for row in result.metrics if row["kind"] == "validation"]
    assert len(rows) == 2
    for row in rows:
        for kind in ("loss", "action_mse"):
            together = 0.75 * row[f"{kind}/new"] + 0.25 * row[f"{kind}/old"]
            assert row[kind] == pytest.approx(together, rel=1e-6)
        assert row["loss/new"] != row["loss/old"]
    told = load_policy(result.last_checkpoint).provenance["data"]
    assert told["old"]["path"] == [config.data.mixture["old"].path[0]]
    assert {name: each["share"] for name, each in told.items()} == {"new": 0.75, "old": 0.25}
    fingerprints = [each["fingerprint"] for each in told.values()]
    assert (
        fingerprints[0]
        == open_data(config.data, 0)
        .mapped_to(open_data(config.data, 0).conventions, "itself")
        .sources[0]
        .episodes.fingerprint
    )
    assert len(set(fingerprints)) == 2


def test_a_mixture_of_two_layouts_trains_as_one(mixed, old, tmp_path):
    """The same episodes as HDF5 and as a LeRobot folder, here with lossless frames."""
    recorded = open_dataset(old)
    write_lerobot(
        tmp_path / "lerobot",
        recorded.conventions,
        [recorded[index] for index in range(len(recorded))],
        LeRobotOptions(images="png"),
    )
    results = []
    for name in ("old.hdf5", "lerobot"):
        config = mixed({"path": str(tmp_path / name)}, output_dir=str(tmp_path / f"run_{name}"))
        assert assemble.check(config) == []
        results.append(assemble.train(config))
    assert final_weights(results[0]) == final_weights(results[1])


def test_a_run_on_a_lerobot_folder_alone_is_a_run_on_its_episodes(run_config, tmp_path):
    config = run_config(output_dir=str(tmp_path / "hdf5"))
    recorded = open_dataset(tmp_path / "demos.hdf5")
    episodes = [recorded[index] for index in range(len(recorded))]
    options = LeRobotOptions(images="png")
    write_lerobot(tmp_path / "lerobot", recorded.conventions, episodes, options)
    there = run_config(data={"path": str(tmp_path / "lerobot")})
    assert final_weights(assemble.train(there)) == final_weights(assemble.train(config))

    def state_dict(self):
        return {"nothing": torch.zeros(1)}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("statistics", ["shared", "own"])
def test_an_interrupted_run_on_a_mixture_goes_on_with_the_same_bits(mixed, tmp_path, statistics):
    data = {"mixture_statistics": statistics}
    whole = assemble.train(mixed(data=data, output_dir=str(tmp_path / "whole")), methods=[Stop()])
    with pytest.raises(KeyboardInterrupt):
        assemble.train(mixed(data=data), methods=[Stop(after=4)])
    resumed = assemble.train(mixed(data=data), resume=True, methods=[Stop()])
    assert final_weights(resumed) == final_weights(whole)


def test_a_mixture_of_one_dataset_is_the_run_without_a_mixture(run_config, tmp_path):
    plain = assemble.train(run_config(output_dir=str(tmp_path / "plain")))
    alone = {"only": {"path": str(tmp_path / "demos.hdf5"), "weight": 5}}
    data = {"path": [], "mixture": alone, "mixture_statistics": "shared"}
    mixture = assemble.train(run_config(data=data))
    assert final_weights(mixture) == final_weights(plain)


def from_checkpoint(config, checkpoint, *, names=("new", "old")):
    """The same settings with a checkpoint's policy and statistics, sources in this order."""
    values = config.model_dump(mode="json")
    values["policy"] = {"kind": "pretrained", "path": str(checkpoint)}
    mixture = values["data"]["mixture"]
    values["data"] |= {
        "mixture_statistics": None,
        "mixture": {name: mixture[name] for name in names},
    }
    return type(config).model_validate(values)


def test_a_feature_cache_tells_the_sources_apart(mixed, tmp_path):
    frozen = ("vision", "projector", "language.embed")
    base = assemble.train(mixed(training={"steps": 1}, output_dir=str(tmp_path / "base")))
    losses, hits = [], []
    for gb in (0.0, 1.0):
        config = mixed(
            tuning={"groups": [{"pattern": name, "frozen": True} for name in frozen]},
            training={"steps": 16, "log_every": 1, "feature_cache_gb": gb},
            output_dir=str(tmp_path / f"run_{gb}"),
        )
        result = assemble.train(from_checkpoint(config, base.last_checkpoint))
        rows = [row for row in result.metrics if row["kind"] == "train"]
        losses.append([row["loss"] for row in rows])
        hits = [row.get("feature_cache_hits") for row in rows]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert max(hits) == 1


def test_a_policys_own_declaration_is_the_target_with_its_statistics(mixed, tmp_path, run_config):
    """Then the first source, too, may be mapped."""
    base = assemble.train(run_config(training={"steps": 1}, output_dir=str(tmp_path / "base")))
    config = from_checkpoint(
        mixed(training={"steps": 1}), base.last_checkpoint, names=("old", "new")
    )
    assert list(config.data.mixture) == ["old", "new"]
    assert assemble.check(config) == []
    result = assemble.train(config)
    expected = load_policy(base.last_checkpoint).transforms.statistics
    assert load_policy(result.last_checkpoint).transforms.statistics == expected


def test_the_saved_settings_of_a_mixture_load_to_equal_ones(mixed):
    result = assemble.train(mixed(training={"steps": 1}))
    state = json.loads((result.last_checkpoint / "training_state" / "state.json").read_text())
    assert list(state["source_fingerprints"]) == ["new", "old"]
    assert load_config(result.directory / "config.yaml") == mixed(training={"steps": 1})
