"""Pictures of a dataset: what they show is what the files hold."""

import base64
import io
import json
import re

import av
import numpy as np
import pytest
from PIL import Image

from data_tools.conventions import CameraSpec
from data_tools.errors import UserError
from data_tools.finding import Finding
from data_tools.formats.reader import open_dataset
from data_tools.view.folder import View, video_frame, write_video
from data_tools.view.page import render_page
from data_tools.view.plots import column_series, plot_columns
from data_tools.view.sheets import (
    Labelled,
    as_stored,
    contact_sheet,
    declaration_sheet,
    fitted,
    font,
    read_as,
    select_cameras,
    select_episodes,
    spread,
)
from data_tools.writer import EpisodeWriter


@pytest.fixture
def dataset(demos):
    return open_dataset(demos)


def labelled(dataset, *places):
    return [Labelled(place, dataset[place]) for place in places]


def test_steps_are_spread_evenly_with_both_ends():
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(9, 1) == [4]


def test_episodes_are_chosen_by_places_and_ranges():
    assert select_episodes("0, 3,5-7,3", 12, 6) == [0, 3, 5, 6, 7]
    assert select_episodes(None, 12, 3) == [0, 6, 11]


@pytest.mark.parametrize(
    ("text", "words"),
    [("12", "places from 0 to 11"), ("7-3", "the smaller one first"), ("x", "like 0,3,5-8")],
)
def test_an_episode_that_is_not_there_is_refused(text, words):
    with pytest.raises(UserError, match=words):
        select_episodes(text, 12, 6)


def test_a_camera_that_is_not_there_is_refused_with_the_nearest_name(conventions):
    with pytest.raises(UserError, match="did you mean 'wrist'"):
        select_cameras("wirst", conventions)


def test_a_contact_sheet_shows_the_frames_of_the_steps_it_names(dataset, conventions):
    sheet = contact_sheet(labelled(dataset, 0), conventions, ["front"], num_frames=2)
    width = (1600 - 40 - 96 - 6) // 2
    for left, step in ((20 + 96, 0), (20 + 96 + width + 6, 19)):
        shown = sheet.crop((left, 20 + 58, left + width, 20 + 58 + round(32 * width / 48)))
        frame = dataset[0].image("front", step)
        assert np.array_equal(np.asarray(shown.resize((48, 32), Image.Resampling.NEAREST)), frame)


def test_every_reading_of_a_frame_is_one_of_eight_different_ones():
    stored = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    readings = [
        read_as(stored, color, turn)
        for color in ("rgb", "bgr")
        for turn in ("upright", "flipped_vertical", "rotated_180", "mirrored")
    ]
    assert len({reading.tobytes() for reading in readings}) == 8
    for color in ("rgb", "bgr"):
        for turn in ("upright", "flipped_vertical", "rotated_180"):
            spec = CameraSpec(name="c", height=6, width=8, color_order=color, orientation=turn)
            delivered = read_as(stored, color, turn)
            assert np.array_equal(as_stored(delivered, spec), stored)


class _Turned:
    """An episode whose camera is stored upside down and BGR, and says so."""

    def __init__(self, episode):
        self._episode = episode
        self.name, self.num_steps = episode.name, episode.num_steps

    def image(self, camera, step):
        return self._episode.image(camera, step)

    def stored_frames(self, camera):
        stored = self._episode.stored_frames(camera)
        change = {"color_order": "bgr", "orientation": "rotated_180"}
        spec = stored.camera.model_copy(update=change)
        return type(stored)(spec, stored.encoding, stored.path, stored.dataset)


@pytest.mark.parametrize(("is_turned", "row", "column"), [(False, 0, 0), (True, 1, 2)])
def test_the_framed_picture_is_the_declared_one_and_what_training_sees(
    dataset, is_turned, row, column
):
    episode = _Turned(dataset[0]) if is_turned else dataset[0]
    sheet = np.asarray(declaration_sheet(episode, ["front"], 3))
    blue = (sheet == (0x1F, 0x6F, 0xEB)).all(axis=-1)
    ys, xs = np.nonzero(blue)
    left, top = 24 + column * 322, 24 + 96 + 54 + row * (200 + 44)
    assert (xs.min(), ys.min()) == (left - 5, top - 5)
    shown = Image.fromarray(sheet[top : top + 200, left : left + 300])
    small = np.asarray(shown.resize((48, 32), Image.Resampling.NEAREST))
    assert np.array_equal(small, dataset[0].image("front", 3))


def test_curves_tell_units_limits_grippers_and_ranges(dataset, conventions):
    series = column_series(conventions, [dataset[0], dataset[1]])
    assert [each.name for each in series] == ["x", "y", "opening", "dx", "dy", "gripper"]
    assert series[5].marks == {"open": -1.0, "closed": 1.0}
    assert series[3].limits == (-1.0, 1.0)
    values = np.concatenate([dataset[0].actions(), dataset[1].actions()])[:, 0]
    assert series[3].band == pytest.approx(tuple(np.quantile(values, (0.01, 0.99))))
    figure = plot_columns(labelled(dataset, 0, 1), conventions)
    axes = {each.get_title(loc="left"): each for each in figure.axes if each.axison}
    assert list(axes)[3:] == ["dx [1, delta]", "dy [1, delta]", "gripper [1, absolute]"]
    curve = axes["dx [1, delta]"].lines[-1]
    assert np.array_equal(curve.get_ydata(), dataset[1].actions()[:, 0])
    assert curve.get_xdata()[-1] == pytest.approx(20 / 10)
    assert [note.get_text() for note in axes["gripper [1, absolute]"].texts] == ["open", "closed"]


def test_a_video_has_a_frame_a_step_at_the_control_rate(dataset, tmp_path):
    path = tmp_path / "episode"
    assert list(write_video(dataset[0], ["front", "wrist"], 10.0, path)) == list(range(20))
    with av.open(str(path)) as video:
        assert video.streams.video[0].average_rate == 10
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 20
    wanted = np.asarray(video_frame(dataset[0], ["front", "wrist"], 12, 10.0))
    assert np.abs(frames[12].astype(int) - wanted).mean() < 4


def page_of(dataset, **options):
    return render_page(dataset, "demos", labelled(dataset, 0, 5), ["front", "wrist"], **options)


def embedded(page: str) -> list[dict]:
    return [
        json.loads(text)
        for text in re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)
    ]


def test_the_page_holds_the_frames_and_values_of_the_steps_it_shows(dataset):
    first, second = embedded(page_of(dataset))
    assert first["steps"] == list(range(20))
    assert second["times"][-1] == 2.4
    jpeg = base64.b64decode(first["frames"]["front"][7])
    shown = np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)
    assert np.abs(shown - dataset[0].image("front", 7)).mean() < 3
    stored = np.concatenate([dataset[0].state()[7], dataset[0].actions()[7]])
    assert first["values"][7] == pytest.approx(stored.tolist(), rel=1e-3)


def test_the_page_fetches_nothing_and_runs_only_its_own_script(dataset):
    page = page_of(dataset)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'; img-src data:" in page


def test_text_from_the_data_cannot_become_markup(tmp_path, conventions, make_episode):
    evil = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
    names = (evil, "y", "opening")
    state = conventions.state.model_copy(update={"names": names})
    with EpisodeWriter(
        tmp_path / "evil.hdf5", conventions.model_copy(update={"state": state})
    ) as writer:
        writer.add(**make_episode(0, instruction=evil))
    dataset = open_dataset(tmp_path / "evil.hdf5")
    finding = Finding(
        rule=evil, severity="error", where=evil, value=evil, threshold=evil, remedy=evil
    )
    page = render_page(dataset, evil, labelled(dataset, 0), ["front"], findings=[finding])
    assert "<script>document" not in page
    assert "<img src=x" not in page
    assert page.count("<script") == 2


def test_numbers_that_are_not_finite_leave_a_gap(tmp_path, demos, dataset):
    class Holed:
        def __init__(self, episode):
            self._episode = episode

        def __getattr__(self, name):
            return getattr(self._episode, name)

        def state(self):
            state = self._episode.state().copy()
            state[5:8, 0] = np.nan
            return state

    page = render_page(dataset, "holes", [Labelled(0, Holed(dataset[0]))], [])
    (data,) = embedded(page)
    assert [row[0] for row in data["values"][5:8]] == [None] * 3
    assert page.count("<polyline") == 7


@pytest.mark.parametrize("max_bytes", [200_000, 400_000])
def test_a_page_stays_below_the_size_allowed(dataset, max_bytes):
    assert len(page_of(dataset, max_bytes=max_bytes).encode()) <= max_bytes


def test_a_page_that_cannot_be_small_enough_says_what_to_do(dataset):
    with pytest.raises(UserError, match="fewer episodes or cameras"):
        page_of(dataset, max_bytes=30_000)


def test_a_folder_gets_every_picture_and_nothing_else(dataset, tmp_path):
    done: list[str] = []
    view = View(dataset, "demos", episodes="2-3", advance=done.append)
    written = view.write(tmp_path / "out")
    names = ["contact.png", "declaration.png", "episode_2.mp4", "index.html", "plots.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert sorted(path.name for path in written) == names
    assert done.count("video") == 22
    with pytest.raises(UserError, match="--overwrite"):
        view.write(tmp_path / "out")
    view.write(tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("kind", ["contact", "declaration", "plots"])
def test_an_image_file_holds_the_picture_asked_for(dataset, tmp_path, kind):
    View(dataset, "demos").write(tmp_path / "sheet.jpg", kind)
    with Image.open(tmp_path / "sheet.jpg") as picture:
        assert picture.format == "JPEG"
        assert picture.width > 1000


def test_what_cannot_be_written_is_refused_before_anything_is(dataset, tmp_path):
    with pytest.raises(UserError, match=r"did you mean '.png'"):
        View(dataset, "demos").write(tmp_path / "sheet.pgn")
    with pytest.raises(UserError, match="Name one with --episodes"):
        View(dataset, "demos", episodes="1,2").write(tmp_path / "film.mp4")
    with pytest.raises(UserError, match="places from 0 to 11"):
        View(dataset, "demos", episodes="99").write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["push.hdf5"]


def test_ctrl_c_leaves_no_half_written_file(dataset, tmp_path):
    def interrupt(done: str) -> None:
        if done == "video":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        View(dataset, "demos", advance=interrupt).write(tmp_path / "out" / "film.mp4")
    assert list((tmp_path / "out").iterdir()) == []


def test_long_text_is_cut_and_control_characters_are_shown():
    assert fitted("a" * 500, font(12), 100).endswith("...")
    assert font(12).getlength(fitted("a" * 500, font(12), 100)) <= 100
    assert fitted("red\nblue \x07", font(12), 400) == "red blue ?"


def test_the_command_shows_findings_that_validate_printed(robot_data, demos, tmp_path):
    finding = {
        "rule": "frozen_frames", "severity": "warning", "episode": "demo_3", "step": 4,
        "value": "12 equal frames", "threshold": "none", "remedy": "Look at it.",
    }  # fmt: skip
    (tmp_path / "findings.json").write_text(json.dumps({"findings": [finding]}))
    page = tmp_path / "page.html"
    code, out, _ = robot_data(
        "view", demos, "--out", page, "--findings", tmp_path / "findings.json", "--episodes", "3"
    )
    assert code == 0
    assert f"wrote {page}" in out
    assert "frozen_frames" in page.read_text()
    (tmp_path / "findings.json").write_text('[{"rule": 3}]')
    _, _, err = robot_data(
        "view", demos, "--out", tmp_path / "b.html", "--findings", tmp_path / "findings.json"
    )
    assert "findings.json, 0.rule: found 3; expected a text. Give what `robot-data valid" in err
    (tmp_path / "findings.json").write_text("[1]")
    code, _, err = robot_data(
        "view", demos, "--out", tmp_path / "b.html", "--findings", tmp_path / "findings.json"
    )
    assert code == 2
    assert "robot-data validate PATH --json" in err


def test_the_command_refuses_a_bad_camera_with_2(robot_data, demos, tmp_path):
    code, _, err = robot_data("view", demos, "--out", tmp_path / "out", "--cameras", "fornt")
    assert code == 2
    assert "did you mean 'front'" in err
