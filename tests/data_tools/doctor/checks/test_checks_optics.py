"""A camera against itself in other episodes: out of focus, or moved."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from data_tools.doctor.checks.looks import thumbnail
from data_tools.doctor.checks.optics import Outlook, check_focus, check_moves
from data_tools.doctor.checks.pictures import steepness
from data_tools.doctor.examination import examine, validate
from data_tools.doctor.planting.plant import plant
from data_tools.formats.reader import open_dataset
from tests.data_tools.doctor.checks.clean_files import clean_file

QUIET = np.zeros(3)


def room(seed=0, side=96):
    """Boxes of many sizes and greys on a table, somewhat noisy: uint8[72, 96, 3]."""
    rng = np.random.default_rng(0)
    picture = np.full((72, side, 3), 150.0)
    for _ in range(25):
        y, x = rng.integers(0, 60), rng.integers(0, side - 12)
        height, width = rng.integers(4, 16, 2)
        picture[y : y + height, x : x + width] = rng.uniform(20, 240, 3)
    return picture + np.random.default_rng(seed + 1).normal(0, 2, picture.shape)


def outlook(picture, start=QUIET):
    frame = picture.round().clip(0, 255).astype(np.uint8)
    grey = frame.mean(axis=2)[: 72 // 3 * 3, : 96 // 3 * 3].reshape(24, 3, 32, 3).mean(axis=(1, 3))
    return Outlook((steepness(frame),) * 2, thumbnail(frame), grey.astype(np.uint8), start)


def episodes(change=lambda index, picture: picture, count=12, starts=None):
    return {
        f"demo_{index}": outlook(
            change(index, room(index)), QUIET if starts is None else starts[index]
        )
        for index in range(count)
    }


def places(told):
    return [finding.where for finding in told]


@pytest.mark.parametrize("width", [1.0, 2.0, 4.0])
def test_edges_are_less_steep_the_more_they_are_blurred_whatever_the_light(width):
    sharp, soft = room(), gaussian_filter(room(), (width, width, 0))
    values = [
        steepness((light * each).astype(np.uint8)) for each in (sharp, soft) for light in (1, 0.5)
    ]
    assert values[0] == pytest.approx(values[1], abs=0.05)
    assert values[2] == pytest.approx(values[3], abs=0.05, nan_ok=True) or np.isnan(values[3])
    assert values[2] < 0.66 * values[0]
    assert np.isnan(steepness(np.full((72, 96, 3), 99, np.uint8)))


@pytest.mark.parametrize("width", [1.5, 4.0, 9.0])
def test_the_one_soft_episode_is_told_and_a_soft_camera_is_not(width):
    def soften(index, picture):
        return gaussian_filter(picture, (width, width, 0)) if index == 7 else picture

    assert places(check_focus("front", episodes(soften))) == ["demo_7"]
    soft = episodes(lambda index, picture: gaussian_filter(picture, (1.5, 1.5, 0)))
    assert places(check_focus("front", soft)) == []


def test_another_scene_with_softer_edges_is_no_lens_out_of_focus():
    def elsewhere(index, picture):
        soft = gaussian_filter(255 - picture, (1.5, 1.5, 0))
        return soft if index == 7 else picture

    assert places(check_focus("front", episodes(elsewhere))) == []


def test_an_episode_that_is_cut_off_or_smeared_at_its_start_is_not_out_of_focus():
    """A blurred lens softens the first picture as well as the sharpest one."""
    usual = episodes()
    for which in (0, 1):
        steep = list(usual["demo_7"].steepness)
        steep[which] *= 0.3
        changed = usual | {"demo_7": usual["demo_7"]._replace(steepness=tuple(steep))}
        assert places(check_focus("front", changed)) == []


def test_the_first_episode_after_a_move_is_told():
    def move(index, picture):
        return shift(picture, (3, -6, 0), order=1, mode="nearest") if index >= 5 else picture

    (told,) = check_moves("front", episodes(move))
    assert told.where == "demo_5"
    assert "shifted by 7% of the longer side" in told.value


@pytest.mark.parametrize("reach", [2.0, 5.0])
def test_a_camera_that_hangs_otherwise_in_every_episode_was_not_moved_once(reach):
    rng = np.random.default_rng(3)
    moves = rng.uniform(-reach, reach, (12, 2))

    def hang(index, picture):
        return shift(picture, (*moves[index], 0), order=1, mode="nearest")

    assert places(check_moves("front", episodes(hang))) == []


def test_a_robot_that_starts_elsewhere_moves_the_view_of_its_own_camera():
    def move(index, picture):
        return shift(picture, (0, -6, 0), order=1, mode="nearest") if index >= 5 else picture

    starts = [np.full(3, 0.4 * (index >= 5)) for index in range(12)]
    assert places(check_moves("wrist", episodes(move, starts=starts))) == []
    assert places(check_moves("wrist", episodes(move))) == ["demo_5"]


def test_too_few_episodes_are_in_the_ledger():
    (told,) = check_moves("front", episodes(count=5))
    assert (told.where, told.why) == ("camera 'front'", "fewer than 6 episodes")
    (told,) = check_focus("front", episodes(count=4))
    assert "fewer than 5 episodes show edges" in told.why


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "episode"), [("blurred_camera", "4"), ("moved_camera", "6")])
def test_lenses_and_cameras_of_filmed_episodes_are_told(tmp_path, rule, episode):
    source = clean_file("spacemouse at 10 Hz")
    planted = plant(rule, source, tmp_path / "out.hdf5", episode=episode)
    (found,) = validate(open_dataset(tmp_path / "out.hdf5"))
    assert (found.rule, found.where) == (rule, planted[0].episode)
    assert not [line for line in examine(open_dataset(source)).ledger if rule in line.rules]
