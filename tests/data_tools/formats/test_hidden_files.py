"""Hidden files beside recordings: left out wherever a folder is read, and told once."""

import shutil

import fsspec
import pytest
from typer.testing import CliRunner

from data_tools.cli import app
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.storage.files.paths import expand
from tests.data_tools.fixtures import aloha, droid
from tests.data_tools.layout_cases import CASES

# RFC 1740: magic number, version, filler and no entries, as macOS writes it to foreign disks.
RESOURCE_FORK = b"\x00\x05\x16\x07\x00\x02\x00\x00" + bytes(18)
(DECLARED,) = (case.sidecar for case in CASES if case.layout == "aloha")


@pytest.fixture
def folder(tmp_path):
    """An ALOHA folder of two episodes, with what macOS and a person hid there."""
    folder = aloha.write(tmp_path / "demos")
    folder.joinpath("conventions.yaml").write_text(DECLARED)
    folder.joinpath("._episode_0.hdf5").write_bytes(RESOURCE_FORK)
    shutil.copy(folder / "episode_1.hdf5", folder / ".episode_1.hdf5")
    return folder


def told(dataset):
    return [each for each in dataset.inspected.warnings if each.rule == "hidden_files"]


def test_hidden_files_of_a_folder_are_left_out_and_told_once(folder):
    dataset = open_dataset(folder)
    assert len(dataset) == 2
    (finding,) = told(dataset)
    assert finding.severity == "warning"
    assert finding.where == str(folder)
    assert "(2, first " in finding.value
    assert "._episode_0.hdf5" in finding.value


def test_hidden_files_below_a_folder_without_files_of_its_own_are_left_out(folder):
    assert len(open_dataset(folder.parent, layout="aloha", allow_undeclared=True)) == 2
    hidden = folder.parent / ".trash"
    hidden.mkdir()
    shutil.move(folder / "episode_1.hdf5", hidden)
    dataset = open_dataset(folder.parent)
    assert len(dataset) == 1
    assert "(3, first " in told(dataset)[0].value


def test_a_folder_without_hidden_files_tells_nothing(folder):
    for name in (".episode_1.hdf5", "._episode_0.hdf5"):
        folder.joinpath(name).unlink()
    assert told(open_dataset(folder)) == []


def test_a_folder_of_hidden_files_alone_says_so(folder):
    for name in ("episode_0.hdf5", "episode_1.hdf5"):
        folder.joinpath(name).unlink()
    with pytest.raises(UserError, match=r"only hidden files \(2, such as .*Rename what is a rec"):
        open_dataset(folder)


def test_a_hidden_file_that_is_named_is_read(folder):
    dataset = open_dataset(folder / ".episode_1.hdf5")
    assert len(dataset) == 1
    assert told(dataset) == []


def test_a_folder_that_lies_in_a_hidden_one_is_read(folder):
    cache = folder.rename(folder.parent / ".cache")
    assert len(open_dataset(cache)) == 2


def test_hidden_files_behind_a_url_are_left_out(folder):
    store = fsspec.filesystem("memory")
    for file in folder.iterdir():
        store.pipe(f"/hidden/demos/{file.name}", file.read_bytes())
        if file.name.startswith("."):
            store.pipe(f"/hidden/above/{file.name}", file.read_bytes())
    store.pipe("/hidden/above/run/episode_0.hdf5", (folder / "episode_0.hdf5").read_bytes())
    for place, num_episodes in (("demos", 2), ("above", 1), ("demos/*.hdf5", 2), ("d*/*.hdf5", 2)):
        files = expand([f"memory://hidden/{place}"])
        assert len(files.read) == num_episodes
        assert len(files.hidden) == 2


def test_a_resource_fork_that_is_named_is_told_as_one(folder):
    with pytest.raises(UserError, match=r"AppleDouble.*Open the file whose name has no '\._'"):
        open_dataset(folder / "._episode_0.hdf5")


def test_facts_beside_the_data_are_not_read_from_hidden_files(tmp_path):
    folder = droid.write(tmp_path / "demos")
    for file in list(folder.rglob("metadata_*.json")):
        file.with_name(f".{file.name}").write_bytes(RESOURCE_FORK)
        file.with_name(f"._{file.name}").write_bytes(RESOURCE_FORK)
    folder.joinpath("conventions.yaml").write_text(
        'layout: {preset: droid, instruction: {file: "*.json", key: current_task}}'
    )
    dataset = open_dataset(folder, allow_undeclared=True)
    assert dataset[0].instruction == "Put the marker in the mug"


def test_repacking_a_folder_leaves_hidden_files_and_says_so(folder):
    out = folder.parent / "fast"
    result = CliRunner().invoke(app, ["repack", str(folder), str(out), "--images", "raw"])
    assert result.exit_code == 0, result.output
    assert "without 2 hidden files, first " in result.output
    names = sorted(path.name for path in out.iterdir() if not path.name.endswith(".yaml"))
    assert names == ["episode_0.hdf5", "episode_1.hdf5"]
    assert told(open_dataset(out)) == []
