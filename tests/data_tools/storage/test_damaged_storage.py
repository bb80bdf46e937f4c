"""What HDF5 would read as other numbers, or without end, is refused before it is asked to."""

import os

import h5py
import numpy as np
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from tests.data_tools.fixtures import d4rl, droid, libero, mimicgen, minari, rdt, robomimic
from tests.data_tools.fixtures.contents import state_rows

POSITIONS = "data/demo_1/obs/robot0_eef_pos"


@pytest.fixture
def lift(tmp_path):
    path = robomimic.write(tmp_path / "lift.hdf5")
    layout = {"preset": "robomimic", "instruction": {"text": "lift it"}}
    path.with_name("conventions.yaml").write_text(yaml.safe_dump({"layout": layout}))
    return path


def replaced(path, **options):
    """The positions of demo_1 as a dataset made anew."""
    file = h5py.File(path, "r+")
    del file[POSITIONS]
    return file, file.create_dataset(POSITIONS, (6, 3), "f8", **options)


def zero_first_heap(path, length=512):
    """Zeros over the objects of the first heap, as a download that was cut off leaves."""
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL") + 16
    data[start : start + length] = bytes(length)
    path.write_bytes(data)


def every_frame(path):
    dataset = open_dataset(path, allow_undeclared=True)
    for i in range(len(dataset)):
        for camera in dataset.conventions.camera_names:
            for step in range(dataset[i].num_steps):
                dataset[i].image(camera, step)


def test_rows_that_were_never_written_are_no_zeros(lift):
    file, dataset = replaced(lift, chunks=(2, 3))
    with file:
        dataset[:4] = state_rows(6, 3, 1)[:4]
    with pytest.raises(UserError, match=r"2 of 3 chunks were ever written; expected stored"):
        open_dataset(lift)


def test_a_chunk_that_skipped_its_filter_has_the_size_of_its_rows(lift):
    file, dataset = replaced(lift, chunks=(6, 3), compression="gzip")
    with file:
        dataset.id.write_direct_chunk((0, 0), b"too short", filter_mask=1)
    with pytest.raises(UserError, match=r"a chunk of 9 bytes that skipped its filters, for 144"):
        open_dataset(lift)


def test_a_chunk_that_does_not_decompress_points_to_salvage(lift):
    file, dataset = replaced(lift, chunks=(6, 3), compression="gzip")
    with file:
        dataset.id.write_direct_chunk((0, 0), b"no deflate stream")
    with pytest.raises(UserError, match=r"damaged storage.*Take what is left with robot-data salv"):
        open_dataset(lift)[1].state()


def test_numbers_of_a_type_with_a_changed_bit_are_not_read_as_others(lift):
    with h5py.File(lift, "r+") as file:
        values = file[POSITIONS][()]
        del file[POSITIONS]
        kind = h5py.h5t.IEEE_F64LE.copy()
        kind.set_ebias(1022)  # doubles every number
        space = h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(file.id, POSITIONS.encode(), kind, space).write(
            h5py.h5s.ALL, h5py.h5s.ALL, values
        )
    with pytest.raises(UserError, match=r"numbers of no known type.*Record it again"):
        open_dataset(lift)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_heap_of_zeros_behind_an_attribute_is_told_and_not_read_without_end(lift, libver):
    with h5py.File(lift) as old, h5py.File(lift.with_name("new.hdf5"), "w", libver=libver) as new:
        old.copy("data", new)
    lift.unlink()
    zero_first_heap(lift.with_name("new.hdf5"))
    with pytest.raises(UserError, match=r"list of objects is broken.*robot-data salvage"):
        open_dataset(lift.with_name("new.hdf5"))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("layout", [rdt, minari])
def test_a_heap_of_zeros_behind_frames_is_told_and_not_read_without_end(tmp_path, layout):
    path = layout.write(tmp_path / "demos")
    (*_, file) = sorted([*path.rglob("*.hdf5")])
    data = file.read_bytes()
    places = [i for i in range(0, len(data), 8) if data[i : i + 4] == b"GCOL"]
    damaged = bytearray(data)
    for place in places[-3:]:
        damaged[place + 16 : place + 528] = bytes(512)
    file.write_bytes(damaged)
    with pytest.raises(UserError, match="broken"):
        every_frame(path)


def make_view(file, place, source):
    layout = h5py.VirtualLayout(shape=(6, 3), dtype="f8")
    layout[:] = h5py.VirtualSource(".", source, shape=(6, 3))
    file.create_virtual_dataset(place, layout)


@pytest.mark.parametrize("source", [POSITIONS, "another_view"])
def test_a_view_that_shows_itself_is_refused(lift, source):
    with h5py.File(lift, "r+") as file:
        del file[POSITIONS]
        make_view(file, POSITIONS, source)
        make_view(file, "another_view", POSITIONS)
    with pytest.raises(UserError, match=r"expected a view of a dataset that is none itself. Copy"):
        open_dataset(lift)


def test_a_view_of_the_same_file_is_read(lift):
    with h5py.File(lift, "r+") as file:
        file.move(POSITIONS, "kept")
        make_view(file, POSITIONS, "kept")
    np.testing.assert_allclose(open_dataset(lift)[1].state()[:, :3], state_rows(6, 9, 1)[:, :3])


def test_frames_that_were_never_written_are_not_black(lift):
    with h5py.File(lift, "r+") as file:
        frames = file["data/demo_1/obs/agentview_image"][()]
        del file["data/demo_1/obs/agentview_image"]
        made = file.create_dataset(
            "data/demo_1/obs/agentview_image", frames.shape, "u1", chunks=(2, *frames.shape[1:])
        )
        made[:4] = frames[:4]
    episode = open_dataset(lift)[1]
    np.testing.assert_array_equal(episode.image("agentview", 3), frames[3])
    with pytest.raises(UserError, match=r"row 4 was never written; expected a whole image"):
        episode.image("agentview", 4)


def test_facts_that_were_never_written_are_no_zeros(tmp_path):
    path = mimicgen.write(tmp_path / "lift.hdf5")
    with h5py.File(path, "r+") as file:
        del file["data/demo_0/src_demo_inds"]
        file["data/demo_0"].create_dataset("src_demo_inds", (6,), "i8", chunks=(1,))[0] = 3
    with pytest.raises(UserError, match=r"1 of 6 chunks were ever written"):
        open_dataset(path, allow_undeclared=True)


def test_bytes_behind_the_end_are_told(lift):
    assert "surplus_bytes" not in {f.rule for f in open_dataset(lift).inspected.warnings}
    with lift.open("ab") as file:
        file.write(bytes(100))
    (finding,) = open_dataset(lift).inspected.warnings
    assert (finding.rule, finding.value) == ("surplus_bytes", "100 bytes more than the file states")


def test_a_camera_that_the_first_episode_lacks_is_told(lift):
    with h5py.File(lift, "r+") as file:
        del file["data/demo_0/obs/agentview_image"]
    dataset = open_dataset(lift)
    assert "agentview" not in dataset.conventions.camera_names
    (finding,) = dataset.inspected.warnings
    assert "data/demo_1/agentview" in finding.where
    assert "frames, but none in the first episode" in finding.value


@pytest.mark.parametrize("group", ["data", "data/demo_1/obs"])
def test_a_name_that_is_no_text_is_told(lift, group):
    with h5py.File(lift, "r+") as file:
        h5py.h5g.create(file[group].id, b"\xff\xfe")
    with pytest.raises(UserError, match=r"expected names in UTF-8. Rename it"):
        open_dataset(lift)


def test_a_name_that_is_no_text_is_harmless_where_nobody_looks(lift):
    with h5py.File(lift, "r+") as file:
        h5py.h5g.create(file.id, b"\xff\xfe")
    np.testing.assert_allclose(open_dataset(lift)[1].state(), state_rows(6, 9, 1), rtol=1e-6)


@pytest.mark.parametrize("value", [np.zeros(5000), "no JSON"])
def test_a_fact_that_is_none_is_told_with_its_remedy(tmp_path, value):
    path = libero.write(tmp_path / "demos.hdf5")
    with h5py.File(path, "r+") as file:
        file["data"].attrs["problem_info"] = value
    with pytest.raises(UserError, match=r"JSON.* Mend or delete it|Mend it, or name"):
        open_dataset(path, allow_undeclared=True)


def test_a_width_no_robot_has_is_told_in_time(lift):
    with h5py.File(lift, "r+") as file:
        for number in (0, 1):
            del file[f"data/demo_{number}/actions"]
            file[f"data/demo_{number}"].create_dataset(
                "actions", (6, 1 << 40), "f8", chunks=(1, 1 << 20)
            )
    with pytest.raises(UserError, match=r"expected at most 2048 MiB an episode"):
        open_dataset(lift)


def test_a_lost_mark_of_ends_is_told(tmp_path):
    path = d4rl.write(tmp_path / "demos.hdf5")
    with h5py.File(path, "r+") as file:
        del file["timeouts"]
    warnings = open_dataset(path, allow_undeclared=True).inspected.warnings
    assert [finding.rule for finding in warnings] == ["missing_ends"]
    assert warnings[0].value == "only ['terminals']"


@pytest.mark.parametrize("command", ["inspect", "validate"])
def test_a_file_that_was_cut_short_ends_with_code_2_and_points_to_salvage(
    lift, robot_data, command
):
    os.truncate(lift, 20_000)
    code, _, told = robot_data(command, lift)
    assert code == 2
    assert "cut short or damaged" in told
    assert "robot-data salvage takes what is left of it" in told


def test_a_file_with_a_broken_episode_says_how_many_are_readable(lift, robot_data):
    with h5py.File(lift, "r+") as file:
        del file["data/demo_1/actions"]
    code, told, _ = robot_data("validate", lift)
    assert code == 1
    assert "demo_1: found the datasets" in told
    assert "robot-data salvage copies the whole episodes" in told
    code, _, told = robot_data("inspect", lift)
    assert code == 2
    assert "demo_1: found the datasets" in told
    assert "found 1 episodes without a fault beside these" in told
    assert f"`robot-data salvage {lift} NEW.hdf5` copies the episodes that are whole" in told


@pytest.mark.parametrize("count", [10, 5000])
def test_a_chunk_with_other_than_its_frame_is_no_frame(lift, count):
    place = "data/demo_1/obs/agentview_image"
    with h5py.File(lift, "r+") as file:
        frames = file[place][()]
        del file[place]
        made = file.create_dataset(place, data=frames, chunks=(1, *frames.shape[1:]))
        made.id.write_direct_chunk((2, 0, 0, 0), bytes(count))
    episode = open_dataset(lift)[1]
    np.testing.assert_array_equal(episode.image("agentview", 1), frames[1])
    with pytest.raises(UserError, match=r"expected a whole image. Leave the episode out"):
        episode.image("agentview", 2)


def test_a_video_of_no_bytes_is_told(tmp_path):
    folder = droid.write(tmp_path / "demos", episodes=1)
    for video in folder.rglob("*.mp4"):
        video.write_bytes(b"")
    with pytest.raises(UserError, match=r"a video that cannot be opened"):
        open_dataset(folder)
