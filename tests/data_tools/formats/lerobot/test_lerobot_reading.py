import json
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.lerobot import open_lerobot

KINDS = [(version, mode) for version in ("v2.1", "v3.0") for mode in ("image", "video")]
LENGTHS = [7, 5, 9]
FEATURE = "observation.images.front"


def change_info(folder, **changes):
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_rows(path, change):
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows), path)


def sidecar(folder, content):
    (folder / "conventions.yaml").write_text(yaml.safe_dump(content))


def red_of(dataset, episode, step):
    return dataset[episode].image("front", step)[..., 0].mean()


@pytest.mark.parametrize(("version", "mode"), KINDS)
def test_every_number_and_frame_is_the_one_written(
    make_folder, true_frame, true_numbers, version, mode
):
    dataset = open_lerobot(make_folder(version, mode))
    assert [dataset[i].num_steps for i in range(len(dataset))] == LENGTHS
    places = [(e, t) for e, length in enumerate(LENGTHS) for t in range(length)]
    np.random.default_rng(0).shuffle(places)
    for episode, step in places:
        state, actions = true_numbers(episode)
        np.testing.assert_array_equal(dataset[episode].state(), state)
        np.testing.assert_array_equal(dataset[episode].actions(), actions)
        frame = dataset[episode].image("front", step).astype(int)
        error = np.abs(frame - true_frame(episode, step))
        # neighbours differ by 25 in red, so video may be wrong by its loss but not by a frame
        assert error.max() == 0 if mode == "image" else error.mean() < 4


@pytest.mark.parametrize(("version", "mode"), KINDS)
def test_episodes_carry_task_times_attributes_and_storage(make_folder, version, mode):
    dataset = open_lerobot(make_folder(version, mode))
    episode = dataset[1]
    assert episode.instruction == episode.observation(2, ("front",)).instruction == "task 1"
    assert episode.attributes == {"operator": "Ann"}
    assert episode.is_success is None
    np.testing.assert_allclose(episode.times(), np.arange(5) / 10, atol=1e-7)
    assert episode.stored_frames("front").encoding == ("png" if mode == "image" else "video")
    assert dataset.inspected.layouts == (f"lerobot_{version}",)
    assert version in dataset.inspected.evidence[0]


def test_what_info_json_cannot_tell_stays_unknown(make_folder):
    conventions = open_lerobot(make_folder()).conventions
    assert conventions.state.names == ("x", "y", "opening")
    assert conventions.action.names == ("dx", "gripper")
    assert conventions.action.references == ("unknown", "unknown")
    assert conventions.action.grippers == ()
    assert conventions.cameras[0].orientation == "upright"
    assert conventions.control_hz == 10


def test_a_sidecar_is_merged_over_info_json(make_folder, true_frame):
    folder = make_folder()
    sidecar(
        folder,
        {
            "cameras": [{"name": "front", "orientation": "flipped_vertical", "color_order": "bgr"}],
            "action": {
                "references": ["delta", "absolute"],
                "grippers": [{"column": "gripper", "open_value": 1, "closed_value": 0}],
            },
        },
    )
    dataset = open_lerobot(folder)
    assert dataset.conventions.action.references == ("delta", "absolute")
    assert dataset.conventions.action.names == ("dx", "gripper")
    assert dataset.conventions.cameras[0].orientation == "upright"  # as delivered
    np.testing.assert_array_equal(dataset[0].image("front", 3), true_frame(0, 3)[::-1, :, ::-1])


def test_the_way_frames_are_turned_is_in_the_fingerprint(make_folder):
    folder = make_folder()
    prints = {open_lerobot(folder).fingerprint}
    for said in ({}, {"color_order": "bgr"}, {"orientation": "flipped_vertical"}):
        sidecar(folder, {"cameras": [{"name": "front"} | said]})
        prints.add(open_lerobot(folder).fingerprint)
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"actions": {}}, "did you mean 'action'"),
        ({"cameras": [{"name": "frnt"}]}, "did you mean 'front'"),
        ({"control_hz": 20}, "10.0 as meta/info.json says"),
        ({"cameras": [{"name": "front", "height": 47}]}, "47"),
        ({"cameras": [{"name": "front", "orientation": "unknown"}]}, "Look at one frame"),
        ({"layout": {"action": "acton"}}, "did you mean 'action'"),
        ({"action": {"references": ["sideways", "delta"]}}, "sideways"),
        (["front"], "a mapping"),
    ],
)
def test_a_wrong_sidecar_is_told_with_a_remedy(make_folder, content, words):
    folder = make_folder()
    sidecar(folder, content)
    with pytest.raises(UserError, match=words):
        open_lerobot(folder)


def test_features_of_other_names_are_named_in_the_sidecar(make_folder, true_numbers):
    folder = make_folder("v2.1")
    info = json.loads((folder / "meta/info.json").read_text())
    features = info["features"]
    features["command"] = features.pop("action")
    change_info(folder, features=features)
    for path in (folder / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        names = ["command" if name == "action" else name for name in table.column_names]
        pq.write_table(table.rename_columns(names), path)
    with pytest.raises(UserError, match=r"layout: \{action"):
        open_lerobot(folder)
    sidecar(folder, {"layout": {"action": "command"}})
    np.testing.assert_array_equal(open_lerobot(folder)[2].actions(), true_numbers(2)[1])


@pytest.mark.parametrize("version", ["v1.6", "v4.0", None, 3])
def test_other_versions_are_refused_and_a_wrong_number_can_be_mended(make_folder, version):
    folder = make_folder("v3.0")
    change_info(folder, codebase_version=version)
    with pytest.raises(UserError, match=r"'v3.0' has meta/episodes/chunk-000/file-000.parquet"):
        open_lerobot(folder)
    assert (folder / "meta/episodes/chunk-000/file-000.parquet").is_file()
    change_info(folder, codebase_version="v3.0")
    assert len(open_lerobot(folder)) == 3


@pytest.mark.parametrize(
    "template", ["/etc/{file_index}", "../{file_index:03d}", "{file_index.real}", "{other}", "{"]
)
def test_templates_cannot_lead_out_of_the_folder(make_folder, template):
    folder = make_folder()
    change_info(folder, data_path=template)
    with pytest.raises(UserError, match="data_path"):
        open_lerobot(folder)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lengths_that_contradict_the_rows_are_told_with_both_numbers(make_folder, version):
    folder = make_folder(version)
    path = next(p for p in sorted((folder / "data").rglob("*.parquet")))
    table = pq.read_table(path)
    pq.write_table(table.slice(0, len(table) - 2), path)
    rows = len(table)
    with pytest.raises(UserError, match=f"found {rows - 2} rows; expected {rows}"):
        open_lerobot(folder)


@pytest.mark.parametrize(
    ("file", "words"),
    [(0, "step 6, episode_index: found 1; expected 0"), (1, "step 0, frame_index: found 1")],
)
def test_rows_of_another_episode_or_step_are_never_delivered(make_folder, file, words):
    folder = make_folder("v3.0")
    path = folder / f"data/chunk-000/file-{file:03d}.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table.slice(1), table.slice(0, 1)]), path)
    with pytest.raises(UserError, match=words):
        open_lerobot(folder)[2 * file].state()


def test_index_entries_that_contradict_one_another_are_told(make_folder):
    folder = make_folder("v3.0", "video")
    path = folder / "meta/episodes/chunk-000/file-000.parquet"

    def change(rows):
        rows[0]["length"] = 6
        rows[2][f"videos/{FEATURE}/from_timestamp"] = None

    change_rows(path, change)
    change_info(folder, total_frames=20)
    with pytest.raises(UserError) as caught:
        open_lerobot(folder)
    text = str(caught.value)
    assert "found rows 0 to 7; expected rows 0 to 6" in text
    assert f"no numbers ['videos/{FEATURE}/from_timestamp']" in text


def test_totals_of_info_json_must_be_those_of_the_index(make_folder):
    folder = make_folder()
    change_info(folder, total_frames=22)
    with pytest.raises(UserError, match=r"found 21; expected 22 as meta/info\.json says"):
        open_lerobot(folder)


@pytest.mark.parametrize(("version", "expected"), [("v2.1", "expected 7"), ("v3.0", "expected 21")])
def test_a_short_video_is_told_with_both_numbers(make_folder, version, expected):
    folder = make_folder(version, "video")
    short = make_folder("v2.1", "video", name="other")
    source = next(iter(sorted((short / "videos").rglob("episode_000001.mp4"))))
    target = next(iter(sorted((folder / "videos").rglob("*.mp4"))))
    target.write_bytes(source.read_bytes())
    dataset = open_lerobot(folder)
    with pytest.raises(UserError, match=f"found 5 frames of camera .*{expected}"):
        dataset[0].image("front", 0)


def test_a_writer_that_was_not_finalized_is_told_as_such(make_folder):
    folder = make_folder("v3.0")
    path = folder / "data/chunk-000/file-001.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"dataset.finalize\(\)"):
        open_lerobot(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"version https://git-lfs.github.com/spec/v1", "git lfs pull"), (b"PNG", "damaged")],
)
def test_files_that_are_no_parquet_are_named(make_folder, content, words):
    folder = make_folder()
    (folder / "data/chunk-000/file-000.parquet").write_bytes(content)
    with pytest.raises(UserError, match=words):
        open_lerobot(folder)


@pytest.mark.parametrize(
    ("version", "name", "words"),
    [
        ("v2.1", "meta/episodes.jsonl", "with its whole `meta`"),
        ("v3.0", "data/chunk-000/file-001.parquet", "with all its files"),
        ("v2.1", f"videos/chunk-000/{FEATURE}/episode_000001.mp4", "with its videos"),
        ("v3.0", "meta/info.json", "Give the folder that holds `meta`"),
    ],
)
def test_missing_files_are_told(make_folder, version, name, words):
    folder = make_folder(version, "video")
    (folder / name).unlink()
    with pytest.raises(UserError, match=words):
        open_lerobot(folder)


def test_a_broken_frame_is_told_with_its_step(make_folder):
    folder = make_folder("v2.1")
    path = folder / "data/chunk-000/episode_000001.parquet"

    def change(rows):
        rows[3][FEATURE]["bytes"] = rows[3][FEATURE]["bytes"][:60]

    change_rows(path, change)
    dataset = open_lerobot(folder)
    dataset[1].image("front", 2)
    with pytest.raises(UserError, match="step 3"):
        dataset[1].image("front", 3)


def several_tasks(folder):
    (folder / "meta/episodes.jsonl").write_text(
        "".join(
            json.dumps({"episode_index": i, "tasks": tasks, "length": length}) + "\n"
            for i, (tasks, length) in enumerate(
                zip([["task 0"], ["task 1", "task 0"], ["task 0"]], LENGTHS, strict=True)
            )
        )
    )
    path = folder / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("task_index")
    pq.write_table(table.set_column(place, "task_index", pa.array([1, 1, 1, 0, 0])), path)


def test_an_episode_of_several_tasks_needs_a_word_of_the_sidecar(make_folder):
    folder = make_folder("v2.1")
    several_tasks(folder)
    with pytest.raises(UserError, match="several_tasks: true"):
        open_lerobot(folder)
    sidecar(folder, {"layout": {"several_tasks": True}})
    episode = open_lerobot(folder)[1]
    texts = [episode.observation(step, ()).instruction for step in range(5)]
    assert texts == ["task 1"] * 3 + ["task 0"] * 2
    assert episode.instruction == "task 1"


def test_steps_of_another_task_than_the_index_lists_are_refused(make_folder):
    folder = make_folder("v2.1")
    index = (folder / "meta/episodes.jsonl").read_text()
    several_tasks(folder)
    (folder / "meta/episodes.jsonl").write_text(index)
    with pytest.raises(UserError, match="task_index"):
        open_lerobot(folder)[1].actions()


def test_a_depth_camera_is_left_out_and_reported(make_folder):
    folder = make_folder()
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"]["observation.images.depth"] = {"dtype": "image", "shape": [48, 64, 1]}
    change_info(folder, features=info["features"])
    dataset = open_lerobot(folder)
    assert dataset.conventions.camera_names == ("front",)
    assert [finding.rule for finding in dataset.inspected.warnings] == ["camera_not_read"]


@pytest.mark.parametrize("mode", ["image", "video"])
def test_a_dataset_goes_to_another_process_after_it_was_used(make_folder, mode):
    dataset = open_lerobot(make_folder("v3.0", mode))
    here = [red_of(dataset, 2, step) for step in range(4)]
    assert [red_of(pickle.loads(pickle.dumps(dataset)), 2, step) for step in range(4)] == here
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = list(pool.map(red_of, [dataset] * 4, [2] * 4, range(4)))
    assert there == here


def test_open_files_are_bounded(make_folder, monkeypatch):
    monkeypatch.setattr("data_tools.formats.lerobot.parquet_files.MAX_OPEN_FILES", 2)
    monkeypatch.setattr("data_tools.formats.lerobot.video_files.MAX_OPEN_VIDEOS", 1)
    dataset = open_lerobot(make_folder("v2.1", "video"))
    before = len(os.listdir("/proc/self/fd"))
    for episode in (0, 1, 2, 0, 1, 2):
        red_of(dataset, episode, 1)
        dataset[episode].state()
    assert len(os.listdir("/proc/self/fd")) - before <= 3
