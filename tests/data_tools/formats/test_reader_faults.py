"""What opening refuses and bounds: masks, clocks, sidecars, names; and what a fingerprint is of."""

import json
import shutil
import time

import h5py
import numpy as np
import pytest
import yaml

from data_tools.doctor.examination import validate
from data_tools.errors import UserError
from data_tools.formats.mapping.mapped import MappedDataset
from data_tools.formats.mapping.mapping import ConventionsMapping
from data_tools.formats.reader import open_dataset
from data_tools.storage.hdf5.soundness import storage_fault
from data_tools.writer import EpisodeWriter
from tests.data_tools.fixtures import robomimic


def declare(path, conventions, **others):
    """A sidecar that says of a file what `conventions` say, with some keys changed."""
    content = conventions.model_dump(mode="json") | others
    path.with_name(f"{path.name}.conventions.yaml").write_text(yaml.safe_dump(content))


def without_attributes(path):
    """The file with nothing in it that says how its frames lie."""
    with h5py.File(path, "r+") as file:
        del file["data"].attrs["conventions"]
        for episode in file["data"].values():
            for camera in ("front", "wrist"):
                for name in ("color_order", "orientation"):
                    del episode[f"obs/{camera}_image"].attrs[name]


def test_a_mask_without_episodes_is_refused_and_one_file_may_have_none(demos, tmp_path):
    other = shutil.copy(demos, tmp_path / "other.hdf5")
    for path, names in ((demos, []), (other, ["demo_1", "demo_7"])):
        with h5py.File(path, "r+") as file:
            file["mask/easy"] = np.array(names, dtype="S8")
    told = r"'easy' of 1 files, first .*push.hdf5: found no episodes; expected at least one"
    with pytest.raises(UserError, match=told):
        open_dataset(demos, mask="easy")
    assert len(open_dataset([demos, other], mask="easy")) == 2


def test_a_keep_file_that_keeps_nothing_is_refused(demos, tmp_path):
    keep = {"format": "policy_ft keep ranges 1", "rule": "none", "episodes": {}}
    keep["fingerprint"] = open_dataset(demos).fingerprint
    (tmp_path / "keep.json").write_text(json.dumps(keep))
    with pytest.raises(UserError, match=r"found no step to start at in 12 episodes; expected at"):
        open_dataset(demos, keep=tmp_path / "keep.json")


def test_a_mask_of_more_bytes_than_names_take_is_not_read(demos):
    with h5py.File(demos, "r+") as file:
        file.create_dataset("mask/easy", 5_000_000, "S100000", chunks=(1,), compression="gzip")
    with pytest.raises(UserError, match=r"expected 'easy'"):
        open_dataset(demos, mask="easy")


@pytest.mark.parametrize("kind", ["u1", "u4", "u8", "i8"])
def test_a_clock_that_goes_back_goes_back(demos, conventions, kind):
    readings = np.arange(100, 120)
    readings[7] = 90
    with h5py.File(demos, "r+") as file:
        for name, episode in file["data"].items():
            episode["clock"] = np.resize(readings, 20 + int(name[5:])).astype(kind)
    layout = {"preset": "native", "times": {"dataset": "clock", "unit_s": 0.5}}
    declare(demos, conventions, layout=layout)
    times = open_dataset(demos)[0].times()
    np.testing.assert_array_equal(times, (readings - 100) * 0.5)


def test_the_frames_of_the_rows_that_are_kept_belong_to_their_steps(demos, conventions, tmp_path):
    copy = shutil.copy(demos, tmp_path / "copy.hdf5")
    whole = open_dataset(copy)[0]
    idle = np.zeros(20, bool)
    idle[[0, 3, 4, 11]] = True
    with h5py.File(demos, "r+") as file:
        for name, episode in file["data"].items():
            episode["idle"] = np.resize(idle, 20 + int(name[5:]))
            episode["times"] = np.arange(20 + int(name[5:])) * 0.1
    declare(demos, conventions, layout={"preset": "native", "skip": "idle"})
    episode = open_dataset(demos)[0]
    assert episode.num_steps == 16
    for step, row in enumerate(np.flatnonzero(~idle)):
        np.testing.assert_array_equal(episode.image("front", step), whole.image("front", row))
        assert episode.jpeg("wrist", step) == whole.jpeg("wrist", row)
        np.testing.assert_array_equal(episode.state()[step], whole.state()[row])
    np.testing.assert_allclose(episode.times(), (np.flatnonzero(~idle) - 1) * 0.1)


def test_our_own_layout_has_a_name_that_may_be_given(demos, conventions, tmp_path):
    assert open_dataset(demos, layout="native").inspected.layouts == ("native",)
    lift = robomimic.write(tmp_path / "lift.hdf5")
    with pytest.raises(UserError, match=r"found no conventions .*the attribute 'conventions'"):
        open_dataset(lift, layout="native")
    with pytest.raises(UserError, match=r"did you mean 'native'"):
        open_dataset(demos, layout="nativ")
    with h5py.File(demos, "r+") as file:
        del file["data"].attrs["conventions"]
    declare(demos, conventions, layout="native")
    assert open_dataset(demos).inspected.layouts == ("native",)


def test_the_doctor_asks_for_what_is_missing_and_not_for_what_is_there(tmp_path):
    lift = open_dataset(robomimic.write(tmp_path / "lift.hdf5"), allow_undeclared=True)
    (told,) = [finding for finding in validate(lift) if finding.rule == "undeclared"]
    assert "layout.instruction" in told.value
    assert told.threshold == "a declaration of each"


def test_a_clock_without_its_unit_is_told_both_keys(demos, conventions):
    declare(demos, conventions, layout={"preset": "native", "times": "clock"})
    told = r"layout.times: found 'clock'; expected a mapping, \{dataset: clock, unit_s: <seconds"
    with pytest.raises(UserError, match=told):
        open_dataset(demos)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
UNREADABLE = {
    "aliases": (BOMB, r"line 2: an alias \(\*name\).*Write each value out"),
    "a number of many digits": (f"control_hz: {'9' * 5000}", "4300 digits"),
    "a date there is none": ("control_hz: 2026-02-31", "no readable YAML"),
    "a wrong tag": ("control_hz: !!bool x", "no readable YAML"),
    "depth": (f"control_hz: {'[' * 3000}", "RecursionError"),
    "a key twice": (
        "control_hz: 10\ncontrol_hz: 20",
        r"line 2: the key 'control_hz' again.*Join what stands below",
    ),
    "length": ("#" * 200_000, "200000 bytes; expected at most"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_sidecar_that_is_no_plain_yaml_is_told_at_once(demos, case):
    text, words = UNREADABLE[case]
    demos.with_name("conventions.yaml").write_text(text)
    start = time.perf_counter()
    with pytest.raises(UserError, match=words):
        open_dataset(demos)
    assert time.perf_counter() - start < 5


def test_the_time_to_look_at_chunks_grows_with_their_number(tmp_path):
    with h5py.File(tmp_path / "chunks.hdf5", "w") as file:
        rows = np.zeros((12_000, 2), "f4")
        dataset = file.create_dataset("rows", data=rows, chunks=(1, 2), compression="gzip")
        file.flush()
        start = time.perf_counter()
        assert storage_fault(dataset) == ""
        assert time.perf_counter() - start < 2  # 0.03 s; a walk for each chunk took 10


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + "*.hdf5", "a" * 300 + "/b.hdf5"])
def test_a_name_too_long_for_the_file_system_is_of_no_file(name, tmp_path):
    with pytest.raises(UserError, match=r"no (such|matching) file.*Correct the path"):
        open_dataset(tmp_path / name)


def test_a_name_too_long_to_have_a_sidecar_is_read(demos):
    path = demos.rename(demos.with_name("a" * 245 + ".hdf5"))
    assert len(open_dataset(path)) == 12


# fingerprints


@pytest.mark.parametrize("said", [{"orientation": "rotated_180"}, {"color_order": "bgr"}])
def test_another_way_to_turn_the_frames_is_another_fingerprint(demos, conventions, said):
    before = open_dataset(demos).fingerprint
    without_attributes(demos)
    declared = conventions.model_dump(mode="json")
    declare(demos, conventions)
    assert open_dataset(demos).fingerprint == before
    prints = {before}
    for number in range(2):
        cameras = [dict(camera) for camera in declared["cameras"]]
        cameras[number] |= said
        declare(demos, conventions, cameras=cameras)
        prints.add(open_dataset(demos).fingerprint)
    assert len(prints) == 3


def test_which_of_two_files_has_turned_frames_is_in_the_fingerprint(
    tmp_path, conventions, make_episode
):
    prints = set()
    for turned in ((), ("a",), ("b",), ("a", "b")):
        for name in "ab":
            path = tmp_path / f"{name}.hdf5"
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.conventions.yaml").unlink(missing_ok=True)
            with EpisodeWriter(path, conventions) as writer:
                writer.add(**make_episode(ord(name), num_steps=4))
            if name in turned:
                without_attributes(path)
                cameras = [c.model_dump() | {"color_order": "bgr"} for c in conventions.cameras]
                declare(path, conventions, cameras=cameras)
        prints.add(open_dataset([tmp_path / "a.hdf5", tmp_path / "b.hdf5"]).fingerprint)
    assert len(prints) == 4


def test_a_mapped_dataset_to_another_target_has_another_fingerprint(demos, conventions):
    """Signs of grippers follow the target, without a word in the mapping."""
    dataset, nothing = open_dataset(demos), ConventionsMapping()
    gripper = conventions.action.grippers[0].model_copy(
        update={"open_value": 1.0, "closed_value": -1.0}
    )
    action = conventions.action.model_copy(update={"grippers": (gripper,)})
    same = MappedDataset(dataset, conventions, nothing)
    turned = MappedDataset(dataset, conventions.model_copy(update={"action": action}), nothing)
    np.testing.assert_allclose(same[0].actions()[:, 2], -turned[0].actions()[:, 2], rtol=1e-6)
    assert same.fingerprint != turned.fingerprint
    assert same.fingerprint == MappedDataset(dataset, conventions, nothing).fingerprint
