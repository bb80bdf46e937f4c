"""What is odd about one episode among its siblings is told of that one, and of no clean one."""

from dataclasses import replace

import numpy as np
import pytest

from data_tools.doctor.examination import examine, validate

KINDS = ("delta_ee", "joints", "joint_velocity")
ODD = 3
RULES = ("long_pause", "shaky_episode", "odd_lag", "near_duplicate_episode")


def told(dataset, rules=RULES):
    return [(each.rule, each.where) for each in validate(dataset) if each.rule in rules]


def odd(dataset, rule):
    return [(rule, dataset.episodes[ODD].name)]


def paused(dataset, seconds, start_s=2.0, episode=ODD):
    """Rows repeated with a little noise; displacements and speeds of 0 meanwhile."""
    hz = dataset.conventions.control_hz
    start, steps = int(start_s * hz), int(seconds * hz)
    is_motion = [each != "absolute" for each in dataset.conventions.action.references]
    rng = np.random.default_rng(0)

    def wait(array):
        held = np.repeat(array[start : start + 1], steps, axis=0)
        return np.concatenate([array[:start], held, array[start:]])

    def stand(array):
        waited = wait(array)
        waited[start : start + steps] += rng.normal(0, 1e-4, (steps, array.shape[1]))
        return waited

    def ask_nothing(array):
        waited = wait(array)
        waited[start : start + steps, np.array(is_motion)] = 0
        return waited

    def see(frames):
        return {
            camera: [*each[:start], *([each[start]] * steps), *each[start:]]
            for camera, each in frames.items()
        }

    def tick(clock):
        return np.arange(len(clock) + steps) / hz

    return dataset.change(episode, states=stand, commands=ask_nothing, frames=see, clock=tick)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hz", [5.0, 20.0, 50.0])
def test_a_pause_is_told_where_it_is_far_longer_than_in_the_other_episodes(robot, kind, hz):
    dataset = robot(kind, hz=hz)
    (found,) = [each for each in validate(paused(dataset, 6.0)) if each.rule == "long_pause"]
    assert found.where == dataset.episodes[ODD].name
    assert abs(found.step - 2.0 * hz) <= hz
    assert 5.0 <= float(found.value.split(" s ")[0]) <= 7.0
    assert told(paused(dataset, 1.5)) == []


def test_waits_that_most_episodes_of_a_task_have_are_no_finding(robot):
    dataset = robot("joints", hz=20.0)
    for episode in range(6):
        dataset = paused(dataset, 6.0, episode=episode)
    assert told(dataset) == []
    # and those of another task say nothing about this one
    for episode in range(3):
        dataset = dataset.change(episode, instruction="heat the cup in the microwave oven")
    assert told(dataset) == []
    (why,) = [line.why for line in examine(dataset).ledger if line.rules == ("long_pause",)]
    assert why == "fewer than 5 episodes share a sentence"


def test_a_robot_that_presses_against_something_does_not_pause(robot):
    def press(commands):
        commands = commands.copy()
        commands[40:160, 2] = -0.6
        return commands

    assert told(paused(robot("delta_ee"), 6.0).change(ODD, commands=press)) == []


def shaken(dataset, size, hz=None, episode=ODD, parts=("states",)):
    """White noise, or a tremor of so many Hz, on joints or positions."""
    rate = dataset.conventions.control_hz
    columns = slice(0, 3) if len(dataset.conventions.state.names) == 8 else slice(0, 6)

    def shake(array):
        array = array.copy()
        width = array[:, columns].shape
        if hz is None:
            array[:, columns] += np.random.default_rng(1).normal(0, size, width)
        else:
            wave = np.sin(2 * np.pi * hz / rate * np.arange(len(array)))
            array[:, columns] += 1.4 * size * wave[:, None]
        return array

    return dataset.change(episode, **dict.fromkeys(parts, shake))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rate", "tremor_hz"), [(15.0, None), (20.0, 8.0), (50.0, None), (50.0, 7.0)]
)
def test_an_episode_that_shakes_is_told(robot, kind, rate, tremor_hz):
    dataset = robot(kind, hz=rate, noise=0.0)
    assert told(shaken(dataset, 0.025, tremor_hz)) == odd(dataset, "shaky_episode")
    # where all shake so, it is the robot's way
    for episode in range(len(dataset)):
        dataset = shaken(dataset, 0.025, tremor_hz, episode)
    assert told(dataset, ("shaky_episode",)) == []


def test_targets_that_shake_are_told_though_the_robot_hardly_follows(robot):
    dataset = robot("joints", hz=30.0, noise=0.0)
    (found,) = validate(shaken(dataset, 0.02, parts=("commands",)))
    assert found.rule == "shaky_episode"
    assert found.value.startswith("action 'joint_")


def test_one_blow_and_quicker_hands_are_no_shaking(robot):
    dataset = robot("joints", hz=30.0)

    def hit(states):
        states = states.copy()
        states[60:66, :6] += 0.05 * np.array([1, -1, 0.7, -0.5, 0.3, -0.2])[:, None]
        return states

    assert told(dataset.change(ODD, states=hit)) == []
    quick = robot("joints", hz=30.0, seconds=16.0).change(
        ODD,
        **{part: lambda rows: rows[::2] for part in ("states", "commands")},
        frames=lambda frames: {camera: each[::2] for camera, each in frames.items()},
        clock=lambda clock: clock[: (len(clock) + 1) // 2],
    )
    assert told(quick, ("shaky_episode",)) == []


def late(dataset, steps, episode=ODD):
    return dataset.change(
        episode,
        states=lambda s: np.concatenate([np.repeat(s[:1], steps, axis=0), s[:-steps]]),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("hz", "steps"), [(10.0, 4), (20.0, 5), (50.0, 12)])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_one_episode_with_another_delay_is_told(robot, kind, hz, steps, noise):
    dataset = robot(kind, hz=hz, noise=noise)
    assert told(late(dataset, steps)) == odd(dataset, "odd_lag")
    (found,) = [each for each in validate(late(dataset, steps)) if each.rule == "odd_lag"]
    assert f"a delay of {steps}" in found.value or f"a delay of {steps + 1} " in found.value
    for episode in range(len(dataset)):
        dataset = late(dataset, steps, episode)
    assert told(dataset, ("odd_lag",)) == []


def test_episodes_that_wipe_are_not_late_by_a_period(robot):
    """One of them a period late, which nobody can see, and the sensor noisy."""
    dataset = robot("joints", hz=20.0, episodes=6)
    for index, episode in enumerate(dataset.episodes):
        rng = np.random.default_rng([3, index])
        phase = np.arange(episode.num_steps + 20)[:, None] / 20 * 2 * np.pi / 0.8
        wiping = 0.3 * np.sin(phase + rng.uniform(0, 6, 6)) + rng.normal(0, 1e-3, (len(phase), 6))
        delay = 16 if index == ODD else 1
        states, commands = episode.states.copy(), episode.commands.copy()
        states[:, :6] = wiping[20 - delay :][: len(states)]
        commands[:, :6] = wiping[20:][: len(commands)]
        dataset = dataset.change(index, states=states, commands=commands)
    assert told(dataset, ("odd_lag",)) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [1e-6, 1e-5])
def test_an_episode_that_is_another_with_a_little_noise_is_told(robot, kind, noise):
    dataset = robot(kind)
    rng = np.random.default_rng(2)

    def noisy(array):
        return array + rng.normal(0, noise, array.shape)

    twin = replace(
        dataset.episodes[1],
        name="arm.hdf5:data/demo_99",
        states=noisy(dataset.episodes[1].states),
        commands=noisy(dataset.episodes[1].commands),
    )
    both = replace(dataset, episodes=[*dataset.episodes, twin])
    (found,) = [each for each in validate(both) if each.rule == "near_duplicate_episode"]
    assert found.where == twin.name
    assert found.value.startswith(f"{dataset.episodes[1].name} within ")


def test_a_replay_on_a_real_arm_and_robots_at_rest_are_no_duplicates(robot):
    dataset = robot("joints")
    rng = np.random.default_rng(2)
    replayed = replace(
        dataset.episodes[1],
        name="arm.hdf5:data/demo_99",
        states=dataset.episodes[1].states + rng.normal(0, 5e-4, dataset.episodes[1].states.shape),
    )
    assert told(replace(dataset, episodes=[*dataset.episodes, replayed])) == []
    still = dataset.change_all(states=lambda s: 0 * s[:100] + 0.3, commands=lambda a: 0 * a[:100])
    still = still.change(0, states=lambda s: s + 1e-5)
    assert told(still, ("near_duplicate_episode",)) == []


def test_what_cannot_be_held_against_siblings_is_in_the_ledger(robot):
    few = robot("joints", episodes=4)
    unknown = robot("joints", episodes=6)
    unknown = replace(
        unknown, conventions=unknown.conventions.model_copy(update={"control_hz": None})
    )
    unnamed = robot("joints", episodes=6).declare("state", units=("1",) * 7, names=tuple("abcdefg"))
    expected = {
        "few": ("fewer than 5 episodes", few),
        "unknown": ("nobody declares control_hz", unknown),
        "unnamed": ("", unnamed),
    }
    for why, dataset in expected.values():
        lines = {rule: line.why for line in examine(dataset).ledger for rule in line.rules}
        for rule in ("long_pause", "shaky_episode", "odd_lag"):
            assert why in lines[rule]
    assert "no state column is known as an angle or a position" in lines["shaky_episode"]
