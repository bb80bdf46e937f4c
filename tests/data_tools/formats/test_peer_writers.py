"""What other projects' own writers record is read back as it was recorded."""

import importlib.util
import subprocess
import sys
import types
import warnings

import gymnasium as gym
import numpy as np
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert

# Minari leaves its collector's temporary folders to the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
IMAGE = gym.spaces.Box(0, 255, (40, 48, 3), np.uint8)  # Minari takes 32 x 32 and more for images
# robomimic's splitting script, without the training code that it imports beside it.
SPLIT = """
import sys, types
for name, unused in (("algo", ("algo_factory", "RolloutPolicy")), ("config", ("config_factory",))):
    sys.modules[f"robomimic.{name}"] = module = types.ModuleType(name)
    vars(module).update(dict.fromkeys(unused))
from robomimic.scripts.split_train_val import split_train_val_from_hdf5
split_train_val_from_hdf5(sys.argv[1], val_ratio=0.25)
split_train_val_from_hdf5(sys.argv[1], val_ratio=0.34, filter_key="train")
"""
SIDECAR = {
    "layout": {"preset": "minari", "instruction": {"text": "push the block"}},
    "action": {"references": "delta", "grippers": []},
    "control_hz": 10,
}
CAMERAS = {"cameras": [{"name": "*", "orientation": "upright", "color_order": "rgb"}]}


class Recorded(gym.Env):
    """A point that is pushed about; remembers each observation and action, as it gave and got it.

    Success comes with the sixth step; an episode that is not given up before ends with it.
    """

    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self):
        self.observations, self.actions = [], []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.num_steps = self.np_random.normal(size=3), 0
        self.observations.append([self.observed()])
        self.actions.append([])
        return self.observed(), {"success": False}

    def step(self, action):
        self.num_steps += 1
        self.place[:2] += action
        self.observations[-1].append(self.observed())
        self.actions[-1].append(np.array(action))
        is_success = self.num_steps == 6
        return self.observed(), 0.0, is_success, False, {"success": is_success}


class Seen(Recorded):
    """With a camera, a nested reading and one of double precision."""

    has_even_frames = False  # of one colour, so that every JPEG has the same length
    observation_space = gym.spaces.Dict(
        {
            "front": IMAGE,
            "arm": gym.spaces.Dict({"place": gym.spaces.Box(-9, 9, (3,), np.float64)}),
            "clock": gym.spaces.Box(0, 9, (1,), np.float32),
        }
    )

    def observed(self):
        across = np.arange(48)[None, :, None] * 4
        down = np.arange(40)[:, None, None] * self.num_steps
        frame = across + down + np.array([0, 9, 30])
        if self.has_even_frames:
            frame = np.full((40, 48, 3), 20 * self.num_steps)
        return {
            "front": frame.clip(0, 255).astype(np.uint8),
            "arm": {"place": self.place.copy()},
            "clock": np.array([self.num_steps / 10], np.float32),
        }


class SeenEvenly(Seen):
    has_even_frames = True


class Felt(Recorded):
    """Low-dimensional, the observation a single array."""

    observation_space = gym.spaces.Box(-9, 9, (3,), np.float64)

    def observed(self):
        return self.place.copy()


def tree_map(function, tree, *others):
    """What Minari's collector takes from jax: over mappings, their keys in sorted order."""
    if isinstance(tree, dict):
        keys = sorted(tree)
        return {key: tree_map(function, tree[key], *(o[key] for o in others)) for key in keys}
    return function(tree, *others)


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Records episodes of 6 and of 4 steps with Minari's collector: folder and environment."""
    minari = pytest.importorskip("minari")
    jax = types.ModuleType("jax")
    jax.tree_util = types.ModuleType("jax.tree_util")
    jax.tree_util.tree_map = tree_map
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setitem(sys.modules, "jax.tree_util", jax.tree_util)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def make(kind, **options):
        spec = gym.envs.registration.EnvSpec("test/Push-v0", entry_point=f"{__name__}:{kind}")
        env = globals()[kind]()
        env.spec = spec
        collector = minari.DataCollector(env, data_format="hdf5", **options)
        for seed, num_steps in enumerate((6, 4)):
            collector.reset(seed=70 + seed)
            for _ in range(num_steps):
                collector.step(env.np_random.uniform(-1, 1, 2).astype(np.float32))
        with warnings.catch_warnings():  # that nobody has given a name and an address
            warnings.simplefilter("ignore", UserWarning)
            collector.create_dataset("push-v0")
        collector.close()
        return tmp_path / "push-v0", env

    return make


def declared(folder, **changes):
    """The dataset, once a person has said what no Minari file says."""
    (folder / "conventions.yaml").write_text(yaml.safe_dump(SIDECAR | CAMERAS | changes))
    return open_dataset(folder)


def assert_numbers_are_those(dataset, env, state_of):
    assert [episode.num_steps for episode in dataset] == [6, 4]
    for episode, seen, done in zip(dataset, env.observations, env.actions, strict=True):
        expected = np.array([state_of(each) for each in seen[:-1]], np.float32)
        np.testing.assert_array_equal(episode.state(), expected)
        np.testing.assert_array_equal(episode.actions(), np.array(done, np.float32))
        assert episode.instruction == "push the block"


def seen_state(observation):
    return [*observation["arm"]["place"], *observation["clock"]]


def test_minari_episodes_are_read_with_the_numbers_that_were_recorded(record):
    folder, env = record("Seen", record_infos=True)
    dataset = declared(folder)
    assert_numbers_are_those(dataset, env, seen_state)
    assert dataset.conventions.state.names == ("place_0", "place_1", "place_2", "clock")
    assert [episode.is_success for episode in dataset] == [True, False]
    assert [int(episode.attributes["seed"]) for episode in dataset] == [70, 71]
    assert "test/Push-v0" in dataset[0].attributes["task"]


@pytest.mark.parametrize(
    ("kind", "options", "largest"),
    [("Seen", {}, 16), ("SeenEvenly", {}, 1), ("Seen", {"jpeg_encoding": False}, 0)],
    ids=["JPEG", "JPEG of one length", "raw"],
)
def test_minari_frames_are_read_as_they_were_rendered(record, kind, options, largest):
    folder, env = record(kind, **options)
    for episode, seen in zip(declared(folder), env.observations, strict=True):
        for step in range(episode.num_steps):
            error = episode.image("front", step).astype(int) - seen[step]["front"]
            assert abs(error).max() <= largest, (episode.name, step)


def test_a_minari_dataset_without_cameras_is_read_and_nobody_has_judged_it(record):
    folder, env = record("Felt")
    dataset = declared(folder, cameras=[])
    assert_numbers_are_those(dataset, env, lambda observation: observation)
    assert dataset.conventions.cameras == ()
    assert [episode.is_success for episode in dataset] == [None, None]


def test_what_no_minari_file_says_must_be_declared(record):
    folder, _ = record("Felt")
    with pytest.raises(UserError) as caught:
        open_dataset(folder)
    (told,) = caught.value.faults
    for place in ("action.references", "control_hz", "layout.instruction"):
        assert place in told
    assert "main_data.hdf5.conventions.yaml" in told


def test_what_minari_recorded_is_the_same_after_there_and_back(record, tmp_path):
    dataset = declared(record("Seen", record_infos=True)[0])
    native = open_dataset(convert(dataset, tmp_path / "native.hdf5", "native"))
    again = open_dataset(convert(native, tmp_path / "again-v0", "minari"))
    for ours, theirs in zip(again, dataset, strict=True):
        np.testing.assert_array_equal(ours.state(), theirs.state())
        np.testing.assert_array_equal(ours.actions(), theirs.actions())
        assert ours.is_success is theirs.is_success
        assert [ours.jpeg("front", n) for n in range(4)] == [
            theirs.jpeg("front", n) for n in range(4)
        ]


@pytest.mark.skipif(importlib.util.find_spec("robomimic") is None, reason="no robomimic")
def test_the_filter_keys_that_robomimic_writes_choose_its_episodes(demos):
    """Of 12 episodes 3 are held out, and 3 of the 9 that are left."""
    subprocess.run([sys.executable, "-c", SPLIT, demos], check=True, capture_output=True)
    chosen = {
        key: {episode.name for episode in open_dataset(demos, mask=key)}
        for key in ("train", "valid", "train_train", "train_valid")
    }
    assert [len(names) for names in chosen.values()] == [9, 3, 6, 3]
    assert chosen["train"] | chosen["valid"] == {episode.name for episode in open_dataset(demos)}
    assert chosen["train_train"] | chosen["train_valid"] == chosen["train"]
