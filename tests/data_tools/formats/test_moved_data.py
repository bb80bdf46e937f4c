"""Keep-files of data that got another name, and paths that are none."""

import shutil

import pytest

from data_tools.errors import UserError
from data_tools.formats.lerobot.lerobot_options import LeRobotOptions
from data_tools.formats.lerobot.write import write_lerobot
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.split import split, write_split_keep


@pytest.mark.parametrize("kind", ["file", "lerobot"])
def test_a_keep_file_fits_data_that_was_renamed(demos, tmp_path, kind):
    place = demos
    if kind == "lerobot":
        place = tmp_path / "lerobot"
        source = open_dataset(demos)
        options = LeRobotOptions(images="png")
        write_lerobot(place, source.conventions, map(source.__getitem__, range(12)), options)
    dataset = open_dataset(place)
    parts = split(dataset, valid=0.25, seed=3)
    write_split_keep(dataset, parts, tmp_path / "keep", "by chance")
    moved = tmp_path / f"moved{place.suffix}"
    shutil.move(place, moved)
    kept = open_dataset(moved, keep=tmp_path / "keep/valid.json")
    told = [open_dataset(moved)[index].actions().tobytes() for index in parts.valid]
    assert [kept[index].actions().tobytes() for index in range(len(kept))] == told


def test_an_empty_path_is_not_the_folder_one_is_in(robot_data):
    with pytest.raises(UserError, match=r"'\.' is the folder you are in"):
        open_dataset("")
    code, _, err = robot_data("inspect", "")
    assert (code, "an empty text" in err) == (2, True)
