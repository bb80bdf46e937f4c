"""A command line gives a list of one folder; what is told of a folder beside other paths."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.doctor.examination import validate
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset


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


def test_several_folders_become_one_dataset_by_way_of_convert(make_folder, robot_data, tmp_path):
    for name in ("pick", "place"):
        folder = make_folder("v2.1", "video", name=name)
        code, _out, err = robot_data("convert", folder, tmp_path / f"{name}.hdf5", "--to", "native")
        assert code == 0, err
    joined = open_dataset([tmp_path / "pick.hdf5", tmp_path / "place.hdf5"])
    assert len(joined) == 6


def test_episodes_that_do_not_open_hide_nothing_of_the_others(make_folder, robot_data):
    folder = make_folder("v2.1", "video")
    video = folder / "videos/chunk-000/observation.images.front/episode_000001.mp4"
    video.unlink()
    data = folder / "data/chunk-000/episode_000000.parquet"
    data.write_bytes(data.read_bytes()[:-40])
    data = folder / "data/chunk-000/episode_000002.parquet"
    table = pq.read_table(data)
    late = pa.array(np.array(table["timestamp"]) + np.float32(0.1))
    place = table.column_names.index("timestamp")
    pq.write_table(table.set_column(place, "timestamp", late), data)
    code, out, err = robot_data("validate", folder, "--json")
    assert code == 1, err
    told = [(each["episode"], each["value"]) for each in json.loads(out)["findings"]]
    for place, words in (
        ("episode_000000.parquet", "without its footer"),
        ("episode_000001.mp4", "for 1 of 3 episodes"),
        (f"{folder}:episode_2", "times from 0.1 s"),
    ):
        assert any(place in where and words in value for where, value in told), place
    with pytest.raises(UserError) as caught:
        open_dataset(folder)
    assert len(caught.value.faults) == 2


def test_an_episode_whose_video_is_anothers_can_be_left_out(make_folder, robot_data, tmp_path):
    folder, keep = make_folder("v2.1", "video"), tmp_path / "keep.json"
    video = folder / "videos/chunk-000/observation.images.front/episode_000000.mp4"
    video.write_bytes(video.with_name("episode_000001.mp4").read_bytes())
    _code, out, _err = robot_data("validate", folder, "--json")
    (told,) = [f for f in json.loads(out)["findings"] if f["rule"] == "frame_count"]
    assert "robot-data filter --leave-out" in told["remedy"]
    code, _out, err = robot_data("filter", folder, keep, "--leave-out", told["episode"])
    assert code == 0, err
    kept = open_dataset(folder, keep=keep)
    assert [kept[index].name[-1] for index in range(len(kept))] == ["1", "2"]
    assert "frame_count" not in {finding.rule for finding in validate(kept)}


def test_a_tolerance_is_for_lerobot_folders_and_reaches_them_beside_hdf5(
    make_folder, demos, robot_data
):
    code, _out, err = robot_data("stats", demos, "--tolerance-s", 0.01)
    assert code == 2
    assert "Leave it out: HDF5 files need none" in err
    code, out, err = robot_data("validate", demos, make_folder(), "--tolerance-s", 0.01, "--json")
    assert (code, json.loads(out).get("refused")) == (1, None), err


def test_a_wrong_clock_is_one_message_and_exit_code_2_wherever_frames_are_read(
    make_folder, robot_data, tmp_path
):
    folder = make_folder("v2.1", "video")
    for path in (folder / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        late = pa.array(np.array(table["timestamp"]) + np.float32(0.1))
        place = table.column_names.index("timestamp")
        pq.write_table(table.set_column(place, "timestamp", late), path)
    for command in (
        ("convert", folder, tmp_path / "new", "--to", "lerobot-v3", "--images", "png"),
        ("view", folder, "--out", tmp_path / "look"),
        ("stats", folder, "--lerobot", tmp_path / "stats.json"),
        ("bench", folder, "--seconds", 0.05),
    ):
        code, _out, err = robot_data(*command)
        assert code == 2, command
        assert "`layout: {clock: frame_index}`" in err
    assert not (tmp_path / "new").exists()
    (folder / "conventions.yaml").write_text("layout: {clock: frame_index}\n")
    code, _out, err = robot_data(
        *("convert", folder, tmp_path / "new", "--to", "lerobot-v2.1", "--images", "png")
    )
    assert code == 0, err
    code, out, _err = robot_data("validate", tmp_path / "new", "--json")
    assert "wrong_clock" not in {finding["rule"] for finding in json.loads(out)["findings"]}


def test_a_folder_beside_other_paths_is_refused(make_folder, demos):
    folder = make_folder()
    told = "a LeRobot folder among 2 paths; expected it alone, or HDF5 files. Open one"
    with pytest.raises(UserError, match=told):
        open_dataset([demos, folder])
    with pytest.raises(UserError, match=r"found mask 'a' and layout None") as caught:
        open_dataset([folder, make_folder(name="place")], mask="a")
    assert len(caught.value.faults) == 2


def test_each_value_says_whether_info_json_or_a_sidecar_tells_it(make_folder):
    folder = make_folder()
    (folder / "conventions.yaml").write_text(
        'action: {units: rad}\ncameras: [{name: "*", source: ours}]\n'
        "layout: {state: [observation.state]}"
    )
    origins = open_dataset(folder).inspected.origins
    sidecar = (str(folder / "conventions.yaml"),)
    assert origins["action.units"] == origins["cameras.front.source"] == sidecar
    assert origins["layout.state"] == sidecar
    for place in ("control_hz", "cameras.front.height", "state.names"):
        assert origins[place] == ("meta/info.json",)
    assert "state.units" not in origins
