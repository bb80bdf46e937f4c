"""Episodes that a person chose to train and to validate on, and random splits that keep apart."""

import json

import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from data_tools.formats.keep_files import KeepRanges
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.split import split, write_split_keep
from policy_ft import assemble
from policy_ft.data.opening import open_data
from policy_ft.data.sources import training_and_validation
from policy_ft.data.split import split_episodes
from policy_ft.errors import UserError

CHOSEN = {"mask": "train", "validation_mask": "valid"}


@pytest.fixture
def masked(run_config, tmp_path):
    """Settings of a run on demo_0 and demo_1, validated on demo_3; demo_2 is in no mask."""

    def make(train=("demo_0", "demo_1"), valid=("demo_3",), data=CHOSEN, **changes):
        config = run_config(data=dict(data), **changes)
        with h5py.File(tmp_path / "demos.hdf5", "r+") as file:
            masks = file.require_group("mask")
            for name, demos in (("train", train), ("valid", valid)):
                masks.pop(name, None)
                masks[name] = np.array(demos, dtype="S")
        return config

    return make


def name_parents(path, parents):
    """Write the attribute 'source_demo' of each demonstration."""
    with h5py.File(path, "r+") as file:
        for name, parent in parents.items():
            file[f"data/{name}"].attrs["attributes"] = json.dumps({"source_demo": parent})


def demos_of(windows):
    """Names of the demonstrations that windows come from, with the number of windows."""
    names = [windows.episodes[place].name for place in windows.indices]
    return {name.rpartition("/")[2] for name in names}, len(windows)


def test_masks_choose_what_is_trained_on_and_what_validates(masked):
    config = masked()
    episodes = open_data(config.data, config.seed)
    policy = assemble.build_policy(config, episodes)
    training, validation = training_and_validation(
        episodes, policy.transforms, config.data, config.seed
    )
    assert demos_of(training) == ({"demo_0", "demo_1"}, 5 + 3)
    assert demos_of(validation[""]) == ({"demo_3"}, 4)
    trained_on = open_dataset(config.data.path[0], mask="train")
    actions = np.concatenate([trained_on[index].actions() for index in range(2)])
    statistics = policy.transforms.statistics.actions
    np.testing.assert_allclose(statistics.mean, actions.mean(0), rtol=1e-6)
    assert assemble.check(config) == []
    assert assemble.train(config).last_checkpoint.is_dir()


def test_the_keep_files_of_a_split_choose_the_same_way(run_config, tmp_path):
    config = run_config()
    dataset = open_dataset(config.data.path[0])
    parts = split(dataset, valid=0.5, seed=1)
    write_split_keep(dataset, parts, tmp_path / "parts", "by hand")
    files = {name: str(tmp_path / f"parts/{name}.json") for name in ("train", "valid")}
    config = run_config(data={"keep": files["train"], "validation_keep": files["valid"]})
    episodes = open_data(config.data, config.seed)
    names = [episode.name for episode in map(dataset.__getitem__, (*parts.train, *parts.valid))]
    assert [episodes[index].name for index in range(len(episodes))] == names
    kept, held_out = split_episodes(episodes, 0.25, config.seed)
    assert (len(kept), len(held_out)) == (len(parts.train), len(parts.valid))


def test_a_keep_file_moves_the_windows_of_a_run(run_config, tmp_path):
    config = run_config()
    dataset = open_dataset(config.data.path[0])
    keep = KeepRanges(
        format="policy_ft keep ranges 1",
        fingerprint=dataset.fingerprint,
        rule="by hand",
        episodes={"demos.hdf5:data/demo_0": ((1, 3),), "demos.hdf5:data/demo_2": ((4, 9),)},
    )
    (tmp_path / "keep.json").write_text(keep.model_dump_json())
    config = run_config(data={"keep": str(tmp_path / "keep.json")})
    episodes = open_data(config.data, config.seed)
    policy = assemble.build_policy(config, episodes)
    training, validation = training_and_validation(
        episodes, policy.transforms, config.data, config.seed
    )
    assert len(training) + len(validation[""]) == 2 + 5


def test_a_run_goes_on_only_with_the_episodes_it_began_with(masked):
    assemble.train(masked(training={"steps": 3}))
    with pytest.raises(UserError, match="fingerprint"):
        assemble.train(masked(valid=("demo_2",)), resume=True)
    again = masked()
    assert assemble.train(again, resume=True).last_checkpoint.name.endswith("6")


def test_a_mixture_chooses_in_each_of_its_datasets(mixed, old):
    with h5py.File(old, "r+") as file:
        file["mask/train"] = np.array(["demo_0", "demo_1", "demo_4"], dtype="S")
        file["mask/valid"] = np.array(["demo_2"], dtype="S")
    config = mixed(CHOSEN)
    episodes = open_data(config.data, config.seed)
    assert [len(source.episodes) for source in episodes.sources] == [4, 4]
    assert assemble.check(config) == []
    assert assemble.train(config).last_checkpoint.is_dir()


def test_at_most_so_many_of_a_task_are_trained_on_and_all_validated(mixed, old):
    with h5py.File(old, "r+") as file:
        file["mask/train"] = np.array(["demo_1", "demo_2", "demo_4"], dtype="S")
        file["mask/valid"] = np.array(["demo_0", "demo_3", "demo_5"], dtype="S")
    config = mixed(CHOSEN | {"max_episodes_per_task": 2})
    divided = open_data(config.data, config.seed).sources[1].episodes
    assert (len(divided.training), len(divided.validation)) == (2, 3)


def test_a_layout_that_is_named_is_the_one_that_reads(run_config):
    config = run_config(data={"layout": "droid"})
    with pytest.raises(UserError, match="action/joint_velocity"):
        open_data(config.data, config.seed)


REFUSED = {
    "shared": ({"valid": ("demo_1", "demo_3")}, "1 of 2 are trained on.*Correct the masks"),
    "no such mask": (
        {"data": CHOSEN | {"mask": "trainn"}},
        "did you mean 'train'",
    ),  # codespell:ignore
    "nothing to train on": ({"train": ()}, "'train' of 1 files, .*found no episodes"),
    "nothing to validate on": ({"valid": ()}, "'valid' of 1 files, .*found no episodes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_choice_that_cannot_be_is_refused_before_the_first_step(case, masked):
    changes, words = REFUSED[case]
    config = masked(**changes)
    with pytest.raises(UserError, match=words):
        assemble.train(config)
    assert assemble.check(config)


def test_children_of_one_demonstration_on_both_sides_are_refused(masked, tmp_path):
    config = masked()
    name_parents(tmp_path / "demos.hdf5", {"demo_1": "src_0", "demo_3": "src_0"})
    with pytest.raises(UserError, match=r"split_leakage.*1 in training, 1 in validation"):
        assemble.train(config)
    assert any("split_leakage" in fault for fault in assemble.check(config))
    meant = config.data.model_copy(update={"ignore": ("split_leakage",)})
    assert assemble.check(config.model_copy(update={"data": meant})) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"validation_mask": "valid"}, "Set mask or keep"),
        ({"validation_keep": "valid.json"}, "Set mask or keep"),
        ({"mixture": {"a": {"path": "a.hdf5", "weight": 1}}, "path": [], "mask": "x"}, "Give them"),
    ],
)
def test_settings_of_a_choice_that_cannot_be_are_refused(data, words, run_config):
    with pytest.raises(ValidationError, match=words):
        run_config(data=data)


def test_a_random_split_keeps_children_of_one_demonstration_together(record, tmp_path):
    record(lengths=(3,) * 8)
    parents = {f"demo_{number}": f"src_{number // 2}" for number in range(8)}
    name_parents(tmp_path / "demos.hdf5", parents)
    episodes = open_dataset(tmp_path / "demos.hdf5")
    for seed in range(10):
        kept, held_out = split_episodes(episodes, 0.3, seed, groups=("source_demo",))
        assert sorted((*kept, *held_out)) == list(range(8))
        assert len(held_out) == 2
        assert {index // 2 for index in kept}.isdisjoint(index // 2 for index in held_out)
    torn = [split_episodes(episodes, 0.3, seed)[1] for seed in range(10)]
    assert any(each[0] // 2 != each[1] // 2 for each in torn), "without groups some are parted"


def test_children_of_one_demonstration_alone_cannot_be_parted_unless_asked(run_config, tmp_path):
    config = run_config()
    name_parents(tmp_path / "demos.hdf5", {f"demo_{number}": "src" for number in range(4)})
    with pytest.raises(UserError, match=r"set data\.split_groups to \[\]"):
        assemble.train(config)
    assert assemble.check(run_config(data={"split_groups": []})) == []
