"""An episode that begins with what the one before ended with was recorded from a full buffer."""

import json
from dataclasses import replace

import numpy as np
import pytest

from data_tools.doctor.checks.boundaries import REMEDY
from data_tools.doctor.examination import validate
from data_tools.formats.reader import open_dataset

EPISODE = 3


def with_row(dataset, part, value, episode=EPISODE):
    def put(array):
        return np.concatenate([np.atleast_2d(value), array[1:]])

    return dataset.change(episode, **{part: put})


def last(dataset, part, episode=EPISODE - 1):
    return getattr(dataset.episodes[episode], part)[-1]


def stale_row(dataset, part, noise=0.0):
    row = last(dataset, part)
    return with_row(dataset, part, row + noise * np.random.default_rng(0).normal(size=row.shape))


def stale_frames(dataset, camera, num=1, change=lambda frame: frame):
    frame = dataset.episodes[EPISODE - 1].frames[camera][-1]
    return dataset.see(
        camera, lambda step, own: change(frame) if step < num else own, episode=EPISODE
    )


def as_jpeg_leaves_it(frame):
    noise = np.random.default_rng(5).normal(0, 2, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def told(dataset, rules=("stale_first_frame", "stale_first_row")):
    return [(each.rule, each.where, each.step) for each in validate(dataset) if each.rule in rules]


def place(dataset):
    return dataset.episodes[EPISODE].name


@pytest.mark.parametrize("kind", ["delta_ee", "joints", "joint_velocity"])
@pytest.mark.parametrize("hz", [10.0, 50.0])
def test_a_first_state_of_the_episode_before_is_told(robot, kind, hz):
    dataset = robot(kind, hz=hz)
    assert told(dataset) == []
    for noise in (0.0, 1e-3):
        stale = stale_row(dataset, "states", noise)
        (found,) = [each for each in validate(stale) if each.rule == "stale_first_row"]
        assert (found.where, found.step) == (place(dataset), 0)
        assert f"the last state of {dataset.episodes[EPISODE - 1].name}, '" in found.value


@pytest.mark.parametrize("kind", ["delta_ee", "joints", "joint_velocity"])
@pytest.mark.parametrize("hz", [10.0, 50.0])
def test_a_first_action_of_the_episode_before_is_told(robot, kind, hz):
    dataset = robot(kind, hz=hz, seed=1)
    stale = stale_row(dataset, "commands")
    (found,) = [each for each in validate(stale) if each.rule == "stale_first_row"]
    assert (found.where, found.step) == (place(dataset), 0)
    assert f"the last action of {dataset.episodes[EPISODE - 1].name}, '" in found.value


@pytest.mark.parametrize("num", [1, 2, 3])
@pytest.mark.parametrize("change", [lambda frame: frame, as_jpeg_leaves_it])
@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_first_pictures_of_the_episode_before_are_told(robot, num, change, camera):
    dataset = robot("joints")
    (found,) = [
        each
        for each in validate(stale_frames(dataset, camera, num, change))
        if each.rule == "stale_first_frame"
    ]
    assert (found.where, found.step) == (place(dataset), 0)
    assert (f"the first {num} pictures" if num > 1 else "the first picture") in found.value


def test_a_recording_that_goes_on_in_the_next_episode_is_no_finding(robot):
    """One long recording in pieces, which may share the row between them."""
    for kind in ("delta_ee", "joints", "joint_velocity"):
        long = robot(kind, episodes=1, seconds=40.0).episodes[0]
        for overlap in (0, 1):
            cuts = [slice(max(0, i - overlap), i + 100) for i in range(0, 500, 100)]
            pieces = [
                replace(
                    long,
                    name=f"arm.hdf5:data/demo_{number}",
                    states=long.states[cut],
                    commands=long.commands[cut],
                    clock=long.clock[cut],
                    frames={camera: each[cut] for camera, each in long.frames.items()},
                )
                for number, cut in enumerate(cuts)
            ]
            assert told(replace(robot(kind), episodes=pieces)) == []


def test_a_robot_that_starts_where_it_ended_is_no_finding(robot):
    """Home at both ends, and targets that are home at both ends."""
    dataset = robot("joints")
    home = dataset.episodes[0].states[0].copy()

    def from_home(array):
        ramp = np.clip(np.minimum(np.arange(len(array)), np.arange(len(array))[::-1]) / 20, 0, 1)
        return home + ramp[:, None] * (array - home)

    def seen_from_home(frames):
        return {camera: [each[0], *each[1:-1], each[0]] for camera, each in frames.items()}

    dataset = dataset.change_all(states=from_home, commands=from_home, frames=seen_from_home)
    assert told(dataset) == []


def test_a_frame_that_does_not_decode_is_told_as_such(robot):
    broken = stale_frames(robot("joints"), "front").see(
        "front", lambda step, own: None if step == 2 else own, episode=EPISODE
    )
    found = [(each.rule, each.step) for each in validate(broken)]
    assert ("undecodable_frame", 2) in found


def test_a_keep_file_with_an_edited_range_starts_an_episode_later(tmp_path, demos, robot_data):
    """The route that the remedy names."""
    keep = tmp_path / "keep.json"
    assert robot_data("filter", demos, keep, "--min-steps", "2")[0] == 0
    told = json.loads(keep.read_text())
    name = next(iter(told["episodes"]))
    told["episodes"][name][0][0] = 1
    keep.write_text(json.dumps(told))
    starts = open_dataset(demos, keep=keep)[0].starts()
    assert starts[0] == 1
    assert "robot-data filter --min-steps 2" in REMEDY
