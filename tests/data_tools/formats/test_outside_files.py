"""What comes with the data cannot allow itself to read what lies elsewhere; the caller can."""

import json

import h5py
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from data_tools.cli import app
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from tests.data_tools.fixtures import agibot, droid, robomimic, robotwin
from tests.data_tools.fixtures.contents import state_rows

SECRET = "hunter2 of my bank"


@pytest.fixture
def lift(tmp_path):
    """A downloaded folder, and a file with a secret beside it."""
    (tmp_path / "secret.json").write_text(json.dumps({"token": SECRET}))
    (tmp_path / "download").mkdir()
    return robomimic.write(tmp_path / "download" / "lift.hdf5")


def declare(path, **layout):
    layout = {"preset": "robomimic", "instruction": {"text": "lift it"}, **layout}
    cameras = [{"name": "*", "orientation": "upright"}]
    declared = {"layout": layout, "cameras": cameras}
    path.with_name("conventions.yaml").write_text(yaml.safe_dump(declared))


def link_outside(path):
    """The second episode's positions, put into another file and linked."""
    with h5py.File(path.with_name("other.bin"), "w") as file:
        file["positions"] = state_rows(6, 3, 50)
    with h5py.File(path, "r+") as file:
        del file["data/demo_1/obs/robot0_eef_pos"]
        file["data/demo_1/obs/robot0_eef_pos"] = h5py.ExternalLink("other.bin", "/positions")


@pytest.mark.parametrize("preset", [True, False])
def test_a_sidecar_cannot_allow_links_that_its_reader_has_not(lift, preset):
    link_outside(lift)
    declare(lift, allow_external_links=True)
    if not preset:
        sidecar = lift.with_name("conventions.yaml")
        sidecar.write_text(yaml.safe_dump({"layout": {"allow_external_links": True}}))
    with pytest.raises(UserError) as caught:
        open_dataset(lift, layout=None if preset else "robomimic")
    (fault,) = caught.value.faults
    assert "conventions.yaml, layout.allow_external_links: found true; expected false" in fault
    assert "--allow-external-links of robot-data" in fault


def test_the_caller_allows_links_with_and_without_a_sidecar_that_asks(lift):
    link_outside(lift)
    for declared in ({"allow_external_links": True}, {}):
        declare(lift, **declared)
        allowed = open_dataset(lift, allow_external_links=True)
        np.testing.assert_allclose(allowed[1].state()[:, :3], state_rows(6, 3, 50))


def test_links_that_were_allowed_once_are_refused_the_next_time(lift, tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.formats.reading.index_cache.MIN_EPISODES", 1)
    monkeypatch.setattr("data_tools.formats.reading.index_cache.SETTLED_NS", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    link_outside(lift)
    declare(lift)
    open_dataset(lift, allow_external_links=True)
    with pytest.raises(UserError, match=r"a link to 'other\.bin'"):
        open_dataset(lift)


def test_an_option_of_the_commands_allows_them(lift):
    link_outside(lift)
    declare(lift)
    refused = CliRunner().invoke(app, ["stats", str(lift)])
    assert refused.exit_code != 0
    assert "--allow-external-links" in str(refused.exception)
    allowed = CliRunner().invoke(app, ["stats", str(lift), "--allow-external-links"])
    assert allowed.exit_code == 0, allowed.output


@pytest.mark.parametrize("file", ["{secret}", "x/../../secret.json", "x/../../*.json", "a/.."])
@pytest.mark.parametrize("allowed", [False, True])
def test_a_pattern_cannot_be_absolute_or_go_up_further_down(lift, tmp_path, file, allowed):
    lift.with_name("x").mkdir()
    pattern = file.format(secret=tmp_path / "secret.json")
    for layout in (
        {"instruction": {"file": pattern, "key": "token"}},
        {"success": {"file": pattern, "key": "token"}},
        {"images": {"front": {"video": pattern}}},
        {"images": {"front": {"video": "a.mp4", "value": {"file": pattern}}}},
    ):
        declare(lift, **layout)
        with pytest.raises(UserError) as caught:
            open_dataset(lift, allow_external_links=allowed)
        assert "expected a path from the data file's folder, with ../ at its" in str(caught.value)


def test_a_pattern_cannot_lead_above_the_folder_that_is_opened(lift, tmp_path):
    declare(lift, instruction={"file": "../secret.json", "key": "token"})
    for place in (lift, lift.parent):
        with pytest.raises(UserError, match=r"'../secret.json'; expected files in the folder that"):
            open_dataset(place)
        assert open_dataset(place, allow_external_links=True)[0].instruction == SECRET
    # who opens the folder above means all that is in it
    assert open_dataset(tmp_path)[0].instruction == SECRET


def test_a_sidecar_may_name_siblings_in_the_folder_that_is_opened(tmp_path):
    (tmp_path / "files").mkdir()
    path = robomimic.write(tmp_path / "files" / "lift.hdf5")
    (tmp_path / "tasks.json").write_text(json.dumps({"lift": "lift the red cube"}))
    declare(tmp_path / "lift.hdf5", instruction={"file": "../tasks.json", "key": "{stem}"})
    assert open_dataset(tmp_path)[0].instruction == "lift the red cube"
    path.with_name("conventions.yaml").write_bytes((tmp_path / "conventions.yaml").read_bytes())
    with pytest.raises(UserError, match="Open the folder that holds both, or, where you trust"):
        open_dataset(path)


def test_a_link_of_the_file_system_cannot_lead_out_either(lift, tmp_path):
    lift.with_name("task.json").symlink_to(tmp_path / "secret.json")
    declare(lift, instruction={"file": "task.json", "key": "token"})
    with pytest.raises(UserError, match=r"task.json: found a link to .*secret.json; expected"):
        open_dataset(lift)
    assert open_dataset(lift, allow_external_links=True)[0].instruction == SECRET


def test_a_video_behind_such_a_link_is_refused(tmp_path):
    path = droid.write(tmp_path / "droid", episodes=1)
    video = next(path.rglob("recordings/MP4/*.mp4"))
    elsewhere = tmp_path / "elsewhere.mp4"
    video.rename(elsewhere)
    video.symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"found a link to .*elsewhere\.mp4; expected a file in"):
        open_dataset(path, allow_undeclared=True)
    assert len(open_dataset(path, allow_undeclared=True, allow_external_links=True)) == 1


@pytest.mark.parametrize("fixture", [agibot, robotwin])
def test_our_own_layouts_read_the_siblings_of_a_single_file(tmp_path, fixture):
    folder = fixture.write(tmp_path / "data", episodes=1)
    (path,) = [*folder.rglob("*.hdf5"), *folder.rglob("*.h5")]
    dataset = open_dataset(path, allow_undeclared=True)
    whole = open_dataset(folder, allow_undeclared=True)
    assert dataset[0].instruction == whole[0].instruction != ""
    assert dataset.conventions.camera_names == whole.conventions.camera_names != ()


def test_a_sidecar_that_changes_something_else_leaves_them_their_siblings(tmp_path):
    folder = robotwin.write(tmp_path / "data", episodes=1)
    (path,) = folder.rglob("*.hdf5")
    whole = open_dataset(folder, allow_undeclared=True)
    path.with_name("conventions.yaml").write_text("control_hz: 15\nlayout: {preset: robotwin}\n")
    dataset = open_dataset(path, allow_undeclared=True)
    assert dataset[0].instruction == whole[0].instruction != ""


def test_a_lerobot_folder_has_no_links_to_allow(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"codebase_version": "v3.0"}')
    with pytest.raises(UserError, match="allow_external_links for a LeRobot folder"):
        open_dataset(tmp_path, allow_external_links=True)
