import fcntl
import gc
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.storage.hdf5.opening import open_hdf5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file .0 bytes.*record it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "web page.*direct link"),
        (b"PK\x03\x04 a zip", "starts with b'PK.*Give an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n only the signature", "cut short or damaged.*record it again"),
    ],
)
def test_a_file_that_is_no_whole_hdf5_says_what_it_is(tmp_path, content, words):
    path = tmp_path / "demos.hdf5"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        open_dataset(path)


@pytest.mark.parametrize("kept", [0.25, 0.5, 0.999])
def test_a_truncated_file_is_told_from_a_whole_one(demos, kept):
    size = demos.stat().st_size
    os.truncate(demos, int(size * kept))
    with pytest.raises(UserError, match=r"cut short or damaged.*truncated"):
        open_dataset(demos)


def test_a_missing_file_suggests_the_nearest_name(demos):
    with pytest.raises(UserError, match=r"no such file.*did you mean 'push.hdf5'"):
        open_dataset(demos.with_name("pushed.hdf5"))


def test_a_place_without_files_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no matching file.*Correct the path"):
        open_dataset(tmp_path)
    with pytest.raises(UserError, match="no matching file"):
        open_dataset(f"{tmp_path}/*.hdf5")
    with pytest.raises(UserError, match="an empty list"):
        open_dataset([])


def test_a_file_given_twice_is_refused(demos):
    with pytest.raises(UserError, match="Give each file once"):
        open_dataset([demos, demos])


def test_a_locked_file_says_so(demos):
    with demos.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Wait until the process that writes it is done"):
            open_hdf5(demos)
    open_hdf5(demos).close()


def test_a_file_that_is_read_cannot_be_changed_and_one_that_is_changed_cannot_be_read(demos):
    """What docs/robot-data.md promises of readers and writers at the same time."""
    write = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+')\n"
    hold = write + "print('open', flush=True); sys.stdin.readline()"
    dataset = open_dataset(demos)
    frame = dataset[1].image("front", 3)  # keeps the file open
    tried = subprocess.run([sys.executable, "-c", write, demos], capture_output=True, check=False)
    assert b"unable to lock file" in tried.stderr
    np.testing.assert_array_equal(dataset[1].image("front", 3), frame)
    del dataset
    gc.collect()
    writer = subprocess.Popen(
        [sys.executable, "-c", hold, demos], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(UserError, match="Wait until the process that writes it is done"):
            open_dataset(demos)
    finally:
        writer.communicate(b"\n")
    assert len(open_dataset(demos)) == 12


def _edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def _replace(file, name, data):
    del file[name]
    file[name] = data


def _delete_all(file):
    for name in list(file["data"]):
        del file["data"][name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_delete_all, "no episodes in the group 'data'.*Record at least one"),
        (lambda f: f.move("data/demo_3/actions", "data/demo_3/action"), "did you mean 'action'"),
        (lambda f: f.move("data/demo_3/obs/state", "data/demo_3/obs/stat"), "mean 'obs/stat'"),
        (
            lambda f: f.move("data/demo_3/obs/front_image", "data/demo_3/obs/forward_image"),
            "a dataset 'obs/front_image'.*Correct the layout's key",
        ),
        (
            lambda f: _replace(f, "data/demo_3/actions", np.zeros((23, 7), np.float32)),
            "7 columns; expected the 3 columns .*Correct the names",
        ),
        (
            lambda f: _replace(f, "data/demo_3/actions", np.array([b"a"] * 23)),
            "numbers, one row a step. Convert the dataset",
        ),
        (
            lambda f: _replace(f, "data/demo_3/obs/state", np.zeros((22, 3), np.float32)),
            "23 actions and 22 states; expected as many of each. Record it again or trim it",
        ),
        (
            lambda f: _replace(f, "data/demo_3/obs/front_image", np.zeros((5, 9), np.uint8)),
            "5 frames for 23 actions; expected one frame an action",
        ),
        (
            lambda f: _replace(f, "data/demo_3/obs/front_image", np.zeros((23, 9), np.float32)),
            "Correct the camera's size in the conventions, or convert the frames",
        ),
        (
            lambda f: _replace(f, "data/demo_3/obs/front_image", np.zeros((23, 9, 9, 3), np.uint8)),
            r"expected raw uint8\[t, 32, 48, 3\]",
        ),
        (
            lambda f: f["data/demo_3/obs/front_image"].attrs.__setitem__("encoding", "webp"),
            "encoding 'webp'.*convert the frames",
        ),
        (
            lambda f: f["data/demo_3/obs/front_image"].attrs.__setitem__("color_order", "bgr"),
            "color_order 'bgr', and 'rgb' in the conventions.*Correct the one that is wrong",
        ),
        (
            lambda f: f["data/demo_3"].attrs.__setitem__("num_samples", 24),
            "num_samples 24 and 23 actions.*Correct the attribute",
        ),
        (lambda f: f["data/demo_3"].attrs.__setitem__("fps", 20), "fps 20.*the same rate"),
        (
            lambda f: f["data/demo_3"].attrs.__setitem__("attributes", "{"),
            "expected a JSON object. Mend or delete it",
        ),
        (
            lambda f: f["data/demo_3"].attrs.__delitem__("language_instruction"),
            "no instruction.*layout.instruction",
        ),
        (lambda f: f["data"].attrs.__setitem__("schema_version", 9), "9; expected 1.*or upgrade"),
        (
            lambda f: f["data"].attrs.__setitem__("conventions", '{"camras": []}'),
            "did you mean 'cameras'",
        ),
        (
            lambda f: f["data"].attrs.__delitem__("conventions"),
            "no conventions.*Write push.hdf5.conventions.yaml beside it",
        ),
    ],
)
def test_a_fault_of_structure_is_told_with_its_remedy(demos, change, words):
    _edit(demos, change)
    with pytest.raises(UserError, match=words):
        open_dataset(demos)


def test_faults_of_all_files_and_episodes_are_told_together(demos, tmp_path):
    (tmp_path / "broken.hdf5").write_bytes(b"")
    with h5py.File(demos, "r+") as file:
        del file["data/demo_1/actions"]
        del file["data/demo_7/obs/state"]
    with pytest.raises(UserError) as caught:
        open_dataset(tmp_path)
    faults = caught.value.faults
    assert [fault for fault in faults if "broken.hdf5: found an empty file" in fault]
    assert [fault for fault in faults if "demo_1" in fault and "'actions'" in fault]
    assert [fault for fault in faults if "demo_7" in fault and "'obs/state'" in fault]
    (readable,) = [fault for fault in faults if "10 episodes without a fault" in fault]
    assert f"`robot-data salvage {demos} NEW.hdf5` copies the episodes that are whole" in readable
    assert len(faults) == 4


def test_more_than_twenty_faults_are_counted():
    error = UserError([f"fault {i}" for i in range(25)])
    assert str(error).splitlines()[-1] == "... and 5 more faults"
    assert len(error.faults) == 25
