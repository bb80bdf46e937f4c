"""Damaged files: cut off, never closed, flipped bytes. What is copied must be the truth."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.rewrite.salvage import salvage
from data_tools.rewrite.salvage.superblock import lookup3, read_superblock
from data_tools.rewrite.salvage.whole_episodes import row_ranges
from tests.data_tools.fixtures import rdt

STEPS = 20


def write_episodes(
    path: Path, episodes: int = 6, *, libver: str | None = None, chunked: bool = True
) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w", libver=libver) as file:
        for index in range(episodes):
            group = file.create_group(f"data/demo_{index}")
            group.attrs["num_samples"] = STEPS
            group["actions"] = rng.normal(size=(STEPS, 7))
            frames = rng.integers(0, 255, (STEPS, 16, 16, 3), dtype=np.uint8)
            chunks = (1, 16, 16, 3) if chunked else None
            group.create_dataset("obs/front", data=frames, chunks=chunks)


def same_episode(first: Path, second: Path, group: str) -> bool:
    with h5py.File(first) as a, h5py.File(second) as b:
        return all(
            a[f"{group}/{name}"][()].tobytes() == b[f"{group}/{name}"][()].tobytes()
            for name in ("actions", "obs/front")
        )


def test_a_whole_file_is_copied_bit_for_bit_and_nothing_is_lost(demos, tmp_path):
    result = salvage(demos, tmp_path / "saved.hdf5")
    assert result.is_complete
    assert len(result.episodes) == 12
    with h5py.File(demos) as source, h5py.File(tmp_path / "saved.hdf5") as copy:
        names: list[str] = []
        source.visit(names.append)
        for name in names:
            assert dict(copy[name].attrs) == dict(source[name].attrs)
            if isinstance(source[name], h5py.Dataset):
                assert copy[name][()].tobytes() == source[name][()].tobytes()
                assert copy[name].chunks == source[name].chunks


@pytest.mark.parametrize("libver", [None, "latest"])
@pytest.mark.parametrize("chunked", [True, False])
def test_of_a_file_cut_anywhere_only_true_episodes_are_copied(tmp_path, libver, chunked):
    whole, cut = tmp_path / "whole.hdf5", tmp_path / "cut.hdf5"
    write_episodes(whole, libver=libver, chunked=chunked)
    size, most = whole.stat().st_size, 0
    refusals: list[str] = []
    for kept in np.linspace(0.02, 0.999, 23):
        shutil.copyfile(whole, cut)
        os.truncate(cut, int(kept * size))
        saved = tmp_path / f"saved_{kept}.hdf5"
        try:
            result = salvage(cut, saved)
        except UserError as error:
            refusals.append(str(error))
            continue
        assert not result.is_complete
        assert "cut off" in result.happened[0]
        true = [each for each in result.episodes if each.is_whole]
        most = max(most, len(true))
        assert saved.exists() == bool(true)
        assert all(same_episode(whole, saved, each.group) for each in true)
        if true:
            with h5py.File(saved) as file:
                assert sorted(file["data"]) == sorted(e.group.split("/")[1] for e in true)
    assert all("are missing" in refusal for refusal in refusals)
    assert most >= 4


@pytest.mark.parametrize("kept", [0.7, 0.95, 0.999])
def test_a_group_whose_header_goes_on_in_the_lost_end_still_gives_its_episodes(
    demos, tmp_path, kept
):
    # `total` is added last, and with it the header of /data moves its list of members to the end
    whole = tmp_path / "whole.hdf5"
    shutil.copyfile(demos, whole)
    os.truncate(demos, int(kept * demos.stat().st_size))
    saved = tmp_path / "saved.hdf5"
    result = salvage(demos, saved)
    true = [each.group for each in result.episodes if each.is_whole]
    assert len(true) >= int(12 * kept) - 3
    assert any("/data: " in loss and "cut off" in loss for loss in result.elsewhere)
    with h5py.File(whole) as first, h5py.File(saved) as second:
        for group in true:
            assert dict(first[group].attrs) == dict(second[group].attrs)
            for name in ("actions", "obs/state", "obs/front_image", "obs/wrist_image"):
                assert (first[group][name][()] == second[group][name][()]).all()


KILLED = """
import os, signal, sys, h5py, numpy as np
path, libver, flushes = sys.argv[1], sys.argv[2] or None, sys.argv[3] == "flush"
file = h5py.File(path, "w", libver=libver)
for index in range(5):
    group = file.create_group(f"data/demo_{index}")
    group.attrs["num_samples"] = 20
    group["actions"] = np.full((20, 7), index + 1.0)
    frames = np.full((20, 16, 16, 3), index + 1, np.uint8)
    group.create_dataset("obs/front", data=frames, chunks=(1, 16, 16, 3))
    if flushes and index < 4:
        file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_writer(path: Path, libver: str, flushes: str) -> None:
    code = subprocess.run([sys.executable, "-c", KILLED, str(path), libver, flushes], check=False)
    assert code.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("libver", "words"), [("", "died before the last flush"), ("latest", "never closed it")]
)
def test_of_a_killed_writer_every_flushed_episode_is_saved(tmp_path, libver, words):
    path, saved = tmp_path / "killed.hdf5", tmp_path / "saved.hdf5"
    killed_writer(path, libver, "flush")
    before = path.read_bytes()
    result = salvage(path, saved)
    assert words in " ".join(result.happened)
    assert [each.group for each in result.episodes if each.is_whole] == [
        f"data/demo_{index}" for index in range(4)
    ]
    with h5py.File(saved) as file:
        for index in range(4):
            assert (file[f"data/demo_{index}/actions"][()] == index + 1).all()
            assert (file[f"data/demo_{index}/obs/front"][()] == index + 1).all()
    assert path.read_bytes() == before


@pytest.mark.parametrize("libver", ["", "latest"])
def test_of_a_writer_killed_before_any_flush_nothing_is_claimed(tmp_path, libver):
    path = tmp_path / "killed.hdf5"
    killed_writer(path, libver, "never")
    with pytest.raises(UserError, match="let the recorder flush after each episode"):
        salvage(path, tmp_path / "saved.hdf5")
    assert [each.name for each in tmp_path.iterdir()] == ["killed.hdf5"]


def test_an_episode_with_a_frame_that_no_longer_decodes_is_lost_and_the_step_is_named(
    demos, tmp_path
):
    with h5py.File(demos, "r+") as file:
        row = file["data/demo_3/obs/front_image"][7]
        row[2:40] ^= 0xFF
        file["data/demo_3/obs/front_image"][7] = row
    result = salvage(demos, tmp_path / "saved.hdf5")
    (lost,) = [each for each in result.episodes if not each.is_whole]
    assert lost.group == "data/demo_3"
    assert "22 of 23 rows left; 7 is no whole image" in lost.losses[0]
    with h5py.File(tmp_path / "saved.hdf5") as file:
        assert "demo_3" not in file["data"]
        steps = [len(group["actions"]) for group in file["data"].values()]
        assert file["data"].attrs["total"] == sum(steps)


def test_a_flipped_byte_in_a_compressed_chunk_loses_the_rows_of_that_chunk(tmp_path):
    path = tmp_path / "packed.hdf5"
    write_episodes(path, episodes=3)
    with h5py.File(path, "r+") as file:
        frames = file["data/demo_1/obs/front"][()]
        del file["data/demo_1/obs/front"]
        packed = file["data/demo_1/obs"].create_dataset(
            "front", data=frames, chunks=(5, 16, 16, 3), compression="gzip"
        )
        place = packed.id.get_chunk_info_by_coord((10, 0, 0, 0))
    with path.open("r+b") as raw:
        raw.seek(place.byte_offset + place.size // 2)
        byte = raw.read(1)[0]
        raw.seek(-1, os.SEEK_CUR)
        raw.write(bytes([byte ^ 0x55]))
    result = salvage(path, tmp_path / "saved.hdf5")
    losses = {each.group: each.losses for each in result.episodes}
    assert "obs/front: 15 of 20 rows left; 10-14 cannot be read" in losses["data/demo_1"][0]
    assert losses["data/demo_0"] == losses["data/demo_2"] == ()


def test_rows_that_were_never_written_are_lost_though_hdf5_reads_zeros(tmp_path):
    path = tmp_path / "holes.hdf5"
    write_episodes(path, episodes=3)
    with h5py.File(path, "r+") as file:
        del file["data/demo_2/obs/front"]
        frames = file["data/demo_2/obs"].create_dataset(
            "front", (20, 16, 16, 3), np.uint8, chunks=(1, 16, 16, 3)
        )
        frames[:12] = 7
    result = salvage(path, tmp_path / "saved.hdf5")
    lost = result.episodes[2].losses
    assert lost == ("obs/front: 12 of 20 rows left; 12-19 never written",)


def test_an_episode_shorter_than_it_says_or_without_what_the_others_have_is_not_whole(tmp_path):
    path = tmp_path / "short.hdf5"
    write_episodes(path)
    with h5py.File(path, "r+") as file:
        del file["data/demo_1/obs/front"]
        del file["data/demo_4/actions"]
        file["data/demo_4/actions"] = np.zeros((13, 7))
        file["mask/train"] = np.array([b"demo_0", b"demo_1", b"demo_4"])
    result = salvage(path, tmp_path / "saved.hdf5")
    losses = {each.group: " ".join(each.losses) for each in result.episodes if each.losses}
    assert set(losses) == {"data/demo_1", "data/demo_4"}
    assert "has no 'obs/front', which most episodes have" in losses["data/demo_1"]
    assert "13 actions where num_samples says 20" in losses["data/demo_4"]
    with h5py.File(tmp_path / "saved.hdf5") as file:
        assert list(file["mask/train"]) == [b"demo_0"]


def test_one_episode_a_file_is_judged_as_one(tmp_path):
    path = tmp_path / "aloha.hdf5"
    with h5py.File(path, "w") as file:
        file["action"] = np.zeros((9, 14))
        file["observations/qpos"] = np.zeros((9, 14))
    result = salvage(path, tmp_path / "saved.hdf5")
    assert result.is_complete
    assert [(each.group, each.num_steps) for each in result.episodes] == [("", 9)]


def test_data_in_other_files_are_never_read(tmp_path):
    path = tmp_path / "links.hdf5"
    write_episodes(path, episodes=1)
    write_episodes(tmp_path / "other.hdf5", episodes=1)
    with h5py.File(path, "r+") as file:
        file["data/demo_1"] = h5py.ExternalLink("other.hdf5", "/data/demo_0")
        file["data/demo_0/loop"] = h5py.SoftLink("/data")
        file["data/demo_0/cycle"] = file["data"]
        layout = h5py.VirtualLayout((20, 7), float)
        layout[:] = h5py.VirtualSource("other.hdf5", "data/demo_0/actions", (20, 7))
        file["data/demo_0"].create_virtual_dataset("elsewhere", layout)
    result = salvage(path, tmp_path / "saved.hdf5")
    assert result.written is None
    (episode,) = result.episodes
    assert "elsewhere: cannot be read (its data lie in other files" in episode.losses[0]


def test_a_declared_length_without_data_is_told_and_costs_no_memory(tmp_path):
    path = tmp_path / "huge.hdf5"
    write_episodes(path, episodes=2)
    with h5py.File(path, "r+") as file:
        file["data/demo_0"].create_dataset("huge", (1 << 50, 8), np.uint8, chunks=(1, 8))
    result = salvage(path, tmp_path / "saved.hdf5")
    assert "most of them never written" in result.episodes[0].losses[0]
    assert result.episodes[1].is_whole


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file .0 bytes"),
        (b"<html>", "expected the signature"),
        (b"\x89HDF\r\n\x1a\n", "a whole superblock"),
        (b"\x89HDF\r\n\x1a\n\x00" + b"\x08" * 40, "superblock version 0 in a file of 49 bytes|are"),
    ],
)
def test_what_is_no_hdf5_is_refused_with_what_it_is(tmp_path, content, words):
    path = tmp_path / "bad.hdf5"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        salvage(path, tmp_path / "saved.hdf5")
    assert not (tmp_path / "saved.hdf5").exists()


def test_an_existing_file_is_never_written_over(demos, tmp_path):
    (tmp_path / "saved.hdf5").write_text("mine")
    with pytest.raises(UserError, match="Choose another name, or delete it first"):
        salvage(demos, tmp_path / "saved.hdf5")


def test_ctrl_c_leaves_nothing(demos, tmp_path, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(h5py.Group, "copy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        salvage(demos, tmp_path / "new" / "saved.hdf5")
    assert list((tmp_path / "new").iterdir()) == []


def test_the_conventions_beside_the_file_go_with_it(demos, tmp_path):
    beside = demos.with_name(demos.name + ".conventions.yaml")
    beside.write_text("cameras: []\n")
    result = salvage(demos, tmp_path / "saved.hdf5")
    assert result.copied[0].read_text() == "cameras: []\n"


def test_the_checksum_is_hdf5s_own(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w", libver="latest") as file:
        file["a"] = 1
    start = (tmp_path / "a.hdf5").read_bytes()[:48]
    assert lookup3(start[:44]) == int.from_bytes(start[44:], "little")
    # Jenkins' own example
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    assert read_superblock(tmp_path / "a.hdf5").version == 3


def test_rows_are_named_in_ranges():
    assert row_ranges([7, 3, 4, 5]) == "3-5, 7"
    assert row_ranges(range(0, 20, 2)) == "0, 2, 4, 6, 8, 10 and 4 more"


def test_the_command_tells_losses_in_words_and_json_and_by_its_exit_code(robot_data, tmp_path):
    path = tmp_path / "cut.hdf5"
    write_episodes(path)
    with h5py.File(path, "r+") as file:
        del file["data/demo_5/actions"]
    code, out, _ = robot_data("salvage", path, tmp_path / "a.hdf5")
    assert code == 1
    assert "data/demo_5: has no 'actions', which most episodes have" in out
    assert "5 of 6 episodes found are whole" in out
    code, out, _ = robot_data("salvage", path, tmp_path / "b.hdf5", "--json")
    told = json.loads(out)
    assert code == 1
    assert [each["is_whole"] for each in told["episodes"]] == [True] * 5 + [False]
    assert robot_data("salvage", tmp_path / "none.hdf5", tmp_path / "c.hdf5")[0] == 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_frames_of_variable_length_that_were_cut_off_are_lost_and_not_read_without_end(
    tmp_path, kept
):
    """Their heap, of which a part is missing: filled with zeros, HDF5 never comes to its end."""
    folder = rdt.write(tmp_path / "demos", episodes=1)
    (file,) = folder.rglob("*.hdf5")
    os.truncate(file, int(file.stat().st_size * kept))
    result = salvage(file, tmp_path / "new.hdf5")
    assert result.written is None
    assert any("cannot be read" in loss for each in result.episodes for loss in each.losses)
