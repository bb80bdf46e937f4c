"""Weights of steps: from the file, through windows and batches, to the loss and its gradient."""

import json
from contextlib import closing
from dataclasses import replace
from itertools import islice

import h5py
import numpy as np
import pytest
import torch

from data_tools.formats.keep_files import KeptDataset
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.split import Split, write_split_keep
from policy_ft import assemble
from policy_ft.data.loader import BatchLoader
from policy_ft.data.soundness import require_sound_data
from policy_ft.data.sources import sources_of
from policy_ft.data.windows import WindowDataset
from policy_ft.errors import UserError
from policy_ft.objectives.flow import Flow
from policy_ft.training.step import to_device
from tests.policy_ft.test_training_distributed import (
    launch_on_two_cpu_processes,
    records,
    torchrun,
)
from tests.policy_ft.test_training_step import CPU, Stepper, weights_of

LENGTHS = (5, 3, 9, 4)
# of each step; no window starts where it is 0
GIVEN = (
    [1.0, 0.0, 2.0, 0.5, 1.0],
    [0.0, 0.0, 0.25],
    [1.0, 0.0, 3.0, 1.0, 0.0, 0.0, 1.0, 2.0, 0.5],
    [1.0, 1.0, 0.0, 4.0],
)


def weigh(dataset, given=GIVEN):
    """The dataset's file with a weight of each step written into it."""
    (name,) = dataset.inspected.files
    with h5py.File(name, "r+") as file:
        for index, weights in enumerate(given):
            group = file[f"data/demo_{index}"]
            group.pop("columns", None)
            group["columns/weight"] = np.asarray(weights, dtype=np.float32)
    return open_dataset(name)


@pytest.fixture
def weighted(record):
    return weigh(record())


def first_batch(windows, **settings):
    settings = {"batch_size": 8, **settings}
    loader = BatchLoader(windows, order=windows.order(0), seed=0, num_draws=2, **settings)
    with closing(loader.iter_from(0)) as batches:
        return next(islice(batches, 1))


def test_a_window_has_the_weight_of_its_start_and_none_starts_where_that_is_0(weighted, fitted):
    windows = WindowDataset(weighted, (0, 1, 2, 3), fitted(), columns=("weight",))
    places = [windows.locate(sample_id) for sample_id in range(len(windows))]
    expected = [
        (weighted[index].name, step, weight)
        for index, weights in enumerate(GIVEN)
        for step, weight in enumerate(weights)
        if weight
    ]
    assert places == [(name, step) for name, step, _ in expected]
    found = [windows[sample_id]["columns.weight"] for sample_id in range(len(windows))]
    assert [float(weight) for weight in found] == [weight for _, _, weight in expected]
    assert {weight.dtype for weight in found} == {np.dtype(np.float32)}


def test_without_being_asked_for_a_weight_plays_no_part(weighted, fitted):
    windows = WindowDataset(weighted, (0, 1, 2, 3), fitted())
    assert len(windows) == sum(LENGTHS)
    assert not [name for name in windows[0] if name.startswith("columns")]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_carry_the_columns_of_their_samples(weighted, fitted, num_workers):
    windows = WindowDataset(weighted, (0, 1, 2, 3), fitted(), columns=("weight",))
    for samples in first_batch(windows, accumulation_steps=2, num_workers=num_workers):
        batch = to_device(samples, windows.transforms, CPU)
        expected = []
        for sample_id in batch.sample_id.tolist():
            name, step = windows.locate(sample_id)
            expected.append(GIVEN[int(name[-1])][step])
        assert batch.columns["weight"].tolist() == expected
        assert list(batch.columns) == ["weight"]


def one_step(policy, windows, accumulation_steps=1):
    """Loss, gradient norm and weights after a step on every window."""
    stepper = Stepper(policy, windows.episodes)
    parts = first_batch(windows, batch_size=len(windows), accumulation_steps=accumulation_steps)
    batches = [to_device(samples, policy.transforms, CPU) for samples in parts]
    result = stepper.step(1, batches)
    return result.loss, result.grad_norm, weights_of(policy.model)


def test_weights_of_0_and_1_train_on_what_a_keep_file_would_keep(record, policy):
    """One step on all windows of weight 1 is, bit by bit, the step on the kept subset."""
    marks = [[float(weight > 0) for weight in weights] for weights in GIVEN]
    episodes = weigh(record(), marks)
    kept = KeptDataset(episodes, [np.flatnonzero(each) for each in marks])
    start, found = weights_of(policy.model), []
    for data, columns in ((episodes, ("weight",)), (kept, ())):
        policy.model.load_state_dict(start)
        windows = WindowDataset(data, range(len(data)), policy.transforms, columns=columns)
        found.append(one_step(policy, windows))
    assert found[0][:2] == found[1][:2]
    torch.testing.assert_close(found[0][2], found[1][2], rtol=0, atol=0)


def test_a_weighted_gradient_is_the_weighted_mean_of_the_samples_own_gradients(weighted, policy):
    """Summed in double precision: sum(w_i * grad_i) / sum(w_i * n_i), n_i the valid elements."""
    windows = WindowDataset(weighted, range(4), policy.transforms, columns=("weight",))
    (samples,) = first_batch(windows, batch_size=len(windows))
    batch = to_device(samples, policy.transforms, CPU)
    weights = batch.columns["weight"].tolist()
    assert len(set(weights)) > 3
    stepper, found = Stepper(policy, weighted), {}
    stepper.step.after_backward = lambda step: found.update(
        {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}
    )
    parameters = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(each, dtype=torch.float64) for name, each in parameters.items()}
    loss = mass = 0.0
    for place, weight in enumerate(weights):
        errors = policy.model(batch, [Flow()])["flow"].values[place]
        valid = batch.valid[place].expand_as(errors)
        own = errors.masked_fill(~valid, 0.0).sum()
        gradients = torch.autograd.grad(own, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                sums[name] += weight * gradient.double()
        loss, mass = loss + weight * own.item(), mass + weight * valid.sum().item()
    assert stepper.step(1, [batch]).loss == pytest.approx(loss / mass, rel=1e-6)
    assert found
    for name, gradient in found.items():
        expected = sums[name] / mass
        scale = expected.abs().max().clamp_min(1e-7)
        assert ((gradient - expected).abs() / scale).max() < 1e-4, name


def test_a_step_tells_how_many_samples_of_equal_weight_tell_as_much(weighted, policy):
    """Weights 1, 1, 1, 1 are four samples; 3 and 1 are 16 / 10."""
    windows = WindowDataset(weighted, range(4), policy.transforms, columns=("weight",))
    parts = first_batch(windows, batch_size=len(windows), accumulation_steps=2)
    batches = [to_device(samples, policy.transforms, CPU) for samples in parts]
    weights = torch.cat([batch.columns["weight"] for batch in batches]).double()
    result = Stepper(policy, weighted).step(1, batches)
    assert result.effective_samples == pytest.approx(
        (weights.sum() ** 2 / weights.square().sum()).item()
    )
    assert result.effective_samples < len(weights)
    plain = [replace(batch, columns={}) for batch in batches]
    assert Stepper(policy, weighted).step(1, plain).effective_samples is None
    even = [replace(batch, columns={"weight": torch.full((7,), 0.5)}) for batch in batches]
    assert Stepper(policy, weighted).step(1, even).effective_samples == pytest.approx(14)


def test_a_weighted_step_does_not_depend_on_how_its_batch_is_divided(weighted, policy):
    """Micro-batches whose weights add up unequally: a mean of their means would differ."""
    windows = WindowDataset(weighted, range(4), policy.transforms, columns=("weight",))
    start, found = weights_of(policy.model), []
    for accumulation_steps in (1, 2, 7):
        policy.model.load_state_dict(start)
        found.append(one_step(policy, windows, accumulation_steps))
    for loss, norm, weights in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        assert norm == pytest.approx(found[0][1], rel=1e-5)
        torch.testing.assert_close(weights, found[0][2], rtol=0, atol=1e-5)


def train(run_config, data, **changes):
    data = {"columns": ["weight"], "validation_fraction": 0.25, **data}
    return assemble.train(run_config(data=data, **changes))


def test_a_run_trains_with_weights_and_validates_without(weighted, run_config, tmp_path):
    path = list(weighted.inspected.files)
    plain, other = (
        train(run_config, {"path": path, "columns": columns}, output_dir=str(tmp_path / name))
        for name, columns in (("plain", []), ("weighted", ["weight"]))
    )
    losses = [[r["loss"] for r in run.metrics if r["kind"] == "train"] for run in (plain, other)]
    assert losses[0] != losses[1]
    samples = [r.get("effective_samples") for r in other.metrics if r["kind"] == "train"]
    assert all(1 <= each < 4 for each in samples), "the batch has 4 samples of unequal weight"
    assert not any("effective_samples" in record for record in plain.metrics)
    provenance = [
        json.loads((run.last_checkpoint / "provenance.json").read_text()) for run in (plain, other)
    ]
    assert provenance[0]["data_fingerprint"] == weighted.fingerprint
    assert provenance[1]["data_fingerprint"] != weighted.fingerprint


def test_a_run_does_not_go_on_with_other_weights(weighted, run_config):
    data = {"path": list(weighted.inspected.files), "columns": ["weight"]}
    assemble.train(run_config(data=data, training={"steps": 1}))
    weigh(weighted, [np.asarray(each) * 2 for each in GIVEN])
    with pytest.raises(UserError, match="data: found fingerprint"):
        assemble.train(run_config(data=data, training={"steps": 2}), resume=True)
    weigh(weighted)
    assemble.train(run_config(data=data, training={"steps": 2}), resume=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([*GIVEN[:3], [1, 1, -1, 1]], "demo_3, column 'weight', step 2: found -1.0"),
        ([*GIVEN[:3], [1, 1, 1, np.nan]], "demo_3, column 'weight', step 3: found nan"),
        ([np.zeros(n) for n in LENGTHS], "column 'weight': found 0 at every step of 4 episodes"),
    ],
)
def test_weights_that_cannot_be_used_stop_a_run_that_asks_for_them_and_no_other(
    record, run_config, given, message
):
    episodes = weigh(record(), given)
    config = run_config(data={"path": list(episodes.inspected.files), "columns": ["weight"]})
    with pytest.raises(UserError, match=message):
        require_sound_data(config.data, episodes)
    assert any(message[:20] in fault for fault in assemble.check(config))
    require_sound_data(config.data.model_copy(update={"columns": ()}), episodes)


def test_a_column_that_nothing_reads_is_refused(weighted, run_config):
    config = run_config(data={"path": list(weighted.inspected.files), "columns": ["wieght"]})
    found = "\n".join(assemble.check(config))
    assert "data.columns: found ['wieght']; expected some of ['weight'], which" in found
    assert "did you mean 'weight'?" in found
    told = str(UserError(assemble.check(config)))
    assert told.count("expected 'wieght' too") == 1
    assert "(4 episodes: data/demo_0, data/demo_1, data/demo_2, data/demo_3)" in told


def test_weights_that_play_no_part_are_told_by_check(weighted, run_config):
    told = []
    path = list(weighted.inspected.files)
    assert assemble.check(run_config(data={"path": path}), tell=told.append) == []
    assert any("data.columns [weight] would" in line for line in told)
    told.clear()
    assemble.check(run_config(data={"path": path, "columns": ["weight"]}), tell=told.append)
    assert not any("weigh" in line for line in told)


def test_a_source_without_the_column_is_named_with_the_way_to_give_it_one(mixed, old, tmp_path):
    """The new demonstrations weigh their steps; the old ones then say that all theirs count 1."""
    config = mixed(data={"columns": ["weight"]})
    weigh(open_dataset(tmp_path / "demos.hdf5"))
    faults = "\n".join(assemble.check(config))
    assert "data.mixture.old, " in faults
    assert (
        "expected 'weight' too. Declare where it is in the sidecar, `layout: {columns: " in faults
    )
    assert "data.mixture.new" not in faults
    sidecar = old.with_name(old.name + ".conventions.yaml")
    sidecar.write_text("layout: {columns: {weight: 1}}\n")
    assert assemble.check(config) == []
    assert len(assemble.train(config).metrics) > 2


def test_only_the_chosen_training_episodes_need_weights(record, run_config, tmp_path):
    episodes = record()
    (path,) = episodes.inspected.files
    write_split_keep(episodes, Split((0, 1, 2), (3,)), tmp_path / "split", "by hand")
    train_keep = tmp_path / "split" / "train.json"
    said = json.loads(train_keep.read_text())
    said["weights"] = dict.fromkeys(said["episodes"], 2.0)
    train_keep.write_text(json.dumps(said))
    data = {
        "path": path,
        "keep": str(train_keep),
        "validation_keep": str(tmp_path / "split" / "valid.json"),
        "columns": ["weight"],
    }
    assert assemble.check(run_config(data=data)) == []
    assemble.train(run_config(data=data, training={"steps": 2}))


def test_a_source_whose_training_episodes_all_weigh_nothing_is_told(record, run_config):
    episodes = weigh(record(), [np.zeros(n) if n != 4 else np.ones(n) for n in LENGTHS])
    path = list(episodes.inspected.files)
    faults = []
    for seed in range(8):
        config = run_config(data={"path": path, "columns": ["weight"]}, seed=seed)
        kept, _ = sources_of(episodes)[0].split(config.data, seed)
        if 3 not in kept:
            faults += assemble.check(config)
            with pytest.raises(UserError, match="column 'weight': found 0 at every step of the 3"):
                assemble.train(config)
    assert faults, "no seed holds out the one episode with weights"


@pytest.mark.slow
def test_two_processes_make_the_weighted_steps_of_one(weighted, run_config, tmp_path):
    data = {"path": list(weighted.inspected.files), "columns": ["weight"]}
    settings = {"batch_size": 8, "accumulation_steps": 2, "log_every": 1}
    alone = assemble.train(run_config(data=data, training=settings)).metrics
    two = run_config(data=data, training=settings, output_dir=str(tmp_path / "two"))
    (tmp_path / "run.yaml").write_text(json.dumps(two.model_dump(mode="json")))
    launch_on_two_cpu_processes(torchrun("-m", "policy_ft", "train", str(tmp_path / "run.yaml")))
    rows = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    together = [json.loads(row) for row in rows]
    for kind, names in (("train", ("loss", "lr")), ("validation", ("loss", "action_mse"))):
        expected, found = records(alone, kind, *names), records(together, kind, *names)
        assert len(found) == len(expected) > 0
        for one, other in zip(expected, found, strict=True):
            assert other == pytest.approx(one, rel=1e-5)
