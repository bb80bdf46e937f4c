"""A command line gives a list of one folder; what is told of a folder beside other paths."""

import json

import pytest

from data_tools.errors import UserError
from data_tools.reader import open_dataset


def test_the_commands_read_a_folder(make_folder, robot_data):
    folder = make_folder()
    code, out, err = robot_data("inspect", folder, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["layout"], told["episodes"], told["frames"]) == (["lerobot_v3.0"], 3, 21)
    code, out, err = robot_data("stats", folder, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["fingerprint"] == told["fingerprint"]
    code, out, err = robot_data("validate", folder, "--json")
    assert code == 1, err  # nobody declared what its actions refer to
    assert "one for each action column" in out
    code, out, err = robot_data("bench", folder, "--workers", 1, "--seconds", 0.05, "--json")
    assert code == 0, err
    assert json.loads(out)["cameras"][0]["camera"] == "front"


def test_a_list_of_one_folder_is_the_folder(make_folder):
    folder = make_folder()
    assert open_dataset([folder]).fingerprint == open_dataset(str(folder)).fingerprint


def test_a_folder_beside_other_paths_is_refused(make_folder, demos):
    folder = make_folder()
    told = "a LeRobot folder among 2 paths; expected it alone, or HDF5 files. Open one"
    with pytest.raises(UserError, match=told):
        open_dataset([demos, folder])
    with pytest.raises(UserError, match=r"found mask 'a' and layout None") as caught:
        open_dataset([folder, make_folder(name="place")], mask="a")
    assert len(caught.value.faults) == 2
