"""A file must not lead a reader out of itself, into a circle, or into memory it does not hold."""

import json

import h5py
import numpy as np
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.storage.hdf5.links import find
from tests.data_tools.fixtures import droid, robomimic
from tests.data_tools.fixtures.contents import state_rows


@pytest.fixture
def lift(tmp_path):
    path = robomimic.write(tmp_path / "lift.hdf5")
    declare(path)
    return path


def declare(path, **layout):
    layout = {"preset": "robomimic", "instruction": {"text": "lift it"}, **layout}
    path.with_name("conventions.yaml").write_text(yaml.safe_dump({"layout": layout}))


def outside(path):
    """Another file with the end effector's positions, beside the first."""
    other = path.with_name("other.bin")
    with h5py.File(other, "w") as file:
        file["positions"] = state_rows(6, 3, 50)
    return other


def external_link(file, other):
    file["data/demo_1/obs/robot0_eef_pos"] = h5py.ExternalLink(other.name, "/positions")


def soft_link_to_an_external_one(file, other):
    file["elsewhere"] = h5py.ExternalLink(other.name, "/positions")
    file["data/demo_1/obs/robot0_eef_pos"] = h5py.SoftLink("/elsewhere")


def virtual_dataset(file, other):
    layout = h5py.VirtualLayout(shape=(6, 3), dtype="f8")
    layout[:] = h5py.VirtualSource(str(other), "positions", shape=(6, 3))
    file.create_virtual_dataset("data/demo_1/obs/robot0_eef_pos", layout)


def external_storage(file, other):
    raw = other.with_name("raw.bin")
    raw.write_bytes(state_rows(6, 3, 50).tobytes())
    file.create_dataset(
        "data/demo_1/obs/robot0_eef_pos", (6, 3), "f8", external=[(str(raw), 0, 144)]
    )


@pytest.mark.parametrize(
    "lead", [external_link, soft_link_to_an_external_one, virtual_dataset, external_storage]
)
def test_data_in_another_file_is_refused_unless_allowed(lift, lead):
    other = outside(lift)
    with h5py.File(lift, "r+") as file:
        del file["data/demo_1/obs/robot0_eef_pos"]
        lead(file, other)
    with pytest.raises(UserError, match=r"expected data in the file itself. Copy the data into"):
        open_dataset(lift)
    allowed = open_dataset(lift, allow_external_links=True)
    np.testing.assert_allclose(allowed[1].state()[:, :3], state_rows(6, 3, 50))


def test_an_external_link_in_the_place_of_all_episodes_is_refused(lift):
    with h5py.File(lift, "r+") as file:
        file.move("data", "kept")
        file["data"] = h5py.ExternalLink(lift.name, "/kept")
    lift.with_name("conventions.yaml").unlink()
    with pytest.raises(UserError, match=r"a link to 'lift.hdf5'; expected data in the file itself"):
        open_dataset(lift)


def test_links_within_the_file_are_followed(lift):
    with h5py.File(lift, "r+") as file:
        file.move("data/demo_1/obs/robot0_eef_pos", "kept")
        file["data/demo_1/obs/robot0_eef_pos"] = h5py.SoftLink("/kept")
    np.testing.assert_allclose(open_dataset(lift)[1].state()[:, :3], state_rows(6, 9, 1)[:, :3])


def test_links_in_a_circle_end_with_a_sentence(lift):
    with h5py.File(lift, "r+") as file:
        del file["data/demo_1/obs/robot0_eef_pos"]
        file["data/demo_1/obs/robot0_eef_pos"] = h5py.SoftLink("/a")
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        # A group that is its own member, for whatever walks the tree.
        file["data/demo_0/obs/again"] = file["data/demo_0"]
    with pytest.raises(UserError, match=r"more than 16 soft links in a row.*lead in a circle"):
        open_dataset(lift)
    with h5py.File(lift, "r+") as file:
        del file["data/demo_1/obs/robot0_eef_pos"]
    with pytest.raises(UserError, match=r"expected a dataset 'obs/robot0_eef_pos'"):
        open_dataset(lift)


def test_a_link_to_nothing_is_nothing(lift):
    with h5py.File(lift, "r+") as file:
        file["gone"] = h5py.SoftLink("/nowhere/at/all")
        assert find(file["/"], "gone") is None
        assert find(file["/"], "data/demo_0/actions/deeper") is None


def test_numbers_that_were_never_written_or_cannot_be_held_are_refused(lift):
    with h5py.File(lift, "r+") as file:
        del file["data/demo_0/actions"], file["data/demo_1/actions"]
        file["data/demo_0"].create_dataset("actions", shape=(6, 7), dtype="f8")
        file["data/demo_1"].create_dataset(
            "actions", shape=(1 << 40, 7), dtype="f8", chunks=(64, 7)
        )
    with pytest.raises(UserError) as caught:
        open_dataset(lift)
    told = "\n".join(caught.value.faults)
    assert "of which nothing was ever written; expected stored numbers. Record it again" in told
    assert "expected at most 2048 MiB an episode. The header is damaged" in told


def test_metadata_cannot_lead_out_of_the_episodes_folder(tmp_path):
    path = droid.write(tmp_path / "droid", episodes=1)
    (file,) = path.rglob("metadata_*.json")
    described = json.loads(file.read_text())
    serial = described["wrist_cam_serial"]
    (video,) = path.rglob(f"{serial}.mp4")
    (video.parent.parent / f"{serial}.mp4").write_bytes(video.read_bytes())
    file.write_text(json.dumps({**described, "wrist_cam_serial": f"../{serial}"}))
    assert "wrist" not in open_dataset(path).conventions.camera_names


def test_an_episode_behind_a_soft_link_goes_by_the_links_name(lift):
    with h5py.File(lift, "r+") as file:
        file.move("data/demo_1", "kept/of_friday")
        file["data/demo_1"] = h5py.SoftLink("/kept/of_friday")
        file["mask/chosen"] = np.array([b"demo_1"])
    (episode,) = open_dataset(lift, mask="chosen", allow_undeclared=True)
    assert episode.name.endswith(":data/demo_1")
    np.testing.assert_allclose(episode.state()[:, :3], state_rows(6, 9, 1)[:, :3])
