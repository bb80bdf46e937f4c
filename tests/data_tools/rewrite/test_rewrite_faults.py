"""What a rewriting command refuses instead of making other data out of it, and says."""

import io
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from data_tools.errors import UserError
from data_tools.formats.keep_files import keep_steps, relative_names
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert
from data_tools.rewrite.filtering import Rules, kept_steps
from data_tools.rewrite.merge import merge
from data_tools.rewrite.repack import repack
from data_tools.rewrite.salvage import salvage
from data_tools.rewrite.split import split, write_split_masks
from tests.data_tools.layout_cases import CASES, written

# repack


@pytest.mark.parametrize("name", ["actions", "obs/front_image"])
def test_chunks_that_were_never_written_do_not_become_zeros(tmp_path, name):
    shapes = {"actions": (20, 3), "obs/front_image": (20, 32, 48, 3)}
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for each, shape in shapes.items():
            dtype = np.uint8 if len(shape) == 4 else np.float32
            data = file.create_dataset(f"data/demo_0/{each}", shape, dtype, chunks=(5, *shape[1:]))
            data[:10] = 7
            if each != name:
                data[10:] = 7
    with pytest.raises(UserError, match=rf"{name}: found 2 of 4 chunks.*robot-data salvage"):
        repack(tmp_path / "a.hdf5", tmp_path / "b.hdf5")
    assert not list(tmp_path.glob("b*"))
    drop = [name.rpartition("/")[2]]
    repack(tmp_path / "a.hdf5", tmp_path / "b.hdf5", drop=drop)


def test_data_that_lie_in_other_files_are_not_taken_into_a_copy(demos, tmp_path):
    (tmp_path / "secret.txt").write_bytes(b"a secret " * 20)
    other = h5py.VirtualLayout((20, 3), "f4")
    other[:] = h5py.VirtualSource("other.hdf5", "data/demo_0/actions", (20, 3))
    with h5py.File(demos, "r+") as file:
        demo = file["data/demo_0"]
        demo.create_dataset(
            "stored", (100,), "u1", external=[(str(tmp_path / "secret.txt"), 0, 100)]
        )
        demo.create_virtual_dataset("view", other)
    words = r"(?s)stored: found data stored in .*secret\.txt.*view: found a virtual .*other\.hdf5"
    dataset = open_dataset(demos)
    with pytest.raises(UserError, match=words):
        repack(demos, tmp_path / "new.hdf5")
    with pytest.raises(UserError, match=words):
        merge(dataset, tmp_path / "new.hdf5")
    with pytest.raises(UserError, match=words):
        write_split_masks(dataset, split(dataset), demos, tmp_path / "new.hdf5")
    assert not list(tmp_path.glob("new*"))


@pytest.mark.parametrize("images", ["jpeg", "png", "raw"])
@pytest.mark.parametrize("mode", ["grey", "depth", "palette", "alpha"])
def test_images_whose_every_number_counts_keep_their_bytes(tmp_path, mode, images):
    rng = np.random.default_rng(0)
    shape = (40, 40, 4) if mode == "alpha" else (40, 40)
    dtype = np.uint16 if mode == "depth" else np.uint8
    rows = []
    for _ in range(3):
        image = Image.fromarray(rng.integers(0, np.iinfo(dtype).max, shape, dtype))
        stream = io.BytesIO()
        (image.convert("P") if mode == "palette" else image).save(stream, "PNG")
        rows.append(np.frombuffer(stream.getvalue(), np.uint8))
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        masks = file.create_dataset("masks", 3, dtype=h5py.vlen_dtype(np.uint8))
        padded = file.create_dataset("padded", (3, max(map(len, rows))), np.uint8)
        for step, row in enumerate(rows):
            masks[step] = row
            padded[step, : len(row)] = row
    repack(tmp_path / "a.hdf5", tmp_path / "b.hdf5", images=images)
    with h5py.File(tmp_path / "b.hdf5") as file:
        for step, row in enumerate(rows):
            np.testing.assert_array_equal(file["masks"][step], row)
            np.testing.assert_array_equal(file["padded"][step, : len(row)], row)


def break_a_frame(path):
    with h5py.File(path, "r+") as file:
        frames = file["data/demo_0/obs/front_image"]
        row = frames[5]
        row[len(row) // 2 :] = 0
        frames[5] = row


@pytest.mark.parametrize("to", ["native", "minari", "robomimic"])
def test_a_truncated_jpeg_is_not_copied(demos, tmp_path, to):
    break_a_frame(demos)
    with pytest.raises(UserError, match=r"demo_0/obs/front_image, step 5: .*a whole image"):
        convert(open_dataset(demos), tmp_path / "new", to)
    with pytest.raises(UserError, match=r"demo_0/obs/front_image, step 5: .*a whole image"):
        repack(demos, tmp_path / "new.hdf5")
    assert not list(tmp_path.glob("new*"))


def test_a_folder_is_not_repacked_into_itself(robot_data, demos):
    folder = demos.parent
    for out in (folder / "fast", folder):
        code, _, err = robot_data("repack", folder, out)
        assert (code, "Choose a folder beside it" in err) == (2, True)
    assert list(folder.iterdir()) == [demos]


def test_a_copy_beside_repacked_files_that_is_another_one_by_now_is_named(
    robot_data, demos, tmp_path
):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    demos.rename(source / "push.hdf5")
    (source / "notes.txt").write_text("old")
    assert robot_data("repack", source, out)[0] == 0
    assert (out / "notes.txt").read_text() == "old"
    (source / "notes.txt").write_text("new")
    code, _, err = robot_data("repack", source, out)
    assert (code, f"{out}/notes.txt: found not what" in err) == (2, True)
    assert (out / "notes.txt").read_text() == "old"


def test_what_is_in_the_way_of_a_repacked_file_is_only_taken_when_it_is_the_same(
    robot_data, demos, tmp_path
):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    demos.rename(source / "push.hdf5")
    assert robot_data("repack", source, out)[0] == 0
    shutil.copy(source / "push.hdf5", source / "more.hdf5")
    code, told, _ = robot_data("repack", source, out)  # goes on with what is new
    assert (code, f"{out}/push.hdf5: there already" in told) == (0, True)
    assert len(open_dataset(out)) == 24
    for option in ("--images=png", "--quality=50", "--drop=wrist_image"):
        code, _, err = robot_data("repack", source, out, option)
        assert (code, "found something else than" in err) == (2, True)
        assert f"{out}/push.hdf5" in err
        assert f"{out}/more.hdf5" in err
    with h5py.File(source / "push.hdf5", "r+") as file:
        file["data/demo_0/actions"][0] = 0
    code, _, err = robot_data("repack", source, out)
    assert (code, "more.hdf5" in err, "push.hdf5" in err) == (2, False, True)
    (out / "push.hdf5").write_text("no HDF5")
    assert robot_data("repack", source, out)[0] == 2


# convert


def test_options_that_would_do_nothing_or_are_out_of_range_are_refused(demos, tmp_path):
    dataset = open_dataset(demos)
    for to in ("native", "aloha", "robomimic", "lerobot-v3"):
        for quality in (0, 101, -5):
            with pytest.raises(UserError, match="a whole number from 1 to 100"):
                convert(dataset, tmp_path / "new", to, quality=quality)
    with pytest.raises(UserError, match="this format keeps no JPEG"):
        convert(dataset, tmp_path / "new", "aloha", quality=80)


def test_a_dataset_of_which_only_some_steps_may_start_is_not_converted(demos, tmp_path):
    dataset = open_dataset(demos)
    keep = tmp_path / "keep.json"

    def opened(first):
        kept = [first, *(np.zeros(dataset[i].num_steps, bool) for i in range(1, 12))]
        keep.write_text(keep_steps(dataset, kept, "a rule").model_dump_json())
        return open_dataset(demos, keep=keep)

    with pytest.raises(UserError, match=r"demo_0: found windows that start at 5 of 20 .*--apply"):
        convert(opened(np.arange(20) < 5), tmp_path / "new.hdf5", "native")
    kept = opened(np.ones(20, bool))
    convert(kept, tmp_path / "new.hdf5", "native")
    found = open_dataset(tmp_path / "new.hdf5")
    assert (len(found), found[0].num_steps) == (1, 20)
    assert found[0].jpeg("front", 3) == dataset[0].jpeg("front", 3) == kept[0].jpeg("front", 3)


def test_an_episode_of_which_no_step_is_left_is_named(robot_data, demos, tmp_path):
    arguments = "convert", demos, tmp_path / "new", "--to", "native", "--align", 25
    code, _, err = robot_data(*arguments)
    assert (code, err.count("no step left"), "(6 episodes: " in err) == (2, 1, True)
    assert "data/demo_5)" in err
    assert not list(tmp_path.glob("new*"))


def test_odd_sides_are_refused_with_the_options_that_help(robot_data, demos, tmp_path):
    for command in (("convert",), ("relabel", "--text", "push")):
        code, _, err = robot_data(*command, demos, tmp_path / "new", "--to", "lerobot-v3")
        assert (code, "--images png, or an even --size" in err) == (2, True)
    for option in ("--cameras=", "--size=", "--size=100000x100000", f"--size=2x{'9' * 5000}"):
        code, _, err = robot_data("convert", demos, tmp_path / "new", "--to", "native", option)
        name, _, value = option.removeprefix("--").partition("=")
        assert (code, f"{name}: found {value!r}"[:60] in err) == (2, True)


# split, merge, filter


@pytest.mark.parametrize("layout", ["d4rl", "maniskill", "minari", "aloha"])
def test_masks_are_refused_where_no_mask_can_name_the_episodes(tmp_path, layout):
    (case,) = [case for case in CASES if case.layout == layout]
    path = written(case, tmp_path / "source")
    file = path if path.is_file() else next(path.rglob("*.h*5"))
    dataset = open_dataset(path, allow_undeclared=True)
    parts = split(dataset, 0.5)
    with pytest.raises(UserError, match="Give OUT as a folder"):
        write_split_masks(dataset, parts, file, tmp_path / "new.hdf5")
    assert not list(tmp_path.glob("new*"))


def test_a_seed_below_zero_and_a_named_attribute_of_no_episode_are_refused(robot_data, demos):
    for option, words in (
        ("--seed=-3", "seed: found -3; expected 0 or more"),
        ("--group=sed", "group: found 'sed', of no episode; expected one of ['seed'"),
        ("--group=scene", "group: found 'scene', of no episode"),
    ):
        code, _, err = robot_data("split", demos, demos.parent / "new", option)
        assert (code, words in err) == (2, True)
    assert robot_data("split", demos, demos.parent / "new", "--group=seed")[0] == 0


def test_a_filter_key_that_is_no_list_of_names_is_named(demos, tmp_path):
    with h5py.File(demos, "r+") as file:
        file["mask/train"] = np.arange(3)
        file.create_dataset("mask/large", (5_000_000,), "S1000", chunks=(1,))
    with pytest.raises(UserError, match=r"(?s)mask/large: .*mask/train: .*a list of names"):
        merge(open_dataset(demos), tmp_path / "new.hdf5")


def test_rules_that_mean_nothing_are_refused(demos, tmp_path, robot_data):
    dataset = open_dataset(demos)
    with pytest.raises(UserError, match=r"(?s)min_steps: .*max_steps: .*max_mads: .*allow_most"):
        kept_steps(dataset, Rules(min_steps=-5, max_steps=0, max_mads=-1.0, allow_most=True))
    with pytest.raises(UserError, match="max_steps: found 3; expected 9 or more"):
        kept_steps(dataset, Rules(min_steps=9, max_steps=3))
    with pytest.raises(UserError, match="max_mads: found nan"):
        kept_steps(dataset, Rules(max_mads=float("nan")))
    code, _, err = robot_data("filter", demos, tmp_path / "keep.json")
    assert (code, "found no rule" in err, (tmp_path / "keep.json").exists()) == (2, True, False)


def test_relative_and_absolute_paths_name_episodes_alike(demos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    absolute = relative_names(
        [f"{tmp_path}/a/x.hdf5:data/demo_0", f"{tmp_path}/y.hdf5:data/demo_0"]
    )
    mixed = relative_names(["a/x.hdf5:data/demo_0", f"{tmp_path}/y.hdf5:data/demo_0"])
    assert mixed == absolute == ["a/x.hdf5:data/demo_0", "y.hdf5:data/demo_0"]
    assert relative_names(["x.hdf5", "../y.hdf5"]) == [f"{tmp_path.name}/x.hdf5", "y.hdf5"]


# what cannot be written, and salvage


@pytest.mark.parametrize("name", ["keep.json", "a.hdf5", "a" * 300])
def test_a_place_that_cannot_be_written_ends_with_2_and_one_sentence(robot_data, demos, name):
    out = f"/proc/{name}"
    for command in (
        ("filter", demos, out, "--min-steps", 2),
        ("salvage", demos, out),
        ("repack", demos, out),
        ("merge", demos, out),
        ("convert", demos, out, "--to", "native"),
        ("stats", demos, "--openpi", out),
    ):
        code, _, err = robot_data(*command)
        assert (code, out in err, "Choose a" in err) == (2, True, True), (command, err)


FULL_DISK = """
import resource, signal, sys
from data_tools.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
main()
"""


@pytest.mark.parametrize("command", ["merge", "split", "salvage", "repack"])
def test_a_full_disk_ends_with_2_and_one_sentence(demos, tmp_path, command):
    arguments = [sys.executable, "-c", FULL_DISK, "60000", command, demos, tmp_path / "new.hdf5"]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "free space there" in ran.stderr or "make room" in ran.stderr
    assert not (tmp_path / "new.hdf5").exists()


@pytest.mark.parametrize("to", ["native", "robomimic", "aloha", "minari"])
def test_convert_looks_for_room_before_each_episode(robot_data, demos, tmp_path, monkeypatch, to):
    free = iter([1 << 30, 1 << 30, 1_000_000])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=next(free)))
    code, _, err = robot_data("convert", demos, tmp_path / "new.hdf5", "--to", to)
    assert (code, "free space there" in err, "keeps 2 finished parts" in err) == (2, True, True)
    monkeypatch.undo()
    assert robot_data("convert", demos, tmp_path / "new.hdf5", "--to", to)[0] == 0


def test_the_current_folder_is_no_new_file(robot_data, demos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("merge", "salvage", "convert"):
        extra = ("--to", "native") if command == "convert" else ()
        code, _, err = robot_data(command, demos, ".", *extra)
        assert (code, "Choose another name" in err) == (2, True)
    assert os.listdir(tmp_path) == [demos.name]


@pytest.mark.parametrize("value", ["abc", [1, 2], 20.5])
def test_an_episode_whose_length_is_no_number_is_told(demos, tmp_path, value):
    with h5py.File(demos, "r+") as file:
        file["data/demo_0"].attrs["num_samples"] = value
        file["data/demo_1"].attrs["num_samples"] = np.array([21])
        file["mask/numbers"] = np.arange(3)
    episodes = salvage(demos, tmp_path / "new.hdf5").episodes
    lost = {each.group: each.losses for each in episodes if not each.is_whole}
    assert list(lost) == ["data/demo_0"]
    assert "not a whole number" in lost["data/demo_0"][0]


def test_a_file_that_is_open_for_reading_is_salvaged_all_the_same(demos, tmp_path):
    dataset = open_dataset(demos)
    dataset[0].image("front", 0)  # the file stays open
    assert salvage(demos, tmp_path / "new.hdf5").is_complete


def test_salvage_of_a_folder_asks_for_a_file(robot_data, demos, tmp_path):
    code, _, err = robot_data("salvage", demos.parent, tmp_path / "new.hdf5")
    assert (code, "found a folder" in err, "one at a time" in err) == (2, True, True)
