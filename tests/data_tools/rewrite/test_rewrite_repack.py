import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.provenance import ATTRIBUTE
from data_tools.rewrite.repack import measure_access, repack
from data_tools.storage.frames.images import decode_frame

REPACK = """
import sys
from pathlib import Path
from data_tools.rewrite import repack
repack.PART_BYTES = 100_000
told = iter(range(10_000))
repack.repack(Path(sys.argv[1]), Path(sys.argv[2]), images=sys.argv[3],
              advance=lambda done, total: print(done, total, flush=True))
"""


@pytest.fixture
def slow_file(tmp_path):
    """Everything a lab's file may hold, stored as slowly as gzip and auto-chunking allow."""
    rng = np.random.default_rng(0)
    path = tmp_path / "slow.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["made_by"] = "a lab"
        for number in range(3):
            demo = file.create_group(f"data/demo_{number}", track_order=True)
            demo.attrs["model_file"] = "<mujoco/>" * 9000  # longer than 64 kB
            demo.attrs["nothing"] = h5py.Empty("f4")
            demo.attrs["sizes"] = np.arange(3, dtype=np.int16)
            frames = rng.integers(0, 60, (30, 32, 48, 3), dtype=np.uint8)
            obs = demo.create_group("obs")
            obs.create_dataset("front_image", data=frames, compression="gzip", chunks=True)
            obs["front_image"].attrs["color_order"] = "bgr"
            depth = rng.integers(0, 9000, (30, 32, 48), dtype=np.uint16)
            obs.create_dataset("front_depth", data=depth, compression="gzip")
            obs.create_dataset("state", data=rng.normal(size=(30, 7)), compression="gzip")
            demo.create_dataset("actions", data=rng.normal(size=(30, 7)), chunks=True)
            demo.create_dataset("next_obs/state", data=rng.normal(size=(30, 7)))
            demo["length"] = 30
            demo["words"] = ["pick", "place"]
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])
        file["latest"] = h5py.SoftLink("/data/demo_2")
        file["again"] = file["data/demo_1"]
    return path


def tree_of(path, drop=()):
    """Path -> (values or None, attributes) of everything in a file."""
    found = {}

    def visit(name, item):
        if not set(name.split("/")) & set(drop):
            values = item[()] if isinstance(item, h5py.Dataset) else None
            found[name] = (values, {k: repr(v) for k, v in item.attrs.items()})

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


@pytest.mark.parametrize("images", ["raw", "blosc"])
def test_lossless_repacking_keeps_every_value_name_and_attribute(slow_file, tmp_path, images):
    repack(slow_file, tmp_path / "fast.hdf5", images=images)
    before, after = tree_of(slow_file), tree_of(tmp_path / "fast.hdf5")
    assert list(before) == list(after)
    for name, (values, attributes) in before.items():
        np.testing.assert_array_equal(after[name][0], values, err_msg=name)
        assert after[name][1] == attributes, name
    with h5py.File(tmp_path / "fast.hdf5") as file:
        assert file.attrs["made_by"] == "a lab"
        assert isinstance(file.get("latest", getlink=True), h5py.SoftLink)
        assert file["again"] == file["data/demo_1"]
        assert file["data/demo_0/obs/front_image"].chunks == (1, 32, 48, 3)
        assert file["data/demo_0/obs/state"].chunks is None
        assert file["data/demo_0/obs/state"].dtype == np.float64


@pytest.mark.parametrize(("images", "tolerance"), [("png", 0), ("jpeg", 24)])
def test_encoded_frames_are_the_frames_that_were_there(slow_file, tmp_path, images, tolerance):
    repack(slow_file, tmp_path / "fast.hdf5", images=images)
    with h5py.File(slow_file) as old, h5py.File(tmp_path / "fast.hdf5") as new:
        frames = new["data/demo_1/obs/front_image"]
        assert frames.attrs["encoding"] == images
        assert frames.attrs["color_order"] == "bgr"
        assert frames.chunks == (1, frames.shape[1])
        for step in (0, 13, 29):
            error = decode_frame(bytes(frames[step])).astype(int)
            error -= old["data/demo_1/obs/front_image"][step]
            assert abs(error).mean() <= tolerance / 4
            assert abs(error).max() <= tolerance * 2
        depth = new["data/demo_1/obs/front_depth"]
        assert depth.chunks == (1, 32, 48)
        np.testing.assert_array_equal(depth, old["data/demo_1/obs/front_depth"])


def test_frames_that_are_jpeg_already_keep_their_bytes(demos, tmp_path):
    repack(demos, tmp_path / "again.hdf5", quality=30)
    with h5py.File(demos) as old, h5py.File(tmp_path / "again.hdf5") as new:
        for name in ("data/demo_3/obs/front_image", "data/demo_11/obs/wrist_image"):
            np.testing.assert_array_equal(old[name], new[name])
            assert dict(old[name].attrs) == dict(new[name].attrs)
    assert open_dataset(tmp_path / "again.hdf5").fingerprint == open_dataset(demos).fingerprint


@pytest.mark.parametrize("kind", ["variable", "strings", "opaque"])
def test_jpeg_in_other_containers_keeps_its_bytes_one_frame_a_chunk(demos, tmp_path, kind):
    with h5py.File(demos) as file:
        encoded = [bytes(row).rstrip(b"\0") for row in file["data/demo_0/obs/front_image"]]
    width = max(map(len, encoded))
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        if kind == "variable":
            frames = file.create_dataset("rgb", len(encoded), dtype=h5py.vlen_dtype(np.uint8))
            for step, data in enumerate(encoded):
                frames[step] = np.frombuffer(data, np.uint8)
        else:
            file["rgb"] = np.array(encoded, f"{'S' if kind == 'strings' else 'V'}{width}")
    repack(tmp_path / "a.hdf5", tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert file["rgb"].chunks == ((1, width) if kind == "variable" else (1,))
        assert [bytes(row).rstrip(b"\0") for row in file["rgb"]] == encoded


def test_jpeg_is_decoded_when_pixels_are_asked_for(demos, tmp_path):
    repack(demos, tmp_path / "raw.hdf5", images="raw")
    with h5py.File(demos) as old, h5py.File(tmp_path / "raw.hdf5") as new:
        stored = old["data/demo_2/obs/front_image"]
        frame = decode_frame(bytes(stored[4]))
        np.testing.assert_array_equal(new["data/demo_2/obs/front_image"][4], frame)


@pytest.mark.parametrize("images", ["jpeg", "png", "blosc", "raw"])
def test_our_reader_reads_every_storage_from_every_storage(demos, tmp_path, images):
    dataset = open_dataset(demos)
    repack(demos, tmp_path / "raw.hdf5", images="raw")
    for source in (demos, tmp_path / "raw.hdf5"):
        target = tmp_path / f"{source.stem}_{images}.hdf5"
        repack(source, target, images=images)
        found = open_dataset(target)
        assert found.fingerprint == dataset.fingerprint
        error = found[5].image("wrist", 7).astype(int) - dataset[5].image("wrist", 7)
        is_again = images == "jpeg" and source != demos
        assert abs(error).max() <= (6 if is_again else 0)


def test_what_is_named_to_be_dropped_is_left_out_everywhere(slow_file, tmp_path):
    repack(slow_file, tmp_path / "fast.hdf5", images="raw", drop=["next_obs"])
    kept = tree_of(slow_file, drop=["next_obs"])
    assert list(tree_of(tmp_path / "fast.hdf5")) == list(kept)
    with pytest.raises(UserError, match="did you mean 'next_obs'"):
        repack(slow_file, tmp_path / "other.hdf5", drop=["next_osb"])
    assert not list(tmp_path.glob("other*"))


def test_repacking_keeps_the_conventions_that_lie_beside_the_file(demos, tmp_path):
    conventions = open_dataset(demos).conventions.model_dump(mode="json")
    (tmp_path / "push.hdf5.conventions.yaml").write_text(yaml.safe_dump(conventions))
    (tmp_path / "out").mkdir()
    repack(demos, tmp_path / "out" / "fast.hdf5")
    assert (tmp_path / "out" / "fast.hdf5.conventions.yaml").exists()
    assert len(open_dataset(tmp_path / "out")) == 12


def test_provenance_names_source_command_and_version_and_grows(demos, tmp_path):
    repack(demos, tmp_path / "a.hdf5", images="png")
    repack(tmp_path / "a.hdf5", tmp_path / "b.hdf5", images="raw")
    with h5py.File(tmp_path / "b.hdf5") as file:
        first, second = json.loads(file.attrs[ATTRIBUTE])
    assert first["sources"][0]["bytes"] == demos.stat().st_size
    assert first["sources"][0]["mtime_ns"] == demos.stat().st_mtime_ns
    assert (first["command"], second["settings"]["images"]) == ("repack", "raw")
    assert second["version"] == first["version"] != ""


def test_a_link_to_another_file_and_an_existing_target_are_refused(slow_file, tmp_path):
    with h5py.File(slow_file, "r+") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["data"].attrs["first"] = file["data/demo_0"].ref
    with pytest.raises(UserError, match=r"(?s)reference.*elsewhere: .*/etc/passwd.*Leave it out"):
        repack(slow_file, tmp_path / "fast.hdf5")
    before = slow_file.read_bytes()
    with pytest.raises(UserError, match="Choose another name"):
        repack(slow_file, slow_file)
    assert slow_file.read_bytes() == before


def test_a_broken_frame_is_named_and_leaves_nothing(demos, tmp_path):
    with h5py.File(demos, "r+") as file:
        file["data/demo_4/obs/wrist_image"][7, 300:] = 0
    with pytest.raises(UserError, match=r"demo_4/obs/wrist_image, step 7: .*whole image"):
        repack(demos, tmp_path / "raw.hdf5", images="raw")
    assert not list(tmp_path.glob("raw*"))


@pytest.mark.parametrize("images", ["jpeg", "blosc"])
def test_killed_anywhere_and_begun_again_gives_the_same_bytes(slow_file, tmp_path, images):
    def start(target):
        return subprocess.Popen(
            [sys.executable, "-c", REPACK, slow_file, target, images], stdout=subprocess.PIPE
        )

    whole = start(tmp_path / "whole.hdf5")
    num_lines = len(whole.communicate()[0].splitlines())
    target = tmp_path / "killed.hdf5"
    for place in (1, num_lines // 3, num_lines // 2, num_lines - 1):
        process = start(target)
        for _ in range(place):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not target.exists() or place == num_lines - 1
    if not target.exists():
        last = start(target)
        last.communicate()
        assert last.returncode == 0
    assert target.read_bytes() == (tmp_path / "whole.hdf5").read_bytes()
    assert not (tmp_path / "killed.hdf5.partial").exists()


def test_interrupted_work_is_not_mixed_with_other_settings(slow_file, tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.rewrite.repack.PART_BYTES", 100_000)

    def stop(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        repack(slow_file, tmp_path / "fast.hdf5", advance=stop)
    assert "Give the same command again to go on" in caught.value.__notes__[0]
    with pytest.raises(UserError, match=r"settings.*Give the command it was begun with"):
        repack(slow_file, tmp_path / "fast.hdf5", images="raw")
    repack(slow_file, tmp_path / "fast.hdf5")
    assert list(tree_of(tmp_path / "fast.hdf5")) == list(tree_of(slow_file))


def test_a_second_process_does_not_write_the_same_file(slow_file, tmp_path):
    command = [sys.executable, "-c", REPACK, slow_file, tmp_path / "fast.hdf5", "png"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE)
    first.stdout.readline()
    first.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(UserError, match="Wait until it is done"):
            repack(slow_file, tmp_path / "fast.hdf5", images="png")
    finally:
        first.send_signal(signal.SIGCONT)
    first.communicate()
    assert first.returncode == 0


def test_speed_is_measured_before_and_after(slow_file, tmp_path):
    repacked = repack(slow_file, tmp_path / "fast.hdf5", images="raw")
    assert repacked.before.num_bytes == slow_file.stat().st_size
    assert repacked.after.frames_per_s > repacked.before.frames_per_s
    assert "frames/s" in str(repacked.after)
    with h5py.File(tmp_path / "numbers.hdf5", "w") as file:
        file["action"] = np.zeros((9, 3))
    started = time.perf_counter()
    assert measure_access(tmp_path / "numbers.hdf5").frames_per_s is None
    assert time.perf_counter() - started < 0.5
