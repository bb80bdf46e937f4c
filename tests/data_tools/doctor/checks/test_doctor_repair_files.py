"""--fix of a file: a copy in which only what a repair names is different, down to the last bit."""

import json

import h5py
import numpy as np
import pytest
import yaml

from data_tools.doctor.examination import validate
from data_tools.doctor.repairs.repair import repair
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from tests.data_tools.doctor.checks.lifts import QUAT, SIDECAR, contents, slow, write_lift
from tests.data_tools.fixtures import aloha, libero_no_noops


@pytest.fixture
def lift(tmp_path):
    return write_lift(tmp_path)


def only_rules(path, *rules, **options):
    """Findings of these rules: others are beside the point of a test."""
    findings = validate(open_dataset(path, **options))
    assert {*rules} <= {finding.rule for finding in findings}
    return [finding for finding in findings if finding.rule in rules]


def fixed(path, *rules, notes=None, to=None, **options):
    out = to or path.with_name("fixed.hdf5")
    dataset = open_dataset(path, **options)
    findings = only_rules(path, *rules, **options)
    tell = [].append if notes is None else notes.append
    return out, repair(dataset, out, findings, sources=[path], tell=tell)


def test_mending_one_sentence_changes_nothing_else(lift):
    with h5py.File(lift, "r+") as file:
        file["data/demo_2"].attrs["told"] = "lift  the cube"
    before, notes = lift.read_bytes(), []
    out, repairs = fixed(lift, "instruction_spaces", notes=notes)
    assert [str(each) for each in repairs] == [
        f"repaired [instruction_spaces] {lift}:data/demo_2: now 'lift the cube'"
    ]
    assert notes == []
    assert lift.read_bytes() == before
    assert contents(out, "data/demo_2") == contents(lift, "data/demo_2")
    with h5py.File(out) as file:
        assert file["data/demo_2"].attrs["told"] == "lift the cube"
        (made,) = json.loads(file.attrs["provenance"])
        assert made["command"] == "validate --fix"
        assert len(made["settings"]["repairs"]) == 1
    old, new = open_dataset(lift), open_dataset(out)
    assert {e.instruction for e in new} == {"lift the cube"}
    np.testing.assert_array_equal(new[2].image("agentview", 3), old[2].image("agentview", 3))
    assert sorted(each.name for each in lift.parent.iterdir()) == [
        *("conventions.yaml", "fixed.hdf5", "fixed.hdf5.conventions.yaml", "lift.hdf5"),
    ]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_signs_are_turned_where_they_are_stored_and_no_other_bit(lift, dtype):
    with h5py.File(lift, "r+") as file:
        for number in range(4):
            values = file[f"data/demo_{number}/{QUAT}"][()].astype(dtype)
            del file[f"data/demo_{number}/{QUAT}"]
            chunks = {"chunks": (5, 4), "compression": "gzip"}
            file.create_dataset(f"data/demo_{number}/{QUAT}", data=values, **chunks)
        whole = contents(lift)
        file["data/demo_1"][QUAT][7:] *= -1
    out, repairs = fixed(lift, "quaternion_flip")
    assert "signs of 1 jumps made one" in str(repairs[0])
    assert contents(out) == whole


def test_steps_that_are_not_read_take_the_sign_of_their_neighbours(lift):
    with h5py.File(lift, "r+") as file:
        for number in range(4):
            skip = np.zeros(12, dtype=bool)
            skip[[0, 6, 11]] = True
            file[f"data/demo_{number}/skip"] = skip
        whole = contents(lift)
        file["data/demo_1"][QUAT][7:] *= -1
    layout = {**SIDECAR["layout"], "skip": "skip"}
    lift.with_name("conventions.yaml").write_text(yaml.safe_dump({**SIDECAR, "layout": layout}))
    out, _ = fixed(lift, "quaternion_flip")
    assert contents(out) == whole


def test_an_episode_that_is_there_twice_goes_with_its_names_and_its_room(lift):
    with h5py.File(lift, "r+") as file:
        whole = contents(lift)
        for number in (3, 2):
            file.move(f"data/demo_{number}", f"data/demo_{number + 1}")
        file.copy("data/demo_1", file["data"], "demo_2")
        file["data"].attrs["total"] = 60
        for key in ("train", "valid"):
            del file[f"mask/{key}"]
        file["mask/train"] = np.array([b"demo_0", b"demo_1", b"demo_2", b"demo_3"])
        file["mask/valid"] = np.array([b"demo_4"])
        file["best"] = h5py.SoftLink("/data/demo_4/actions")
    out, (twin,) = fixed(lift, "duplicate_episode")
    assert str(twin).endswith("demo_2: left out; it is " + f"{lift}:data/demo_1 again")
    assert contents(out) == whole
    assert out.stat().st_size < lift.stat().st_size * 0.9
    with h5py.File(out) as file:
        assert file.get("best", getlink=True).path == "/data/demo_3/actions"
    assert len(open_dataset(out, mask="train")) == 3


def test_gaps_in_numbers_are_closed_and_counts_are_counted(lift):
    with h5py.File(lift, "r+") as file:
        whole = contents(lift)
        for old, new in ((3, 12), (2, 9)):
            file.move(f"data/demo_{old}", f"data/demo_{new}")
            for key in ("train", "valid"):
                listed = [n.replace(b"demo_%d" % old, b"demo_%d" % new) for n in file["mask"][key]]
                del file[f"mask/{key}"]
                file[f"mask/{key}"] = np.array(listed)
        file["data"].attrs["total"] = 7
    out, repairs = fixed(lift, "number_gap", "stale_total")
    assert {each.rule for each in repairs} == {"number_gap", "stale_total"}
    assert contents(out) == whole


def test_frames_are_rewritten_for_slow_chunks_only_and_it_is_said(lift):
    slow(lift, compression="gzip")
    out, (change,) = fixed(lift, "slow_chunks")
    assert "one frame a chunk, JPEG of quality 95, which changes pixels a little" in str(change)
    places = [f"data/demo_{i}/obs/agentview_image" for i in range(4)]
    besides = [*places, *((place, "data") for place in places)]
    assert contents(out, *besides) == contents(lift, *besides)
    with h5py.File(out) as file:
        frames = file[places[2]]
        assert (frames.chunks, frames.attrs["encoding"]) == ((1, frames.shape[1]), "jpeg")
        assert frames.attrs["exposure_ms"] == 8
    old, new = open_dataset(lift), open_dataset(out)
    error = new[3].image("agentview", 5).astype(int) - old[3].image("agentview", 5)
    assert 0 < abs(error).max() < 40
    assert "slow_chunks" not in {finding.rule for finding in validate(new)}


def test_a_sentence_in_json_or_in_a_dataset_is_mended_there(lift):
    info = {"language": ["lift  it", "take  it"], "objects": {"cube": 0.1}}
    with h5py.File(lift, "r+") as file:
        file["data"].attrs["info"] = json.dumps(info)
        for number in range(4):
            del file[f"data/demo_{number}"].attrs["told"]
            if number > 1:
                file[f"data/demo_{number}/words"] = b"put  it down" if number == 2 else "lay  it"
    places = [{"dataset": "words"}, {"attribute": "info", "key": "language"}]
    layout = {**SIDECAR["layout"], "instruction": places}
    lift.with_name("conventions.yaml").write_text(yaml.safe_dump({**SIDECAR, "layout": layout}))
    out, repairs = fixed(lift, "instruction_spaces")
    assert len(repairs) == 4
    assert [each.instruction for each in open_dataset(out)] == [
        *("lift it", "lift it", "put it down", "lay it")
    ]
    with h5py.File(out) as file:
        mended = json.loads(file["data"].attrs["info"])
    assert mended == {**info, "language": ["lift it", "take  it"]}


def test_what_does_not_lie_in_the_file_is_told_and_left(lift):
    layout = {**SIDECAR["layout"], "instruction": {"text": "lift  it"}}
    lift.with_name("conventions.yaml").write_text(yaml.safe_dump({**SIDECAR, "layout": layout}))
    notes = []
    out, repairs = fixed(lift, "instruction_spaces", notes=notes)
    assert (repairs, out.exists()) == ([], False)
    assert len(notes) == 4
    assert "its sentence keeps its spaces, for no text in the file says it; correct" in notes[0]
    assert "conventions.yaml" in notes[0]


def test_a_correction_of_the_files_own_declaration_is_put_into_it(demos):
    with h5py.File(demos) as file:
        declared = json.loads(file["data"].attrs["conventions"])
    declared["state"]["units"] = ["m", "m", "m"]
    demos.with_name(f"{demos.name}.conventions.yaml").write_text(yaml.safe_dump(declared))
    out, _ = fixed(demos, "corrected_conventions")
    assert contents(out, "data") == contents(demos, "data")
    mended = open_dataset(out)
    assert mended.conventions.state.units == ("m", "m", "m")
    assert mended.inspected.warnings == ()
    assert not out.with_name(f"{out.name}.conventions.yaml").exists()


def test_episodes_that_a_mask_leaves_out_are_copied_all_the_same(lift):
    with h5py.File(lift, "r+") as file:
        file["data/demo_0"].attrs["told"] = "lift  the cube"
    dataset = open_dataset(lift, mask="train")
    out = lift.with_name("fixed.hdf5")
    repair(dataset, out, validate(dataset), sources=[lift])
    assert len(open_dataset(out)) == 4


def test_a_declaration_for_the_new_file_is_never_overruled(lift):
    with h5py.File(lift, "r+") as file:
        file["data/demo_2"].attrs["told"] = "lift  the cube"
    out = lift.with_name("fixed.hdf5")
    other = out.with_name(f"{out.name}.conventions.yaml")
    other.write_text(yaml.safe_dump({**SIDECAR, "control_hz": 7}))
    with pytest.raises(UserError, match="choose another name or folder"):
        fixed(lift, "instruction_spaces")
    assert not out.exists()
    assert list(lift.parent.glob("*.partial")) == []


def share(file):
    """One dataset by two names: turned for one episode, it is turned for the other."""
    file["data/demo_1"][QUAT][7:] *= -1
    del file["data/demo_2"][QUAT]
    file["data/demo_2"][QUAT] = file["data/demo_1"][QUAT]


def test_numbers_that_two_episodes_share_are_turned_once(lift):
    with h5py.File(lift, "r+") as file:
        share(file)
    out, repairs = fixed(lift, "quaternion_flip")
    assert len(repairs) == 2
    assert "quaternion_flip" not in {each.rule for each in validate(open_dataset(out))}


def test_a_copy_that_would_be_read_otherwise_is_not_made(lift):
    with h5py.File(lift, "r+") as file:
        share(file)
        for number in range(4):
            file[f"data/demo_{number}/skip"] = np.isin(np.arange(12), [7, 8]) & (number == 2)
    layout = {**SIDECAR["layout"], "skip": "skip"}
    lift.with_name("conventions.yaml").write_text(yaml.safe_dump({**SIDECAR, "layout": layout}))
    notes = []
    with pytest.raises(
        UserError, match=r"demo_2: found a copy that is not read as this episode is"
    ):
        fixed(lift, "quaternion_flip", notes=notes)
    assert "eef_qx..eef_qw (xyzw) keeps its signs" in notes[0]
    assert sorted(each.name for each in lift.parent.iterdir()) == ["conventions.yaml", "lift.hdf5"]


def test_only_the_rules_that_were_found_are_repaired(lift):
    with h5py.File(lift, "r+") as file:
        file["data/demo_2"].attrs["told"] = "lift  the cube"
        file["data/demo_1"][QUAT][7:] *= -1
        file.copy("data/demo_0", file["data"], "demo_4")
    out, repairs = fixed(lift, "instruction_spaces")
    assert [each.rule for each in repairs] == ["instruction_spaces"]
    assert contents(out, "data/demo_2") == contents(lift, "data/demo_2")
    _, repairs = fixed(lift, "quaternion_flip", to=lift.with_name("turned.hdf5"))
    assert {each.rule for each in repairs} == {"quaternion_flip"}


def test_an_episode_with_a_file_of_its_own_is_copied_too(tmp_path):
    folder = aloha.write(tmp_path / "aloha", 1, 12)
    (path,) = folder.iterdir()
    sidecar = {"layout": {"preset": "aloha", "instruction": {"attribute": "told"}}}
    (folder / "conventions.yaml").write_text(yaml.safe_dump(sidecar))
    with h5py.File(path, "r+") as file:
        file.attrs["told"] = "open  the jar"
    out, _ = fixed(path, "instruction_spaces", allow_undeclared=True)
    assert contents(out, "/") == contents(path, "/")
    assert open_dataset(out, allow_undeclared=True)[0].instruction == "open the jar"


def test_what_the_name_of_the_file_says_decides_whether_it_is_copied(tmp_path):
    path = libero_no_noops.write(tmp_path / "libero")
    sidecar = {"cameras": [{"name": "*", "orientation": "rotated_180"}], "control_hz": 20}
    path.with_name("conventions.yaml").write_text(yaml.safe_dump(sidecar))
    with h5py.File(path, "r+") as file:
        file["data"].attrs["total"] = 7
    notes = []
    out, _ = fixed(path, "stale_total", notes=notes, to=tmp_path / "new" / path.name)
    assert (notes, contents(out, "data")) == ([], contents(path, "data"))
    fixed(path, "stale_total", notes=notes, to=tmp_path / "other.hdf5")
    assert f"for the name {path.name} and its folders say what" in notes[0]
    assert any("become JPEG" in note for note in notes)
