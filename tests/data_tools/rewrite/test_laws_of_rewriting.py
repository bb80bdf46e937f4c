"""What a rewritten dataset says: numbers, rows, starts, rewards, attributes, settings."""

import itertools
import subprocess
import sys

import h5py
import numpy as np
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.keep_files import KeptDataset
from data_tools.formats.layouts.sidecar import sidecar_of
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert
from data_tools.rewrite.edited import Edit, EditedDataset, all_with
from data_tools.rewrite.filtering import Rules, kept_steps
from data_tools.rewrite.merge import merge
from data_tools.rewrite.repack import repack
from data_tools.rewrite.salvage import salvage
from data_tools.storage.frames.images import decode_frame
from data_tools.writer import EpisodeWriter
from tests.data_tools.fixtures import robomimic

HOLD = """
import h5py, sys
with h5py.File(sys.argv[1], "r+", locking=True) as file:
    print("open", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def write(tmp_path, conventions, make_episode):
    """Writes a file of one episode for each mapping of changes; gives its dataset."""

    def make(*changes, name="a.hdf5"):
        with EpisodeWriter(tmp_path / name, conventions) as writer:
            for seed, change in enumerate(changes):
                writer.add(**make_episode(seed, **{"num_steps": 6, **change}))
        return open_dataset(tmp_path / name)

    return make


# Rows that are kept


def test_times_and_starts_are_those_of_the_rows_that_are_kept(write):
    """Of rows 1, 3 and 4, with windows that may start at 0, 3 and 5: only the one at row 3."""
    times = np.array([0, 0.1, 0.25, 0.4, 0.7, 1.1])
    dataset = KeptDataset(write({"times": times}), [np.array([0, 3, 5])])
    rows = np.array([1, 3, 4])
    (episode,) = EditedDataset(dataset, all_with(dataset, Edit(rows=rows)), dataset.conventions)
    np.testing.assert_array_equal(episode.times(), [0.1, 0.4, 0.7])
    np.testing.assert_array_equal(episode.starts(), [1])
    np.testing.assert_array_equal(episode.actions(), dataset[0].actions()[rows])


def test_lengths_far_from_the_median_are_measured_in_standard_deviations(write):
    """Around 20 the median deviation is 3, so a standard deviation counts 3 x 1.4826 steps."""
    lengths = [16, 17, 18, 20, 22, 23, 24]
    dataset = write(*({"num_steps": num_steps} for num_steps in lengths))

    def left(max_mads):
        kept = kept_steps(dataset, Rules(max_mads=max_mads))
        return [num_steps for num_steps, steps in zip(lengths, kept, strict=True) if steps.any()]

    assert np.median(np.abs(np.array(lengths) - 20)) == 3
    assert left(3 / (3 * 1.4826) + 1e-6) == [17, 18, 20, 22, 23]
    assert left(4 / (3 * 1.4826) + 1e-6) == lengths
    assert left(4 / (3 * 1.4826) - 1e-6) == [17, 18, 20, 22, 23]


# What other formats ask for


def test_rewards_of_robomimic_and_minari_are_for_successes_alone(write, tmp_path):
    dataset = write({"success": True}, {"success": False}, {"success": None})
    convert(dataset, tmp_path / "robomimic.hdf5", "robomimic")
    convert(dataset, tmp_path / "push-v0", "minari")
    last = [0, 0, 0, 0, 0, 1]
    with (
        h5py.File(tmp_path / "robomimic.hdf5") as ours,
        h5py.File(tmp_path / "push-v0/data/main_data.hdf5") as theirs,
    ):
        for number, expected in enumerate((last, [0] * 6, [0] * 6)):
            demo, episode = ours[f"data/demo_{number}"], theirs[f"episode_{number}"]
            assert demo["rewards"][()].tolist() == expected
            assert demo["dones"][()].tolist() == last
            assert episode["rewards"][()].tolist() == expected
            assert episode["terminations"][()].tolist() == expected
            assert (episode["terminations"][()] | episode["truncations"][()]).tolist() == last


def test_minari_has_the_last_observation_twice(write, tmp_path):
    dataset = write({})
    convert(dataset, tmp_path / "push-v0", "minari")
    with h5py.File(tmp_path / "push-v0/data/main_data.hdf5") as file:
        seen = file["episode_0/observations"]
        state, frames = seen["state"][()], seen["front"][()]
    np.testing.assert_array_equal(state[:-1], dataset[0].state())
    np.testing.assert_array_equal(state[-1], dataset[0].state()[-1])
    assert len(frames) == 7
    pictures = [decode_frame(np.asarray(row).tobytes().rstrip(b"\0")) for row in frames]
    np.testing.assert_array_equal(pictures[6], pictures[5])
    assert (pictures[6] != pictures[0]).any()


def test_velocities_of_aloha_are_per_second(write, tmp_path):
    dataset = write({})
    convert(dataset, tmp_path / "aloha", "aloha")
    with h5py.File(tmp_path / "aloha/episode_0.hdf5") as file:
        position, velocity = file["observations/qpos"][()], file["observations/qvel"][()]
    np.testing.assert_array_equal(velocity[0], 0)
    moved = np.cumsum(velocity[1:], axis=0) / dataset.conventions.control_hz
    np.testing.assert_allclose(moved, position[1:] - position[0], atol=1e-6)


# Copies


def test_a_repacked_attribute_has_its_type_and_shape(tmp_path):
    """Of numbers, of frames, of a group and of the root."""
    values = {
        "small": np.array([1, 2], np.int8),
        "half": np.float16(0.5),
        "single": np.float32(0.1),
        "long": np.uint64(2**63),
        "yes": np.bool_(True),
        "fixed": np.bytes_(b"m"),
        "table": np.arange(6, dtype=">i2").reshape(2, 3),
        "words": np.array(["a", "bc"], dtype=h5py.string_dtype()),
        "plain words": np.array(["a", "bc"], dtype=h5py.string_dtype("ascii")),
        "choice": np.array(1, dtype=h5py.enum_dtype({"open": 0, "closed": 1})),
        "nothing": h5py.Empty("f4"),
    }
    ragged = np.empty(2, object)
    ragged[:] = [np.array([1, 2], np.int16), np.array([3], np.int16)]
    places = ("/", "data", "data/actions", "data/front", "data/names")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        data = file.create_group("data")
        data.create_dataset("actions", data=np.ones((5, 3)), chunks=(2, 3), compression="gzip")
        data.create_dataset("front", data=np.zeros((5, 32, 32, 3), np.uint8))
        data["names"] = ["a", "b"]
        for place, (name, value) in itertools.product(places, values.items()):
            file[place].attrs[name] = value
        for place in places:
            file[place].attrs.create("ragged", ragged, dtype=h5py.vlen_dtype(np.int16))
    repack(tmp_path / "a.hdf5", tmp_path / "b.hdf5", images="png")

    def described(item):
        kinds = {name: item.attrs.get_id(name) for name in (*values, "ragged")}
        return {name: (kind.get_type(), kind.shape) for name, kind in kinds.items()}

    with h5py.File(tmp_path / "a.hdf5") as old, h5py.File(tmp_path / "b.hdf5") as new:
        assert new["data/actions"].chunks is None  # it was rewritten
        for place in places:
            assert described(new[place]) == described(old[place]), place
            for name in set(values) - {"nothing"}:
                np.testing.assert_array_equal(new[place].attrs[name], old[place].attrs[name])
            assert [row.tolist() for row in new[place].attrs["ragged"]] == [[1, 2], [3]]


def test_a_merged_file_is_declared_as_its_parts_were(tmp_path):
    """Their sidecar says that frames lie upside down; without it they would be read as they lie."""
    task = {"layout": {"preset": "robomimic", "instruction": {"text": "lift the cube"}}}
    turned = {"cameras": [{"name": "*", "orientation": "rotated_180"}]}
    files = [tmp_path / "a.hdf5", tmp_path / "b.hdf5"]
    for seed, path in enumerate(files):
        robomimic.write(path, seed=seed)
        sidecar_of(path).write_text(yaml.safe_dump(task | turned))
    merge(open_dataset(files), tmp_path / "all.hdf5")
    found = open_dataset(tmp_path / "all.hdf5")
    frames = {}
    for path in files:
        sidecar_of(path).write_text(yaml.safe_dump(task))
        for episode in open_dataset(path):
            frames[len(frames)] = episode.image("agentview", 2)[::-1, ::-1]
    assert len(found) == len(frames) == 4
    for number, expected in frames.items():
        np.testing.assert_array_equal(found[number].image("agentview", 2), expected)
        assert (expected != expected[::-1, ::-1]).any()


# Going on


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"quality": 50}, "quality"),
        ({"settings": {"align": 1}}, "align"),
        ({"command": "filter"}, "command"),
    ],
)
def test_an_interrupted_convert_goes_on_with_the_same_settings_alone(
    write, tmp_path, changes, named
):
    dataset = write({}, {}, {})

    def stop(done, total):
        raise KeyboardInterrupt

    begun = {"quality": 90, "settings": {"align": 0}}
    with pytest.raises(KeyboardInterrupt):
        convert(dataset, tmp_path / "out.hdf5", "native", advance=stop, **begun)
    with pytest.raises(UserError) as caught:
        convert(dataset, tmp_path / "out.hdf5", "native", **(begun | changes))
    assert any(named in fault for fault in caught.value.faults)
    assert not (tmp_path / "out.hdf5").exists()
    convert(dataset, tmp_path / "out.hdf5", "native", **begun)
    assert len(open_dataset(tmp_path / "out.hdf5")) == 3


# Salvaging


def test_a_file_that_a_living_process_writes_is_not_salvaged(demos, tmp_path):
    pipe = subprocess.PIPE
    words = [sys.executable, "-c", HOLD, demos]
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout.readline() == "open\n"
        try:
            with pytest.raises(UserError, match="locked by a process that writes it"):
                salvage(demos, tmp_path / "saved.hdf5")
        finally:
            holder.communicate("\n", timeout=20)
    assert not (tmp_path / "saved.hdf5").exists()
    assert salvage(demos, tmp_path / "saved.hdf5").is_complete


def test_a_disk_that_changes_what_is_copied_is_found_out(demos, tmp_path, monkeypatch):
    """HDF5 copies, and one number of the copy is another: the new file never gets its name."""
    copy = h5py.Group.copy

    def spoil(name, item):
        if isinstance(item, h5py.Dataset) and name.endswith("actions"):
            item[3, 0] += 1

    def copied(self, source, target, *arguments, **options):
        copy(self, source, target, *arguments, **options)
        target.visititems(spoil)

    monkeypatch.setattr(h5py.Group, "copy", copied)
    with pytest.raises(UserError, match=r"a copy of data/demo_\d+/actions that differs"):
        salvage(demos, tmp_path / "saved.hdf5")
    assert not list(tmp_path.glob("saved*"))
