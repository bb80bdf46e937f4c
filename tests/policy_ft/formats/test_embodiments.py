"""The preset robots say what their sources say, and a user's own file is read and checked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_tools.conventions import Conventions
from data_tools.episode import Observation
from data_tools.formats.reader import open_dataset
from data_tools.stats import NormalizationStats
from data_tools.writer import EpisodeWriter
from policy_ft.config.transforms import TransformsConfig
from policy_ft.data.fitting import fit_transforms
from policy_ft.errors import UserError
from policy_ft.formats.embodiments import PRESETS, Embodiment, load_embodiment
from policy_ft.transforms import ModelShape, Statistics, Transforms

SHAPE = ModelShape(
    num_cameras=3,
    image_height=32,
    image_width=32,
    state_dim=32,
    action_dim=32,
    action_horizon=6,
    max_prompt_tokens=32,
)
FLIP = np.array([1, -1, -1, 1, 1, 1, 1, 1, -1, -1, 1, 1, 1, 1])
OPENPI = {"epsilon": 1e-6, "still_columns": "divide", "resize": "pil_bilinear_center_pad"}


def aloha_angle(opening: np.ndarray) -> np.ndarray:
    position = opening * (0.05800 - 0.01844) + 0.01844
    sine = (0.022**2 + position**2 - 0.036**2) / (2 * 0.022 * position)
    return (np.arcsin(np.clip(sine, -1, 1)) - 0.5476) / (1.6296 - 0.5476)


def aloha_in(state: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """openpi's order for training: to pi's space, then joints relative to the state."""
    state, actions = FLIP * state.astype(np.float64), FLIP * actions.astype(np.float64)
    state[[6, 13]] = aloha_angle(state[[6, 13]])
    actions[:, [6, 13]] = actions[:, [6, 13]] * (1.4910 + 0.6213) - 0.6213 - 0.5476
    joints = np.array([6 * [True] + [False]] * 2).ravel()
    return state, actions - np.where(joints, state, 0.0)


def aloha_out(actions: np.ndarray, state: np.ndarray) -> np.ndarray:
    """openpi's order for use, from unnormalized actions: absolute, then to ALOHA's own space."""
    joints = np.array([6 * [True] + [False]] * 2).ravel()
    mapped = FLIP * state.astype(np.float64)
    absolute = FLIP * (actions + np.where(joints, mapped, 0.0))
    absolute[:, [6, 13]] = (absolute[:, [6, 13]] + 0.5476 + 0.6213) / (1.4910 + 0.6213)
    return absolute


def aloha_transforms(tokenizer_json: str, rng: np.random.Generator) -> Transforms:
    robot = load_embodiment("aloha")
    stats = [
        NormalizationStats(
            mean=tuple(rng.normal(size=14).tolist()),
            std=tuple(rng.uniform(0.1, 2, 14).tolist()),
        )
        for _ in range(2)
    ]
    return Transforms(
        config=TransformsConfig(**OPENPI, **robot.transforms),
        conventions=robot.conventions,
        shape=SHAPE,
        statistics=Statistics(fingerprint="openpi", state=stats[0], actions=stats[1]),
        tokenizer_json=tokenizer_json,
    )


def aloha_observation(rng: np.random.Generator) -> Observation:
    state = rng.normal(size=14).astype(np.float32)
    state[[6, 13]] = rng.uniform(0, 1, 2)
    names = load_embodiment("aloha").conventions.camera_names
    return Observation({n: np.zeros((480, 640, 3), np.uint8) for n in names}, state, "fold")


@pytest.mark.parametrize("seed", range(5))
def test_aloha_is_encoded_and_decoded_as_openpi_does_it(seed, tokenizer_json):
    rng = np.random.default_rng(seed)
    transforms, observation = aloha_transforms(tokenizer_json, rng), aloha_observation(rng)
    actions = rng.normal(size=(6, 14))
    own = transforms.statistics
    state, relative = aloha_in(observation.state, actions)

    sample = transforms.encode(observation, actions)

    wanted = (state - np.array(own.state.mean)) / (np.array(own.state.std) + 1e-6)
    np.testing.assert_allclose(sample["state"][:14], wanted, rtol=1e-6, atol=1e-6)
    wanted = (relative - np.array(own.actions.mean)) / (np.array(own.actions.std) + 1e-6)
    np.testing.assert_allclose(sample["actions"][:, :14], wanted, rtol=1e-6, atol=1e-6)
    assert (sample["state"][14:] == 0).all()
    assert (sample["actions"][:, 14:] == 0).all()

    chunk = rng.normal(size=(6, 32)).astype(np.float32)
    real = chunk[:, :14] * (np.array(own.actions.std) + 1e-6) + np.array(own.actions.mean)
    decoded = transforms.decode(chunk, observation)
    np.testing.assert_allclose(decoded, aloha_out(real, observation.state), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_decode_inverts_encode_through_maps_deltas_and_normalization(seed, tokenizer_json):
    rng = np.random.default_rng(seed)
    transforms, observation = aloha_transforms(tokenizer_json, rng), aloha_observation(rng)
    actions = rng.normal(size=(6, 14))
    decoded = transforms.decode(transforms.encode(observation, actions)["actions"], observation)
    # float32 holds a value to 6e-8 of its size, and the state is part of what is encoded
    scale = np.abs(actions).max() + np.abs(observation.state).max()
    assert np.abs(decoded - actions).max() <= 1e-6 * scale


def test_statistics_are_fitted_in_the_space_the_model_sees(tmp_path, tokenizer_json):
    """ALOHA with small images: the statistics are those of openpi's numbers, not the robot's."""
    robot = load_embodiment("aloha")
    small = tuple(
        c.model_copy(update={"height": 32, "width": 32}) for c in robot.conventions.cameras
    )
    declared = robot.conventions.model_copy(update={"cameras": small})
    rng = np.random.default_rng(0)
    state = rng.uniform(0, 1, (20, 14)).astype(np.float32)
    actions = (state + rng.normal(0, 0.1, (20, 14))).astype(np.float32)
    with EpisodeWriter(tmp_path / "a.hdf5", declared) as writer:
        writer.add(
            images={c.name: np.zeros((20, 32, 32, 3), np.uint8) for c in small},
            state=state,
            actions=actions,
            instruction="fold the towel",
            success=True,
            attributes={},
        )
    transforms = fit_transforms(
        TransformsConfig(**OPENPI, **robot.transforms),
        open_dataset(tmp_path / "a.hdf5"),
        (0,),
        shape=SHAPE,
        tokenizer_json=tokenizer_json,
    )

    chunks = [aloha_in(state[t], actions[t : t + SHAPE.action_horizon]) for t in range(20)]
    states, relative = np.array([s for s, _ in chunks]), np.concatenate([a for _, a in chunks])
    found = transforms.statistics
    np.testing.assert_allclose(found.state.mean, states.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.state.q99, np.quantile(states, 0.99, axis=0), rtol=1e-9)
    joints = [i for i in range(14) if i not in (6, 13)]
    np.testing.assert_allclose(
        np.array(found.actions.std)[joints], relative.std(0)[joints], rtol=1e-9
    )
    # a gripper is no delta: every recorded step counts once
    grippers = actions[:, [6, 13]].astype(np.float64) * 2.1123 - 1.1689
    np.testing.assert_allclose(np.array(found.actions.mean)[[6, 13]], grippers.mean(0), rtol=1e-9)


def test_the_presets_are_the_robots_openpi_documents():
    assert PRESETS == ("aloha", "droid", "libero", "ur5e")


DOCUMENTED = {
    # (state, action, Hz, (slots), number of delta columns, statistics)
    "aloha": (14, 14, 50, ("cam_high", "cam_left_wrist", "cam_right_wrist"), 12, "trossen"),
    "droid": (8, 8, 15, ("exterior_image_1_left", "wrist_image_left", None), 0, "droid"),
    "libero": (
        8,
        7,
        20,
        ("agentview_rgb", "eye_in_hand_rgb", None),
        0,
        "physical-intelligence/libero",
    ),
    "ur5e": (7, 7, 20, ("base_rgb", "wrist_rgb", None), 6, "ur5e"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_openpis_documented_values(name):
    robot = load_embodiment(name)
    own = robot.conventions
    found = (len(own.state.names), len(own.action.names), own.control_hz, robot.cameras)
    assert (*found, len(robot.delta_actions), robot.asset_ids[0]) == DOCUMENTED[name]
    assert robot.name == name
    assert not any("gripper" in column for column in robot.delta_actions)
    assert all(camera.orientation == "upright" for camera in own.cameras)
    assert robot.prompt_says_state == (name != "libero")


@pytest.mark.parametrize("name", PRESETS)
def test_an_embodiment_survives_json(name):
    robot = load_embodiment(name)
    assert Embodiment.model_validate_json(robot.model_dump_json()) == robot


def own_file(tmp_path: Path, **changes: object) -> str:
    values = yaml.safe_load(yaml.safe_dump(load_embodiment("ur5e").model_dump(mode="json")))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**values, "name": "own", **changes}))
    return str(tmp_path / "own.yaml")


def test_a_users_own_file_is_read(tmp_path):
    robot = load_embodiment(own_file(tmp_path, cameras=[None, "base_rgb", "wrist_rgb"]))
    assert robot.name == "own"
    assert robot.cameras == (None, "base_rgb", "wrist_rgb")


BAD = {
    "camera without a declaration": (
        {"cameras": ["base_rgb", "wrist", None]},
        ("['base_rgb', 'wrist_rgb']", "Name the same cameras in the same order"),
    ),
    "map of an unknown column": (
        {"state_maps": [{"kind": "linear", "column": "elbwo", "scale": -1}]},
        ("state_maps: found the column 'elbwo'", "did you mean 'elbow'?"),
    ),
    "delta of an unknown column": (
        {"delta_actions": ["wrist_4"]},
        ("'wrist_4', which is no action column", "did you mean 'wrist_"),
    ),
    "unknown key": ({"camera": []}, ("unknown key 'camera'", "did you mean 'cameras'?")),
    "double_delta without a column": (
        {"delta_actions": [], "double_delta": True},
        (", delta_actions: found no column with double_delta: true", "or remove double_delta"),
    ),
    "a text for a list": (
        {"asset_ids": "ur5e"},
        ("asset_ids: found 'ur5e'; expected a list, e.g. [one, two]. Set asset_ids",),
    ),
    "unknown map": (
        {"action_maps": [{"kind": "square", "column": "elbow"}]},
        ("action_maps.0", "to be one of 'linear', 'aloha_gripper'"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_says_where_and_what_to_do(case, tmp_path):
    changes, words = BAD[case]
    with pytest.raises(UserError) as caught:
        load_embodiment(own_file(tmp_path, **changes))
    for word in ("own.yaml", *words):
        assert word in str(caught.value), f"{word!r} not in:\n{caught.value}"


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path):
    """Also those that can only be seen beside conventions which are at fault themselves."""
    declared = load_embodiment("ur5e").model_dump(mode="json")["conventions"]
    changes = {
        "conventions": {**declared, "control_hz": -1},
        "cameras": ["base", "wrist_rgb", None],
        "state_maps": [{"kind": "linear", "column": "elbwo", "scale": -1}],
        "delta_actions": ["wrist_4"],
        "nonsense": 1,
    }
    with pytest.raises(UserError) as caught:
        load_embodiment(own_file(tmp_path, **changes))
    words = ("control_hz: found -1", "['base', 'wrist_rgb']", "'elbwo'", "'wrist_4'", "'nonsense'")
    for word in words:
        assert word in str(caught.value), f"{word!r} not in:\n{caught.value}"
    assert all(f"{tmp_path}/own.yaml:" in fault for fault in caught.value.faults)


BAD_COLUMNS = {
    "a name for two columns": (
        {"names": ["a", "a", "b", "c", "d", "e", "gripper"]},
        r"action.names: found \['a'\] more than once.*Give every column a name of its own",
    ),
    "a gripper that cannot move": (
        {"grippers": [{"column": "gripper", "open_value": 1, "closed_value": 1}]},
        "'gripper': found 1 as open_value and as closed_value; expected two values. Correct one",
    ),
}


@pytest.mark.parametrize("case", BAD_COLUMNS)
def test_columns_that_cannot_be_are_refused_when_they_are_read(case, tmp_path):
    changes, words = BAD_COLUMNS[case]
    declared = load_embodiment("ur5e").model_dump(mode="json")["conventions"]
    declared["action"] |= changes
    with pytest.raises(UserError, match=words):
        load_embodiment(own_file(tmp_path, conventions=declared))


def test_an_unknown_preset_and_a_missing_file_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"'aloah'.*docs/embodiments.md.*did you mean 'aloha'"):
        load_embodiment("aloah")
    with pytest.raises(UserError, match=r"none.yaml: found No such file.*Correct the path"):
        load_embodiment(str(tmp_path / "none.yaml"))


def test_a_delta_of_deltas_needs_its_switch(tmp_path):
    """openpi's pi0_libero subtracts the state from displacements; nothing new should."""
    values = load_embodiment("libero").model_dump(mode="json")
    columns = ["x", "y", "z", "rx", "ry", "rz"]
    changes = {**values, "delta_actions": columns}
    with pytest.raises(UserError, match=r"'delta'; expected an absolute column. Remove it"):
        load_embodiment(own_file(tmp_path, **changes))
    robot = load_embodiment(own_file(tmp_path, **changes | {"double_delta": True}))
    assert robot.transforms["delta_actions"] == tuple(columns)


def test_a_delta_of_a_column_that_is_not_known_is_taken_at_its_word(fitted):
    """A published checkpoint may say no more of a column than that it is made relative."""
    transforms = fitted(delta_actions=("x",))
    unknown = transforms.conventions.action.model_copy(update={"references": ("unknown",) * 3})
    conventions = transforms.conventions.model_copy(update={"action": unknown})
    assert isinstance(replace(transforms, conventions=conventions).conventions, Conventions)
