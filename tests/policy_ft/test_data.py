"""The laws of the data: windows, order, noise and statistics depend on the seed alone."""

import os
import subprocess
import sys
import time
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch

from data_tools.actions import to_delta
from data_tools.formats.keep_files import KeptDataset
from data_tools.stats import exact_stats
from policy_ft.data.loader import BatchLoader
from policy_ft.data.noise import Purpose, generator
from policy_ft.data.shuffle import sample_at
from policy_ft.data.split import split_episodes
from policy_ft.data.windows import WindowDataset
from policy_ft.errors import UserError


@pytest.fixture
def windows(fitted, episodes):
    return WindowDataset(episodes, (0, 1, 2), fitted())  # 5 + 3 + 9 = 17 windows


def steps_of(windows, first_step, count, **settings):
    """The micro-batches of `count` train steps."""
    loader = BatchLoader(windows, order=windows.order(7), seed=7, num_draws=2, **settings)
    with closing(loader.iter_from(first_step)) as batches:
        return list(islice(batches, count))


def merged(parts):
    """All samples of some micro-batches, ordered by sample id, epoch first."""
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((whole["sample_id"].numpy(), whole["epoch"].numpy()))
    return {name: values[torch.from_numpy(order)] for name, values in whole.items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_every_step_of_every_episode_is_the_start_of_one_window(windows, episodes):
    """Episodes of 5, 3 and 9 steps: sample 4 ends the first episode, sample 5 starts the next."""
    assert len(windows) == 17
    places = [windows.locate(sample_id) for sample_id in range(17)]
    assert [step for _, step in places] == [*range(5), *range(3), *range(9)]
    assert places[4] == (episodes[0].name, 4)
    assert places[5] == (episodes[1].name, 0)
    with pytest.raises(IndexError, match="17"):
        windows[17]


def test_a_window_holds_the_observation_at_t_and_the_actions_from_t_on(fitted, episodes):
    windows = WindowDataset(episodes, (1, 2), fitted(action_normalization="identity"))
    sample = windows[3 + 2]  # step 2 of the episode with 9 steps
    episode = episodes[2]
    np.testing.assert_array_equal(sample["actions"][:, :3], episode.actions()[2:6])
    np.testing.assert_array_equal(sample["image_0"], episode.image("front", 2))
    np.testing.assert_array_equal(sample["image_1"], episode.image("wrist", 2))
    assert sample["action_mask"].all()
    assert sample["sample_id"] == 5


@pytest.mark.parametrize(
    ("part", "step", "place"),
    [("actions", 4, ", actions, step 4, column 'y'"), ("state", 2, ", step 2, state, column 'y'")],
)
def test_what_a_window_cannot_hold_is_told_at_its_step_of_the_episode(
    fitted, episodes, monkeypatch, part, step, place
):
    values = np.array(getattr(episodes[2], part)())
    values[step, 1] = np.nan
    windows = WindowDataset(episodes, (2,), fitted())
    monkeypatch.setattr(type(episodes[2]), part, lambda self: values)
    with pytest.raises(UserError) as caught:
        windows[2]  # the observation at step 2, and the actions of steps 2 to 5
    (fault,) = caught.value.faults
    assert fault.startswith(f"{episodes[2].name}{place}: found nan")


def test_a_window_beyond_the_end_repeats_the_last_action_and_masks_it(fitted, episodes):
    windows = WindowDataset(episodes, (1,), fitted(action_normalization="identity"))
    sample = windows[1]  # step 1 of 3, horizon 4
    assert sample["action_mask"].tolist() == [True, True, False, False]
    np.testing.assert_array_equal(sample["actions"][:, :3], episodes[1].actions()[[1, 2, 2, 2]])


def test_a_window_decodes_the_images_of_its_first_step_only(fitted, episodes, monkeypatch):
    decoded = []
    original = type(episodes[0]).image

    def counted(self, camera, step):
        decoded.append((camera, step))
        return original(self, camera, step)

    monkeypatch.setattr(type(episodes[0]), "image", counted)
    WindowDataset(episodes, (2,), fitted())[3]
    assert sorted(decoded) == [("front", 3), ("wrist", 3)]


def test_windows_start_where_the_episodes_allow_and_their_actions_run_on(fitted, episodes):
    """5, 3, 9 and 4 steps, of which none, all, three and one start a window."""
    starts = [[], [0, 1, 2], [0, 4, 7], [3]]
    kept = KeptDataset(episodes, [np.array(steps, dtype=np.int64) for steps in starts])
    windows = WindowDataset(kept, (0, 1, 2), fitted(action_normalization="identity"))
    assert [windows.locate(sample_id) for sample_id in range(len(windows))] == [
        *((episodes[1].name, step) for step in (0, 1, 2)),
        *((episodes[2].name, step) for step in (0, 4, 7)),
        (episodes[3].name, 3),
    ]
    actions = episodes[2].actions()
    np.testing.assert_array_equal(windows[4]["actions"][:, :3], actions[4:8])
    assert windows[4]["action_mask"].all()  # steps 5 and 6 are no starts
    assert windows[5]["action_mask"].tolist() == [True, True, False, False]
    np.testing.assert_array_equal(windows[5]["image_0"], episodes[2].image("front", 7))


def test_episodes_without_a_start_are_no_training_data(fitted, episodes):
    nothing = KeptDataset(episodes, [np.zeros(0, dtype=np.int64)] * 4)
    with pytest.raises(UserError, match="no step to start at"):
        WindowDataset(nothing, (), fitted())


def test_each_epoch_is_another_permutation_of_all_samples():
    epochs, ids = sample_at(np.arange(30), num_samples=10, seed=1)
    assert epochs.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    orders = ids.reshape(3, 10)
    assert (np.sort(orders, axis=1) == np.arange(10)).all()
    assert len({tuple(order) for order in orders.tolist()}) == 3


def test_the_order_at_a_position_does_not_depend_on_what_else_is_asked():
    _, whole = sample_at(np.arange(100), num_samples=9, seed=3)
    for start in (0, 8, 9, 50):
        _, part = sample_at(np.arange(start, start + 7), num_samples=9, seed=3)
        assert part.tolist() == whole[start : start + 7].tolist()


@pytest.mark.parametrize("num_samples", [1, 2, 1000, 70_000])
def test_the_order_is_that_of_numpys_permutation_of_64_bit_numbers(num_samples):
    """Runs begun with an earlier version go on in the same order."""
    _, ids = sample_at(np.arange(num_samples), num_samples, seed=5)
    order = generator(5, Purpose.SHUFFLE, 0).permutation(num_samples)
    np.testing.assert_array_equal(ids, order)
    assert ids.dtype == np.int64


def test_two_seeds_are_two_orders():
    assert (
        sample_at(np.arange(50), 50, 0)[1].tolist() != sample_at(np.arange(50), 50, 1)[1].tolist()
    )


def test_batches_hold_what_training_reads(windows):
    ((batch,),) = steps_of(windows, 0, 1, batch_size=4)
    shapes = {name: (tuple(v.shape), v.dtype) for name, v in batch.items()}
    assert shapes == {
        "image_0": ((4, 32, 32, 3), torch.uint8),
        "image_1": ((4, 32, 32, 3), torch.uint8),
        "image_mask": ((4, 3), torch.bool),
        "prompt_tokens": ((4, 16), torch.int64),
        "prompt_mask": ((4, 16), torch.bool),
        "state": ((4, 5), torch.float32),
        "actions": ((4, 4, 4), torch.float32),
        "action_mask": ((4, 4), torch.bool),
        "action_columns": ((4, 4), torch.bool),
        "sample_id": ((4,), torch.int64),
        "epoch": ((4,), torch.int64),
        "noise": ((4, 2, 4, 4), torch.float32),
        "time": ((4, 2), torch.float32),
    }
    assert (batch["time"] >= 0.001).all()
    assert (batch["time"] <= 1.0).all()


def test_batches_are_the_shuffled_run_over_the_data(windows):
    """17 windows, batches of 4: step 4 holds the last of epoch 0 and three of epoch 1."""
    steps = steps_of(windows, 0, 10, batch_size=4)
    epochs, ids = sample_at(np.arange(40), 17, 7)
    assert [i for (batch,) in steps for i in batch["sample_id"].tolist()] == ids.tolist()
    assert steps[4][0]["epoch"].tolist() == [0, 1, 1, 1]
    assert [e for (batch,) in steps for e in batch["epoch"].tolist()] == epochs.tolist()


def test_a_loader_that_starts_at_a_step_yields_what_an_unbroken_one_yields_there(windows):
    settings = {"batch_size": 4, "accumulation_steps": 2}
    unbroken = steps_of(windows, 0, 9, **settings)
    for start in (1, 4, 7):
        for one, other in zip(
            unbroken[start:], steps_of(windows, start, 9 - start, **settings), strict=True
        ):
            for a, b in zip(one, other, strict=True):
                assert_same(a, b)


@pytest.mark.parametrize("keeps_homes", [False, True])
@pytest.mark.parametrize(("world_size", "accumulation_steps"), [(1, 4), (2, 1), (2, 2), (4, 2)])
def test_the_samples_of_a_step_do_not_depend_on_ranks_and_micro_batches(
    world_size, accumulation_steps, keeps_homes, windows
):
    reference = steps_of(windows, 3, 3, batch_size=8)
    settings = {
        "batch_size": 8,
        "world_size": world_size,
        "accumulation_steps": accumulation_steps,
        "keeps_homes": keeps_homes,
    }
    ranks = [steps_of(windows, 3, 3, rank=rank, **settings) for rank in range(world_size)]
    for step in range(3):
        parts = [micro for rank in ranks for micro in rank[step]]
        assert len(parts) == world_size * accumulation_steps
        assert {len(part["sample_id"]) for part in parts} == {8 // len(parts)}
        assert_same(merged(parts), merged(reference[step]))


def test_workers_yield_what_the_training_process_yields(windows):
    settings = {"batch_size": 4, "accumulation_steps": 2}
    here = steps_of(windows, 2, 4, **settings)
    there = steps_of(windows, 2, 4, num_workers=2, prefetch=2, **settings)
    for one, other in zip(here, there, strict=True):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_end_when_the_training_process_is_killed(fitted, episodes, tmp_path):
    fitted().save(tmp_path)
    script = tmp_path / "train.py"
    script.write_text(
        "import multiprocessing, sys, time\n"
        "from pathlib import Path\n"
        "from data_tools.formats.reader import open_dataset\n"
        "from policy_ft.data.loader import BatchLoader\n"
        "from policy_ft.data.windows import WindowDataset\n"
        "from policy_ft.transforms import Transforms\n"
        "if __name__ == '__main__':\n"
        "    transforms = Transforms.load(Path(sys.argv[1]))\n"
        "    windows = WindowDataset(open_dataset(sys.argv[2]), (0,), transforms)\n"
        "    order = windows.order(0)\n"
        "    loader = BatchLoader(windows, order=order, seed=0, batch_size=4, num_workers=2)\n"
        "    batches = loader.iter_from(0)\n"
        "    next(batches)\n"
        "    print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n"
        "    time.sleep(60)\n"
    )
    data = episodes[0].name.split(":")[0]
    command = [sys.executable, str(script), str(tmp_path), data]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as training:
        workers = [int(pid) for pid in training.stdout.readline().split()]
        training.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in workers if is_running(pid)] == []


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_fault_in_a_sample_arrives_as_it_was_raised(num_workers, episodes, fitted):
    transforms = fitted(shape=fitted().shape.model_copy(update={"max_prompt_tokens": 2}))
    windows = WindowDataset(episodes, (0, 1), transforms)
    with pytest.raises(UserError) as caught:
        steps_of(windows, 0, 1, batch_size=2, num_workers=num_workers)
    assert "Shorten the instruction" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_split_is_of_whole_episodes_and_covers_all(episodes):
    for seed in range(5):
        training, validation = split_episodes(episodes, 0.5, seed)
        assert sorted((*training, *validation)) == [0, 1, 2, 3]
        assert len(training) == len(validation) == 2
    splits = {split_episodes(episodes, 0.5, seed) for seed in range(10)}
    assert len(splits) > 1


@pytest.mark.parametrize(("fraction", "num_validation"), [(0.01, 1), (0.99, 3)])
def test_a_split_leaves_at_least_one_episode_on_each_side(fraction, num_validation, episodes):
    training, validation = split_episodes(episodes, fraction, 0)
    assert len(validation) == num_validation
    assert len(training) == 4 - num_validation


def test_statistics_come_from_the_training_episodes_alone(fitted, episodes):
    statistics = fitted().statistics
    chosen = [episodes[i] for i in (0, 1, 2)]
    expected = exact_stats(np.concatenate([e.state() for e in chosen]))
    assert statistics.state == expected
    assert statistics.state != exact_stats(
        np.concatenate([e.state() for e in (*chosen, episodes[3])])
    )
    assert statistics.fingerprint == episodes.fingerprint


def test_statistics_of_delta_actions_are_of_the_chunks_the_model_sees(fitted, episodes):
    """Every start and every recorded step of its chunk; other columns count each frame once."""
    statistics = fitted(delta_actions=("y",)).statistics.actions
    chunks = []
    for episode in (episodes[i] for i in (0, 1, 2)):
        actions, state = episode.actions(), episode.state()
        for t in range(len(actions)):
            chunks.append(to_delta(actions[t : t + 4], state[t], [(1, 1)])[:, 1:2])
    expected = exact_stats(np.concatenate(chunks))
    for name in ("mean", "std", "min", "max", "q01", "q99"):
        assert getattr(statistics, name)[1] == pytest.approx(getattr(expected, name)[0], rel=1e-12)
    frames = exact_stats(np.concatenate([episodes[i].actions() for i in (0, 1, 2)]))
    assert statistics.mean[0] == pytest.approx(frames.mean[0], rel=1e-12)
