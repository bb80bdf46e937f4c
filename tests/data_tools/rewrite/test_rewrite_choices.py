"""split, merge and filter: which episodes and steps, and on which side."""

import shutil

import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.keep_files import ranges_of, read_keep, relative_names, steps_of
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.filtering import Rules, droid_kept, kept_steps, openvla_kept, rdt_kept
from data_tools.rewrite.merge import merge
from data_tools.rewrite.split import split, write_split_keep, write_split_masks
from data_tools.writer import EpisodeWriter


@pytest.fixture
def write(tmp_path, conventions, make_episode):
    """Writes a file of one short episode for each mapping of changes; gives its dataset."""

    def make(name="a.hdf5", *changes, num_steps=4, **options):
        with EpisodeWriter(tmp_path / name, conventions, **options) as writer:
            for seed, change in enumerate(changes):
                writer.add(**make_episode(seed, num_steps=num_steps, **change))
        return open_dataset(tmp_path / name)

    return make


# split


def test_split_gives_each_task_its_share_and_every_episode_one_side(write):
    tasks = [{"instruction": f"task {number % 2}"} for number in range(40)]
    dataset = write("a.hdf5", *tasks)
    parts = split(dataset, valid=0.2, seed=3)
    assert sorted(parts.train + parts.valid) == list(range(40))
    assert [dataset[index].instruction for index in parts.valid].count("task 0") == 4
    assert len(parts.valid) == 8
    assert split(dataset, valid=0.2, seed=3) == parts
    assert split(dataset, valid=0.2, seed=4) != parts


def test_what_shares_a_source_scene_or_operator_stays_together(write):
    # demos 0-1 share a source, 1-2 a scene, 2-3 an operator: 0 to 3 are one group; 4 to 9 are alone
    attributes = [
        {"source_demo": "s0"},
        {"source_demo": "s0", "scene": "kitchen"},
        {"scene": "kitchen", "operator": "ann"},
        {"operator": "ann"},
        *({"scene": f"room {number}"} for number in range(6)),
    ]
    dataset = write("a.hdf5", *({"attributes": each} for each in attributes))
    for seed in range(10):
        valid = set(split(dataset, valid=0.4, seed=seed).valid)
        assert valid
        assert valid & {0, 1, 2, 3} in ({0, 1, 2, 3}, set())
    for seed in range(5):
        assert len(split(dataset, valid=0.4, seed=seed, groups=()).valid) == 4


def test_a_split_that_cannot_be_is_refused(write):
    alike = write("a.hdf5", *[{"attributes": {"scene": "lab"}}] * 5)
    with pytest.raises(UserError, match="Give fewer --group attributes"):
        split(alike)
    with pytest.raises(UserError, match="fraction between 0 and 1"):
        split(alike, valid=1.5)


def test_split_masks_are_filter_keys_the_reader_takes(write, tmp_path):
    dataset = write("a.hdf5", *[{}] * 10)
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["mask/good"] = np.array([b"demo_1"])
        file["mask/valid"] = np.array([b"demo_0"])
    parts = split(dataset, valid=0.3)
    write_split_masks(dataset, parts, tmp_path / "a.hdf5", tmp_path / "b.hdf5")
    valid = open_dataset(tmp_path / "b.hdf5", mask="valid")
    assert [episode.attributes["seed"] for episode in map(valid.__getitem__, range(3))] == [
        dataset[index].attributes["seed"] for index in parts.valid
    ]
    assert len(open_dataset(tmp_path / "b.hdf5", mask="train")) == 7
    assert len(open_dataset(tmp_path / "b.hdf5", mask="good")) == 1


def test_split_keep_files_open_as_two_datasets(write, tmp_path):
    dataset = write("a.hdf5", *[{}] * 10)
    parts = split(dataset, valid=0.3)
    write_split_keep(dataset, parts, tmp_path / "parts", "a rule")
    for name, indices in (("train", parts.train), ("valid", parts.valid)):
        found = open_dataset(tmp_path / "a.hdf5", keep=tmp_path / "parts" / f"{name}.json")
        seeds = [found[index].attributes["seed"] for index in range(len(found))]
        assert seeds == [dataset[index].attributes["seed"] for index in indices]


# merge


def test_merged_episodes_keep_their_order_and_their_bytes(write, tmp_path, demos):
    write("extra.hdf5", {}, {"instruction": "push it back"})
    with h5py.File(demos, "r+") as file:
        file["mask/good"] = np.array([b"demo_2", b"demo_11"])
    with h5py.File(tmp_path / "extra.hdf5", "r+") as file:
        file["mask/good"] = np.array([b"demo_1"])
    dataset = open_dataset([demos, tmp_path / "extra.hdf5"])
    merge(dataset, tmp_path / "all.hdf5")
    found = open_dataset(tmp_path / "all.hdf5")
    assert found.fingerprint == dataset.fingerprint
    assert found.inspected.warnings == ()
    with h5py.File(tmp_path / "all.hdf5") as new, h5py.File(demos) as old:
        assert new["data"].attrs["total"] == sum(range(20, 32)) + 8
        assert new["mask/good"][()].tolist() == [b"demo_2", b"demo_11", b"demo_13"]
        for number in (0, 2, 11):  # demo_2 comes before demo_10
            frames = f"data/demo_{number}/obs/front_image"
            np.testing.assert_array_equal(new[frames], old[frames])
        assert new["data/demo_13"].attrs["language_instruction"] == "push it back"


def test_files_that_declare_different_things_are_not_merged(
    write, tmp_path, demos, conventions, make_episode
):
    faster = conventions.model_copy(update={"control_hz": 20.0})
    with EpisodeWriter(tmp_path / "fast.hdf5", faster) as writer:
        writer.add(**make_episode())
    with pytest.raises(UserError, match=r"control_hz.*Resample"):
        open_dataset([demos, tmp_path / "fast.hdf5"])


def test_frames_stored_differently_are_converted_not_merged(write, tmp_path, demos):
    write("turned.hdf5", {})
    with h5py.File(tmp_path / "turned.hdf5", "r+") as file:
        root = file["data"]
        stored = root.attrs["conventions"].replace('"upright"', '"rotated_180"', 1)
        root.attrs["conventions"] = stored
        root["demo_0/obs/front_image"].attrs["orientation"] = "rotated_180"
    dataset = open_dataset([demos, tmp_path / "turned.hdf5"])
    with pytest.raises(UserError, match=r"rotated_180.*turns every frame upright"):
        merge(dataset, tmp_path / "all.hdf5")
    assert not list(tmp_path.glob("all*"))


# filter


def test_openvla_noops_are_still_steps_with_the_gripper_of_the_last_kept_one():
    actions = np.array([[0, 1], [0.1, 1], [0, 1], [0, -1], [0, -1], [5e-5, -1], [0.2, -1]])
    kept = openvla_kept(actions, grippers=[1])
    assert kept.tolist() == [False, True, False, True, False, False, True]


def test_droid_ranges_are_those_of_openpi():
    # 20 moving steps, 10 idle, 15 moving (too short), 7 idle, 30 moving, the last 10 of each cut
    runs = ((20, 1), (10, 0), (15, 1), (7, 0), (6, 1), (6, 0), (18, 1))
    velocity = np.cumsum(np.concatenate([np.full(length, value) for length, value in runs]))
    kept = droid_kept(np.stack([velocity, velocity * 0], axis=1))
    # six idle steps in the last run are too few to break it: 52 to 82, less ten
    assert ranges_of(kept) == ((0, 10), (52, 72))


def test_rdt_starts_one_step_before_the_arm_leaves():
    state = np.array([[0.0], [0.005], [0.009], [0.02], [0.03]])
    assert rdt_kept(state).tolist() == [False, False, True, True, True]
    assert not rdt_kept(state[:2]).any()


def test_a_rule_that_removes_most_of_an_episode_must_be_allowed(write, conventions):
    still = np.zeros((10, 3), np.float32)
    still[:4, 0] = 0.5
    dataset = write("a.hdf5", {"actions": still}, {}, num_steps=10)
    with pytest.raises(UserError, match=r"demo_0: found 60% .*--allow-most"):
        kept_steps(dataset, Rules(noops="openvla"))
    kept = kept_steps(dataset, Rules(noops="openvla", allow_most=True))
    assert [int(steps.sum()) for steps in kept] == [4, 10]
    with pytest.raises(UserError, match="rdt looks at the state"):
        kept_steps(dataset, Rules(noops="droid"))


def test_failures_and_odd_lengths_are_left_out_whole(tmp_path, conventions, make_episode):
    with EpisodeWriter(tmp_path / "a.hdf5", conventions) as writer:
        for seed, num_steps in enumerate([10, 11, 9, 10, 60, 3]):
            writer.add(**make_episode(seed, num_steps, success=[True, False, None][seed % 3]))
    dataset = open_dataset(tmp_path / "a.hdf5")

    def left(rules):
        return [index for index, steps in enumerate(kept_steps(dataset, rules)) if steps.any()]

    assert left(Rules(drop_failures=True)) == [0, 2, 3, 5]
    assert left(Rules(min_steps=10, max_steps=11)) == [0, 1, 3]
    assert left(Rules(max_mads=3.0)) == [0, 1, 2, 3]
    with pytest.raises(UserError, match="Loosen the rules"):
        left(Rules(min_steps=100))


def test_episodes_are_left_out_by_name(demos, robot_data, tmp_path):
    dataset = open_dataset(demos)

    def left(*names):
        kept = kept_steps(dataset, Rules(leave_out=names))
        return [index for index, steps in enumerate(kept) if not steps.any()]

    assert left("demo_1", dataset[3].name, "data/demo_10") == [1, 3, 10]
    with pytest.raises(UserError, match=r"'demo_99': found none.*Correct the name") as caught:
        left("demo_99", "demo_0")
    assert len(caught.value.faults) == 1
    two = open_dataset([demos, shutil.copy(demos, tmp_path / "more.hdf5")])
    with pytest.raises(UserError, match=r"found 2 episodes of that name.*more of its name"):
        kept_steps(two, Rules(leave_out=("demo_1",)))
    kept = kept_steps(two, Rules(leave_out=("more.hdf5:data/demo_1",)))
    assert [index for index, steps in enumerate(kept) if not steps.any()] == [13]
    code, out, err = robot_data(
        *("filter", demos, tmp_path / "keep.json", "--leave-out", "demo_1", "--leave-out", "demo_3")
    )
    assert (code, "10 of 12 episodes" in out) == (0, True), err
    assert len(open_dataset(demos, keep=tmp_path / "keep.json")) == 10


# keep-files


def test_ranges_and_steps_are_inverse():
    rng = np.random.default_rng(0)
    for _ in range(50):
        kept = rng.random(20) < 0.5
        assert steps_of(ranges_of(kept)).tolist() == np.flatnonzero(kept).tolist()


def test_relative_names_leave_out_the_shared_folder():
    names = ["x/demos/a.hdf5:data/demo_0", "x/demos/b/c.hdf5:data/demo_10"]
    assert relative_names(names) == ["a.hdf5:data/demo_0", "b/c.hdf5:data/demo_10"]
    assert relative_names(["a.hdf5:data/demo_0"]) == ["a.hdf5:data/demo_0"]
    assert relative_names(["demos/episode_3.hdf5"]) == ["episode_3.hdf5"]


def test_a_keep_file_that_says_something_impossible_is_refused(tmp_path):
    path = tmp_path / "keep.json"
    path.write_text(
        '{"format": "policy_ft keep ranges 1", "fingerprint": "", "rule": "",'
        ' "episodes": {"a.hdf5:data/demo_0": [[5, 9], [7, 12]]}}'
    )
    with pytest.raises(UserError, match=r"demo_0.*rising ranges.*robot-data filter"):
        read_keep(path)
    with pytest.raises(UserError, match="Correct the path"):
        read_keep(tmp_path / "none.json")


def test_a_keep_file_of_other_data_is_refused(write, tmp_path):
    dataset = write("a.hdf5", {}, {})
    write_split_keep(dataset, split(dataset, 0.5), tmp_path / "parts", "a rule")
    (tmp_path / "other").mkdir()
    write("other/a.hdf5", {"instruction": "something else"}, {})
    with pytest.raises(UserError, match="Make the keep-file again"):
        open_dataset(tmp_path / "other" / "a.hdf5", keep=tmp_path / "parts" / "train.json")
