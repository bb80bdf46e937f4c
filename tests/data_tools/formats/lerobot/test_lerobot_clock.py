"""Which frame a step has seen, told by what the frame shows: row and frame are checked by content.

Every frame of these folders has a colour of its own: its red says the step, its green the episode.
"""

import json
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_tools.doctor.examination import validate
from data_tools.doctor.repairs.repair import repair
from data_tools.errors import UserError
from data_tools.formats.lerobot import open_lerobot, write_lerobot
from data_tools.formats.lerobot.lerobot_options import LeRobotOptions
from data_tools.formats.lerobot.video_files import Header
from data_tools.formats.reader import open_dataset

LENGTHS = (7, 5, 9)
FPS = 10
RULES = ("wrong_clock", "frame_count", "unreadable_video")

# what recorders have written in place of frame_index / fps
CLOCKS = {
    "shifted by a frame": lambda t: t + 1 / FPS,
    "from 3 s on": lambda t: t + 3,
    "the time of day": lambda t: t + 1_700_000_000.0,
    "another rate": lambda t: t * 1.08,
    "jitter": lambda t: t + np.where(np.arange(len(t)) % 2, 0.03, -0.02),
    "in milliseconds": lambda t: t * 1000,
    "all zero": lambda t: t * 0,
}


def set_times(folder, change, dtype=np.float64):
    """Change the times of every episode; `change` takes those of one."""
    for path in sorted((folder / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        numbers = np.array(table["frame_index"])
        times = np.array(table["timestamp"], np.float64).copy()
        starts = [*np.flatnonzero(numbers == 0), len(numbers)]
        for first, last in pairwise(starts):
            times[first:last] = change(times[first:last])
        place = table.column_names.index("timestamp")
        table = table.set_column(place, "timestamp", pa.array(times.astype(dtype)))
        pq.write_table(table, path)


def declare(folder, **layout):
    (folder / "conventions.yaml").write_text(yaml.safe_dump({"layout": layout}))


def steps_shown(dataset, episode):
    """The step that each delivered frame was made for, by its red; its green is checked."""
    shown = []
    for step in range(dataset[episode].num_steps):
        red, green = dataset[episode].image("front", step)[..., :2].reshape(-1, 2).mean(axis=0)
        assert (green - 20) / 80 == pytest.approx(episode, abs=0.2)
        shown.append((red - 20) / 25)
    np.testing.assert_allclose(shown, np.round(shown), atol=0.3)
    return np.round(shown).astype(int).tolist()


def assert_each_step_has_its_own_frame(dataset):
    for episode, length in enumerate(LENGTHS):
        assert steps_shown(dataset, episode) == list(range(length))
        np.testing.assert_allclose(dataset[episode].times(), np.arange(length) / FPS, atol=1e-6)


def write_video_at(path, frames, ticks, rate=1000):
    """A video whose frames are shown at these thousandths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "12", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        for frame, tick in zip(frames, ticks, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = int(tick), Fraction(1, rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("clock", list(CLOCKS))
def test_a_wrong_clock_is_told_by_a_rule_of_its_own(make_folder, version, clock):
    folder = make_folder(version, "video")
    set_times(folder, CLOCKS[clock])
    dataset = open_lerobot(folder)
    told = [finding for finding in validate(dataset) if finding.rule in RULES]
    assert [finding.rule for finding in told] == ["wrong_clock"] * 3
    assert [finding.where for finding in told] == [dataset[i].name for i in range(3)]
    assert "download" not in str(told).lower()
    assert "clock: frame_index" in told[0].remedy
    assert not any(finding.rule == "undecodable_frame" for finding in validate(dataset))


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_no_frame_of_a_wrong_clock_is_delivered_in_silence(make_folder, version):
    folder = make_folder(version, "video")
    set_times(folder, CLOCKS["shifted by a frame"])
    dataset = open_lerobot(folder)
    for step in range(LENGTHS[0]):
        with pytest.raises(UserError, match=r"7 of 7 steps nearer to another frame.*frame_index"):
            dataset[0].image("front", step)
    dataset[0].actions()  # numbers need no clock


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("clock", list(CLOCKS))
def test_the_sidecar_can_take_each_steps_own_frame(make_folder, version, clock):
    folder = make_folder(version, "video")
    set_times(folder, CLOCKS[clock])
    declare(folder, clock="frame_index")
    dataset = open_lerobot(folder)
    assert_each_step_has_its_own_frame(dataset)
    assert not [finding for finding in validate(dataset) if finding.rule in RULES]


@pytest.mark.parametrize("clock", ["shifted by a frame", "another rate", "jitter", "from 3 s on"])
def test_the_tolerance_that_a_wrong_clock_needs_is_told_and_suffices(make_folder, clock):
    folder = make_folder("v3.0", "video")
    set_times(folder, CLOCKS[clock])
    for layout in ({}, {"clock": "timestamp", "tolerance_s": 1e-6}):
        declare(folder, **layout)
        told = [f.value for f in validate(open_lerobot(folder)) if f.rule == "wrong_clock"]
        needed = [float(value.rpartition("tolerance_s: ")[2]) for value in told]
        declare(folder, clock="timestamp", tolerance_s=max(needed))
        assert not [f for f in validate(open_lerobot(folder)) if f.rule in RULES]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_fix_gives_each_step_its_own_frame(make_folder, robot_data, tmp_path, version):
    folder, target = make_folder(version, "video"), tmp_path / "fixed.hdf5"
    set_times(folder, CLOCKS["shifted by a frame"])
    code, out, err = robot_data("validate", folder, "--fix", target)
    assert code == 1, err
    assert out.count("repaired [wrong_clock]") == 3
    assert_each_step_has_its_own_frame(open_dataset(target))


def test_fix_refuses_to_guess_where_counts_differ(make_folder, tmp_path):
    folder = make_folder("v2.1", "video")
    set_times(folder, CLOCKS["another rate"])
    video = folder / "videos/chunk-000/observation.images.front/episode_000000.mp4"
    video.write_bytes(video.with_name("episode_000001.mp4").read_bytes())
    dataset = open_lerobot(folder)
    findings = validate(dataset)
    assert [f.rule for f in findings if f.rule in RULES] == [
        *("frame_count", "wrong_clock", "wrong_clock")
    ]
    with pytest.raises(UserError, match=r"found 5 frames of camera 'front'.*leave the episode out"):
        repair(dataset, tmp_path / "fixed.hdf5", findings)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_an_inexact_clock_passes_with_a_tolerance_but_never_to_another_frame(
    make_folder, robot_data, version
):
    folder = make_folder(version, "video")
    set_times(folder, CLOCKS["jitter"])
    assert steps_shown(open_lerobot(folder, tolerance_s=0.04), 0) == list(range(7))
    code, out, err = robot_data("validate", folder, "--tolerance-s", 0.04, "--json")
    rules = {finding["rule"] for finding in json.loads(out)["findings"]}
    assert (code, "wrong_clock" in rules) == (1, False), err
    declare(folder, tolerance_s=0.04)
    assert steps_shown(open_lerobot(folder), 0) == list(range(7))
    set_times(folder, CLOCKS["shifted by a frame"])
    with pytest.raises(UserError, match="nearer to another frame"):
        open_lerobot(folder, tolerance_s=10).__getitem__(0).image("front", 0)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_recorded_times_find_frames_where_the_sidecar_takes_them(make_folder, version):
    folder = make_folder(version, "video")
    # one step late, but for the last, which has nothing after it: by time alone nobody sees it
    set_times(folder, lambda t: np.minimum(t + 0.1, t[-1]))
    declare(folder, clock="timestamp")
    assert steps_shown(open_lerobot(folder), 0) == [1, 2, 3, 4, 5, 6, 6]
    set_times(folder, CLOCKS["jitter"])
    assert [f.rule for f in validate(open_lerobot(folder)) if f.rule in RULES] == [
        "wrong_clock"
    ] * 3
    declare(folder, clock="timestamp", tolerance_s=0.05)
    assert [f.rule for f in validate(open_lerobot(folder)) if f.rule in RULES] == []


@pytest.mark.parametrize("clock", [None, "timestamp", "frame_index"])
def test_times_that_a_video_of_uneven_frames_shares_are_right(make_folder, true_frame, clock):
    """Recorders that keep real times give them to the video, too: then there is nothing wrong."""
    folder = make_folder("v2.1", "video")
    ticks = np.array([0, 81, 203, 310, 395, 516, 602])
    write_video_at(
        folder / "videos/chunk-000/observation.images.front/episode_000000.mp4",
        [true_frame(0, step) for step in range(7)],
        ticks,
    )
    set_times(folder, lambda t: ticks / 1000 if len(t) == 7 else t)
    if clock:
        declare(folder, clock=clock)
    dataset = open_lerobot(folder)
    assert not [f for f in validate(dataset) if f.rule in RULES]
    for step in (3, 0, 6, 1, 5, 2, 4):
        frame = dataset[0].image("front", step)
        assert np.abs(frame.astype(int) - true_frame(0, step)).mean() < 4


def test_a_video_that_starts_late_is_a_wrong_clock(make_folder, true_frame):
    """Its times are right, its frames are not where they lead: every step but one gets another."""
    folder = make_folder("v2.1", "video")
    write_video_at(
        folder / "videos/chunk-000/observation.images.front/episode_000000.mp4",
        [true_frame(0, step) for step in range(7)],
        np.arange(1, 8) * 100,
    )
    told = [f for f in validate(open_lerobot(folder)) if f.rule in RULES]
    assert [(f.rule, f.where[-1]) for f in told] == [("wrong_clock", "0")]
    declare(folder, clock="frame_index")
    assert steps_shown(open_lerobot(folder), 0) == list(range(7))


def test_a_start_that_the_index_adds_up_wrongly_is_told_and_can_be_counted(make_folder):
    """Lengths of videos that were rounded up, added over many episodes: a frame off at last."""
    folder = make_folder("v3.0", "video")
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows[1:]:
        for end in ("from_timestamp", "to_timestamp"):
            row[f"videos/observation.images.front/{end}"] += 0.1
    pq.write_table(pa.Table.from_pylist(rows), path)
    told = [f for f in validate(open_lerobot(folder)) if f.rule in RULES]
    assert [(f.rule, f.where[-1]) for f in told] == [("wrong_clock", "1"), ("wrong_clock", "2")]
    assert "by the index the video starts at 0.8 s, by its frames at 0.7 s" in told[0].value
    declare(folder, clock="frame_index")
    assert_each_step_has_its_own_frame(open_lerobot(folder))


def test_frames_of_no_episode_are_told_and_passed_over_by_recorded_times(make_folder, true_frame):
    folder = make_folder("v3.0", "video")
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(path).to_pylist()[1:]
    for i, row in enumerate(rows):
        row |= {"episode_index": i, "dataset_from_index": row["dataset_from_index"] - 7}
        row["dataset_to_index"] -= 7
    pq.write_table(pa.Table.from_pylist(rows), path)
    data = folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(data).slice(7)
    number = table.column_names.index("episode_index")
    pq.write_table(table.set_column(number, "episode_index", pa.array([0] * 5)), data)
    data = folder / "data/chunk-000/file-001.parquet"
    table = pq.read_table(data)
    pq.write_table(table.set_column(number, "episode_index", pa.array([1] * 9)), data)
    info = json.loads((folder / "meta/info.json").read_text())
    info |= {"total_episodes": 2, "total_frames": 14}
    (folder / "meta/info.json").write_text(json.dumps(info))
    for clock in (None, "frame_index"):
        declare(folder, clock=clock)
        with pytest.raises(UserError, match=r"found 21 frames.*expected 14, one a step.*timestamp"):
            open_lerobot(folder)[0].image("front", 0)
    declare(folder, clock="timestamp")
    dataset = open_lerobot(folder)
    for step in range(5):
        error = dataset[0].image("front", step).astype(int) - true_frame(1, step)
        assert np.abs(error).mean() < 4


def test_times_in_float32_pass_however_long_an_episode_is(make_folder, true_frame):
    """After two hours float32 tells times half a millisecond apart, five times the tolerance."""
    folder = make_folder("v2.1", "video")
    ticks = np.arange(7) * 1_234_567
    write_video_at(
        folder / "videos/chunk-000/observation.images.front/episode_000000.mp4",
        [true_frame(0, step) for step in range(7)],
        ticks,
    )
    set_times(folder, lambda t: ticks / 1000 if len(t) == 7 else t, np.float32)
    dataset = open_lerobot(folder)
    assert np.abs(dataset[0].times() - ticks / 1000).max() > 1e-4
    assert steps_shown(dataset, 0) == list(range(7))


def test_a_rate_is_regular_as_long_as_it_leads_to_the_same_frames():
    for num_frames, is_regular in ((100, True), (3000, False)):
        header = Header(num_frames, 0.0, 30000 / 1001, 1 / 30000, is_even=True)
        assert header.is_regular(29.97) == is_regular
    for other in ((0, 0.0, 30), (100, None, 30), (100, 0.03, 30), (100, 0.0, 29.97), (100, 0.0, 0)):
        assert not Header(*other, 1 / 15360, is_even=other[0] > 0).is_regular(30)


def test_a_video_that_is_uneven_inside_is_told_before_any_frame_is_read(make_folder, true_frame):
    """Its header has the rate and count of an even one."""
    folder = make_folder("v2.1", "video")
    write_video_at(
        folder / "videos/chunk-000/observation.images.front/episode_000000.mp4",
        [true_frame(0, step) for step in range(7)],
        [0, 1000, 2600, 3000, 4000, 5000, 6000],
        rate=10_000,
    )
    told = [f for f in validate(open_lerobot(folder)) if f.rule in RULES]
    assert [(f.rule, f.where[-1]) for f in told] == [("wrong_clock", "0")]
    assert "in 1 of 7 steps nearer to another frame" in told[0].value
    declare(folder, clock="frame_index")
    assert steps_shown(open_lerobot(folder), 0) == list(range(7))


def test_the_clock_that_is_chosen_is_in_the_fingerprint(make_folder):
    folder = make_folder("v2.1", "video")
    prints = {open_lerobot(folder).fingerprint}
    for clock in ("timestamp", "frame_index"):
        declare(folder, clock=clock)
        prints.add(open_lerobot(folder).fingerprint)
    assert len(prints) == 3


def test_embedded_images_belong_to_their_rows_whatever_the_times_say(make_folder):
    folder = make_folder("v2.1", "image")
    set_times(folder, CLOCKS["shifted by a frame"])
    dataset = open_lerobot(folder)
    assert steps_shown(dataset, 0) == list(range(7))
    assert not [f for f in validate(dataset) if f.rule in RULES]
    assert dataset[0].times()[0] == 0


def test_a_video_that_cannot_be_opened_is_told_once(make_folder):
    folder = make_folder("v2.1", "video")
    video = folder / "videos/chunk-000/observation.images.front/episode_000001.mp4"
    video.write_bytes(video.read_bytes()[:200])
    told = [f for f in validate(open_lerobot(folder)) if f.severity == "error"]
    assert [(f.rule, f.where[-1]) for f in told] == [("unreadable_video", "1")]
    assert "again" in told[0].remedy


def test_what_was_mended_by_number_is_right_for_lerobot_too(make_folder, tmp_path):
    folder = make_folder("v2.1", "video")
    set_times(folder, CLOCKS["the time of day"])
    declare(folder, clock="frame_index")
    dataset = open_lerobot(folder)
    options = LeRobotOptions(codec="h264", images="png")
    episodes = [dataset[i] for i in range(3)]
    written = write_lerobot(tmp_path / "new", dataset.conventions, episodes, options)
    assert_each_step_has_its_own_frame(open_lerobot(written))
