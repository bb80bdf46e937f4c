"""Bad input: one error that names the place and the value found, and says what to do."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from data_tools.episode import Observation
from policy_ft.data.loader import BatchLoader
from policy_ft.data.split import split_episodes
from policy_ft.data.windows import WindowDataset
from policy_ft.errors import UserError
from policy_ft.policy import Policy
from policy_ft.transforms import restricted


def good_observation() -> Observation:
    images = {name: np.zeros((32, 32, 3), np.uint8) for name in ("front", "wrist")}
    return Observation(images, np.zeros(4, np.float32), "push the red block")


def with_images(**images: np.ndarray | None) -> Callable[[Observation], Observation]:
    def change(observation: Observation) -> Observation:
        merged = {**observation.images, **images}
        kept = {name: image for name, image in merged.items() if image is not None}
        return replace(observation, images=kept)

    return change


def with_state(*values: float) -> Callable[[Observation], Observation]:
    return lambda observation: replace(observation, state=np.array(values, np.float32))


IMAGE = np.zeros((32, 32, 3), np.uint8)
BAD_OBSERVATIONS = {
    "missing camera": (
        with_images(wrist=None),
        ("the cameras ['front']", "a camera 'wrist' too", "Send an image of this camera"),
    ),
    "misnamed camera": (
        with_images(wrist=None, wrist_0=IMAGE),
        ("did you mean 'wrist_0'?", "extra cameras ['wrist_0']", "Leave the extra cameras out"),
    ),
    "float image": (
        with_images(front=IMAGE.astype(np.float32) / 255),
        ("camera 'front'", "float32[32, 32, 3]", "not scaled to floats"),
    ),
    "channels first": (
        with_images(front=IMAGE.transpose(2, 0, 1)),
        ("uint8[3, 32, 32]", "uint8[32, 32, 3]", "not transposed"),
    ),
    "another size": (with_images(wrist=IMAGE[:16]), ("uint8[16, 32, 3]", "not resized")),
    "grey image": (
        with_images(wrist=IMAGE[..., 0]),
        ("uint8[32, 32]", "Send the image as declared"),
    ),
    "narrow state": (
        with_state(0, 0, 0),
        ("state: found an array [3]", "['x', 'y', 'z', 'opening']", "Send exactly these columns"),
    ),
    "NaN in the state": (
        with_state(0, np.nan, 0, 0),
        ("live, state", "column 'y': found nan", "finite numbers", "Correct the values"),
    ),
    "instruction too long": (
        lambda observation: replace(observation, instruction="xyz " * 40),
        ("live, instruction", "at most 16", "Shorten the instruction"),
    ),
}


@pytest.mark.parametrize("case", BAD_OBSERVATIONS)
def test_a_bad_observation(case, fitted):
    change, words = BAD_OBSERVATIONS[case]
    with pytest.raises(UserError) as caught:
        fitted().encode(change(good_observation()), where="live")
    for word in words:
        assert word in str(caught.value), f"{word!r} not in:\n{caught.value}"


def test_all_faults_of_an_observation_come_at_once(fitted):
    observation = with_state(np.nan, 0, 0, 0)(with_images(wrist=None)(good_observation()))
    with pytest.raises(UserError) as caught:
        fitted().encode(observation, np.zeros((4, 2)))
    assert len(caught.value.faults) == 3


BAD_ACTIONS = {
    "another width": (np.zeros((4, 7)), ("actions: found an array [4, 7]", "this action width")),
    "one action alone": (np.zeros(3), ("found an array [3]", "Correct the action columns")),
    "too many steps": (np.zeros((5, 3)), ("found 5 steps", "Cut the actions to the horizon.")),
    "no steps": (np.zeros((0, 3)), ("found 0 steps", "1 to 4 (action_horizon)")),
    "NaN": (
        np.array([[0, 0, 0], [0, 0, np.nan]]),
        ("actions, step 1, column 'gripper': found nan", "leave the episode out"),
    ),
    "infinity": (np.array([[-np.inf, 0, 0]]), ("column 'x': found -inf", "Correct the values")),
}


@pytest.mark.parametrize("case", BAD_ACTIONS)
def test_bad_actions(case, fitted):
    actions, words = BAD_ACTIONS[case]
    with pytest.raises(UserError) as caught:
        fitted().encode(good_observation(), actions, where="demo_3, step 17")
    for word in ("demo_3, step 17", *words):
        assert word in str(caught.value), f"{word!r} not in:\n{caught.value}"


BAD_FITS = {
    "delta of a column that is not there": (
        {"delta_actions": ("xx",)},
        ("which is no action column", "which is no state column", "did you mean 'x'?"),
    ),
    "delta of a column without a state": (
        {"delta_actions": ("gripper",)},
        ("which is no state column", "Name a column that both action and state have"),
    ),
    "unknown camera": (
        {"cameras": ("front", "wirst")},
        (
            "the cameras ['front', 'wrist']",
            "Correct policy.transforms",
            "did you mean 'wrist'?",
        ),
    ),
    "another image size": (
        {"shape": {"image_height": 64}},
        ("32 x 32 pixels", "64 x 32 with resize none", "policy.transforms.resize (kind new)"),
    ),
    "state too wide": (
        {"shape": {"state_dim": 3}},
        (
            "model.state_dim: found 3",
            "the robot's 4 columns",
            "or policy.resize.state_dim (kind",
        ),
    ),
    "action too wide": (
        {"shape": {"action_dim": 2}},
        (
            "model.action_dim: found 2",
            "the robot's 3 columns",
            "or policy.resize.action_dim (kind pretrained)",
        ),
    ),
    "more cameras than slots": (
        {"shape": {"num_cameras": 1}},
        ("slots of cameras", "at most 1 (num_cameras)", "Remove a camera"),
    ),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_settings_that_do_not_fit_the_data(case, fitted):
    changes, words = BAD_FITS[case]
    if "shape" in changes:
        changes = {"shape": fitted().shape.model_copy(update=changes["shape"])}
    with pytest.raises(UserError) as caught:
        fitted(**changes)
    for word in words:
        assert word in str(caught.value), f"{word!r} not in:\n{caught.value}"


def test_a_delta_column_that_is_a_delta_already_is_refused(fitted):
    transforms = fitted(delta_actions=("x",))
    action = transforms.conventions.action
    already = action.model_copy(update={"references": ("delta", "absolute", "absolute")})
    conventions = transforms.conventions.model_copy(update={"action": already})
    with pytest.raises(UserError, match=r"declared 'delta'.*Remove it"):
        replace(transforms, conventions=conventions)


@pytest.mark.parametrize("change", [{"orientation": "unknown"}, {"color_order": "bgr"}])
def test_images_of_unknown_orientation_or_color_are_refused(change, fitted):
    transforms = fitted()
    cameras = tuple(c.model_copy(update=change) for c in transforms.conventions.cameras)
    conventions = transforms.conventions.model_copy(update={"cameras": cameras})
    with pytest.raises(UserError, match=r"Declare how the images are stored"):
        replace(transforms, conventions=conventions)


def test_statistics_of_another_robot_are_refused(fitted):
    transforms = fitted()
    state, actions = transforms.statistics.state, transforms.statistics.actions
    swapped = transforms.statistics.model_copy(update={"state": actions, "actions": state})
    with pytest.raises(UserError, match=r"3 columns; expected 4.*statistics: data"):
        replace(transforms, statistics=swapped)


def test_a_model_and_transforms_of_different_sizes_are_refused(policy):
    config = policy.config.model_copy(update={"action_horizon": 9})
    with pytest.raises(UserError, match=r"shape.action_horizon: found 4; expected 9.*same check"):
        Policy(policy.model, policy.transforms, config)


def test_a_tokenizer_larger_than_the_embedding_is_refused(policy):
    language = policy.config.language.model_copy(update={"vocab_size": 270})
    config = policy.config.model_copy(update={"language": language})
    with pytest.raises(UserError, match=r"vocab_size: found 270; expected at least 280.*Raise"):
        Policy(policy.model, policy.transforms, config)


def test_an_unknown_camera_is_refused_with_the_place(conventions):
    with pytest.raises(UserError, match=r"env Tabletop: found the cameras .*'front'"):
        restricted(conventions, ("top",), "env Tabletop")


def test_one_episode_cannot_be_split(record):
    with pytest.raises(UserError, match=r"found 1 episodes; expected at least 2.*Record more"):
        split_episodes(record(lengths=(4,)), 0.5, 0)


def test_no_episodes_give_no_windows(fitted, episodes):
    with pytest.raises(
        UserError, match=r"0 episodes with no step to start at.*Record demonstrations"
    ):
        WindowDataset(episodes, (), fitted())


def test_a_batch_that_does_not_divide_among_the_processes_is_refused(fitted, episodes):
    windows = WindowDataset(episodes, (0,), fitted())
    with pytest.raises(UserError, match=r"8 for 3 processes x 1 micro.*number of processes"):
        BatchLoader(windows, order=windows.order(0), seed=0, batch_size=8, world_size=3)
