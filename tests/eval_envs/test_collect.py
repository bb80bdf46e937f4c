from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from eval_envs.collect import collect, demonstrate
from eval_envs.disturbance import Disturbance
from eval_envs.tabletop.env import TabletopEnv

SMALL = {"image_size": 16, "cameras": ("front",)}


def test_file_holds_what_was_asked_for(tmp_path: Path) -> None:
    seen: list[int] = []
    settings = {"task": "reach+pick", "num_episodes": 6, "seed": 3, "progress": seen.append}
    path = collect(tmp_path / "demos.hdf5", **settings)
    dataset = open_dataset(path)
    env = TabletopEnv()
    assert dataset.conventions == env.conventions
    assert seen == [1, 2, 3, 4, 5, 6]
    assert len(dataset) == 6
    for episode in (dataset[i] for i in range(6)):
        assert episode.is_success
        assert episode.attributes["family"] in ("reach", "pick")
        assert episode.attributes["target"] in episode.instruction
        assert episode.attributes["source"] == "scripted_expert"
        assert episode.actions().shape == (episode.num_steps, 4)
    env.close()


def test_content_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    settings = {"task": "pick", "num_episodes": 10, "seed": 1, "noise": 1.0, "env_args": SMALL}
    one = collect(tmp_path / "one.hdf5", workers=1, **settings)
    two = collect(tmp_path / "two.hdf5", workers=2, **settings)
    assert open_dataset(one).fingerprint == open_dataset(two).fingerprint
    frames = [open_dataset(path)[9].image("front", 0) for path in (one, two)]
    assert np.array_equal(*frames)


def test_an_attempt_depends_on_its_seed_and_number_alone() -> None:
    env = gymnasium.make("eval_envs:Tabletop-v0", task="push", **SMALL)
    demonstrate(env, seed=4, index=1, noise=1.0)
    after_another = demonstrate(env, seed=4, index=2, noise=1.0)
    alone = demonstrate(env, seed=4, index=2, noise=1.0)
    other = demonstrate(env, seed=5, index=2, noise=1.0)
    env.close()
    assert np.array_equal(after_another.actions, alone.actions)
    assert np.array_equal(after_another.images["front"], alone.images["front"])
    assert not np.array_equal(alone.state[0], other.state[0])


def test_labels_are_the_clean_actions_at_the_disturbed_states() -> None:
    """Replaying the recorded seed and disturbance, the expert says at each step what was stored."""
    env = gymnasium.make("eval_envs:Tabletop-v0", task="pick", **SMALL)
    shown = demonstrate(env, seed=0, index=0, noise=1.0)
    env.reset(seed=shown.attributes["seed"])
    columns = env.unwrapped.conventions.action
    disturb = Disturbance(np.random.default_rng([0, 0, 1]), columns, 1.0)
    for state, action in zip(shown.state, shown.actions, strict=True):
        np.testing.assert_array_equal(env.unwrapped.observe()["state"], state)
        np.testing.assert_array_equal(env.unwrapped.expert_action(), action)
        env.step(disturb(action))
    env.close()


def test_failures_are_left_out_unless_kept(tmp_path: Path) -> None:
    settings = {"task": "push", "num_episodes": 15, "seed": 0, "noise": 2.0, "env_args": SMALL}
    clean = open_dataset(collect(tmp_path / "clean.hdf5", **settings))
    mixed = open_dataset(collect(tmp_path / "mixed.hdf5", keep_failures=True, **settings))
    assert all(clean[i].is_success for i in range(15))
    assert not all(mixed[i].is_success for i in range(15))
    assert [mixed[i].attributes["attempt"] for i in range(15)] == list(range(15))


def test_an_expert_that_never_succeeds_is_reported_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TabletopEnv, "expert_action", lambda self: np.zeros(4, np.float32))
    with pytest.raises(UserError, match="Lower the noise, or keep the failures"):
        collect(tmp_path / "none.hdf5", task="reach", num_episodes=1, seed=0, env_args=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_keeps_the_demonstrations_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: TabletopEnv, **arguments: Any) -> Any:
        resets.append(1)
        if len(resets) == 4:
            raise RuntimeError("the simulator crashed")
        return reset(self, **arguments)

    resets: list[int] = []
    reset = TabletopEnv.reset
    monkeypatch.setattr(TabletopEnv, "reset", crash)
    with pytest.raises(RuntimeError, match="the simulator crashed") as caught:
        collect(tmp_path / "a.hdf5", task="reach", num_episodes=9, seed=0, env_args=SMALL)
    assert "holds the 3 episodes" in caught.value.__notes__[0]
    (partial,) = tmp_path.iterdir()
    assert partial.suffix == ".partial"
    assert len(open_dataset(partial)) == 3


def test_an_environment_without_an_expert_is_refused(tmp_path: Path) -> None:
    settings = {"task": "pick", "num_episodes": 1, "seed": 0, "env_id": "tests:NoExpert-v0"}
    gymnasium.register(id="NoExpert-v0", entry_point=lambda task: gymnasium.make("CartPole-v1"))
    with pytest.raises(UserError, match="eval-envs list"):
        collect(tmp_path / "a.hdf5", **{**settings, "env_id": "NoExpert-v0"})
    del gymnasium.registry["NoExpert-v0"]


def test_counts_below_one_are_refused_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        collect(tmp_path / "a.hdf5", task="pick", num_episodes=0, seed=0, workers=0)
    assert len(caught.value.faults) == 2
