"""Broken pictures break one rule each; three frames a camera are enough, --deep sees all."""

import h5py
import numpy as np
import pytest

from data_tools.doctor.checks.pictures import look
from data_tools.doctor.checks.recording import Recording
from data_tools.doctor.examination import examine, validate
from data_tools.formats.reader import open_dataset


def at(step_to_break, change):
    return lambda step, frame: change(frame) if step == step_to_break else frame


def black(frame):
    return frame // 100


def white(frame):
    return np.full_like(frame, 253)


def undecodable(frame):
    return None


def first_wrist(dataset):
    return dataset.episodes[2].frames["wrist"]


def hung(dataset, step, i, frame):
    """The third episode's front camera, which shows one picture from `step` on."""
    return frame if i < step else dataset.episodes[2].frames["front"][step]


def exchanged(dataset, *episodes):
    for index in episodes:
        dataset = dataset.change(
            index, frames=lambda images: {"front": images["wrist"], "wrist": images["front"]}
        )
    return dataset


BROKEN = [
    ("undecodable_frame", lambda d: d.see("wrist", at(0, undecodable), 2)),
    ("black_frame", lambda d: d.see("wrist", at(0, black), 2)),
    ("white_frame", lambda d: d.see("front", at(0, white), 2)),
    ("frozen_camera", lambda d: d.see("wrist", lambda i, f: first_wrist(d)[0], 2)),
    ("frozen_camera", lambda d: d.see("front", lambda i, f: hung(d, 20, i, f), 2)),
    ("exchanged_cameras", lambda d: exchanged(d, 2)),
    (
        "duplicated_camera",
        lambda d: d.see("wrist", lambda i, f: d.episodes[2].frames["front"][i], 2),
    ),
    ("swapped_colors", lambda d: d.see("wrist", lambda i, f: f[..., ::-1], 2)),
    ("swapped_colors", lambda d: d.see("wrist", lambda i, f: f[..., ::-1])),
    ("turned_frames", lambda d: d.see("front", lambda i, f: f[::-1], 2)),
    ("turned_frames", lambda d: d.see("front", lambda i, f: f[::-1, ::-1], 2)),
    ("same_pictures", lambda d: d.change(2, frames=stretched(d))),
]


def stretched(dataset):
    """The pictures of episode 0 in episode 2, as a wrong link to a video makes them."""
    num_steps = dataset.episodes[2].num_steps
    return {
        camera: [frames[round(i * (len(frames) - 1) / (num_steps - 1))] for i in range(num_steps)]
        if num_steps % 2
        else spread(frames, num_steps)
        for camera, frames in dataset.episodes[0].frames.items()
    }


def spread(frames, num_steps):
    """First, middle and last picture at the first, middle and last step."""
    new = [frames[i * (len(frames) - 1) // (num_steps - 1)] for i in range(num_steps)]
    new[num_steps // 2] = frames[len(frames) // 2]
    return new


@pytest.mark.parametrize(("rule", "broken"), BROKEN)
def test_broken_pictures_break_exactly_one_rule(robot, rules, rule, broken):
    assert rules(robot("delta_ee")) == []
    assert rules(broken(robot("delta_ee"))) == [rule]


@pytest.mark.parametrize(
    ("rule", "change"),
    [("undecodable_frame", undecodable), ("black_frame", black), ("white_frame", white)],
)
def test_a_fault_between_the_three_frames_takes_deep(robot, rules, rule, change):
    broken = robot("delta_ee").see("front", at(17, change), 1)
    assert rules(broken) == []
    assert rules(broken, deep=True) == [rule]


def test_a_camera_that_hangs_for_a_while_takes_deep(robot, rules):
    frames = robot("delta_ee").episodes[1].frames["front"]
    hung = robot("delta_ee").see("front", lambda i, f: frames[30] if 30 <= i < 60 else f, 1)
    assert rules(hung) == []
    assert rules(hung, deep=True) == ["frozen_camera"]


def test_a_camera_that_hangs_to_the_end_is_found_from_a_few_more_frames(robot):
    broken = robot("delta_ee").see("front", lambda i, f: hung(robot("delta_ee"), 20, i, f), 2)
    (finding,) = validate(broken)
    last = broken.episodes[2].num_steps - 1
    assert (finding.step, finding.where) == ((last + 1) // 2, broken.episodes[2].name)
    assert f"to {last} while the state moves" in finding.value


def test_a_picture_that_comes_back_is_not_a_camera_that_hangs(robot, rules):
    """Middle and last picture are equal, and those between differ: the robot came back."""
    frames = robot("delta_ee").episodes[2].frames["front"]
    middle, last = len(frames) // 2, len(frames) - 1
    back = robot("delta_ee").see("front", lambda i, f: frames[middle] if i == last else f, 2)
    assert rules(back) == []
    assert rules(back, deep=True) == []


@pytest.mark.parametrize("episodes", [(0,), (2, 5)])
def test_episodes_with_exchanged_cameras_are_named(robot, episodes):
    found = validate(exchanged(robot("delta_ee"), *episodes))
    assert {finding.rule for finding in found} == {"exchanged_cameras"}
    assert [finding.where for finding in found] == [
        robot("delta_ee").episodes[index].name for index in episodes
    ]


def test_cameras_that_look_alike_or_scenes_that_vary_say_nothing_of_exchange(robot, rules):
    rng = np.random.default_rng(1)
    alike = robot("delta_ee")
    for index, episode in enumerate(alike.episodes):
        twin = [np.clip(frame.astype(int) + 2, 0, 255) for frame in episode.frames["front"]]
        images = {**episode.frames, "wrist": [frame.astype(np.uint8) for frame in twin]}
        alike = alike.change(index, frames=images)
    assert "exchanged_cameras" not in rules(exchanged(alike, 2))
    varied = robot("delta_ee")
    for camera in ("front", "wrist"):
        for index in range(len(varied)):
            scene = np.kron(rng.integers(0, 150, (4, 4, 3)), np.ones((8, 8, 1)))

            def elsewhere(step, frame, scene=scene):
                return (frame // 3 + scene).astype(np.uint8)

            varied = varied.see(camera, elsewhere, index)
    assert "exchanged_cameras" not in rules(varied)


def test_a_camera_much_slower_than_the_control_rate_takes_deep(robot, rules):
    frames = robot("delta_ee").episodes[1].frames["front"]
    for every, found in ((2, []), (5, ["repeated_frames"])):
        slow = robot("delta_ee").see("front", lambda i, f, n=every: frames[i - i % n], 1)
        assert rules(slow, deep=True) == found


def test_a_camera_that_stands_still_with_the_robot_is_not_frozen(robot, rules):
    dataset = robot("delta_ee")
    still = dataset.change(1, states=lambda s: np.repeat(s[:1], len(s), axis=0))
    still = still.change(1, commands=lambda a: 0 * a + [0, 0, 0, 0, 0, 0, 1])
    still = still.see("front", lambda i, f: dataset.episodes[1].frames["front"][0], 1)
    assert "frozen_camera" not in rules(still, deep=True)


def test_a_frame_that_does_not_decode_is_told_once_and_deep_has_looked_at_all(demos):
    with h5py.File(demos, "r+") as file:
        frames = file["data/demo_1/obs/front_image"]
        frames[2] = np.zeros_like(frames[2])
    examined = examine(open_dataset(demos), deep=True)
    (finding,) = (each for each in examined.findings if each.rule == "undecodable_frame")
    assert finding.step == 2
    assert finding.sentence.count("found") == finding.sentence.count("expected") == 1
    assert not [line for line in examined.ledger if "few frames" in line.why]


def test_three_frames_of_a_camera_are_decoded_and_all_with_deep(robot):
    episode = robot("delta_ee").episodes[0]
    recording = Recording.of(episode)
    last = episode.num_steps - 1
    findings = []
    shallow = look(recording, "front", deep=False, report=findings.append)
    assert shallow.steps == (0, episode.num_steps // 2, last)
    assert not shallow.is_complete
    deep = look(recording, "front", deep=True, report=findings.append)
    assert deep.steps == tuple(range(episode.num_steps))
    assert deep.is_complete
    assert findings == []
