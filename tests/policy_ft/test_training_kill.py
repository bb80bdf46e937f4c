"""A run killed at any moment, again and again, ends with the bits of the one that was not."""

import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from policy_ft import assemble
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.run import RunConfig
from policy_ft.formats.load import load_policy
from policy_ft.training.metrics import read_metrics

MEASURED = ("samples_per_s", "data_s", "encode_s", "step_s")
PATIENCE_S = 120.0
RANDOM_KILLS, KILLS_DURING_A_SAVE = 4, 4


@pytest.fixture(scope="module")
def context():
    """Processes that begin with everything imported, so that a kill costs no start of Python."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["policy_ft.assemble"])
    return context


def started(context, config: RunConfig) -> BaseProcess:
    process = context.Process(target=assemble.train, args=(config,), kwargs={"resume": True})
    process.start()
    return process


def wait_until(happened, process: BaseProcess) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened() and process.is_alive():
        assert time.monotonic() < deadline, "the run did not come so far"
        time.sleep(0.0005)


def killed(process: BaseProcess) -> bool:
    """Whether the kill came before the run's own end."""
    process.kill()
    process.join()
    return process.exitcode == -9


def final(config: RunConfig) -> dict[str, object]:
    """Everything a run computed: averages, weights, optimizer and metrics, without its timings."""
    last = Path(config.output_dir) / "checkpoints" / "last"
    files = [last / "model.safetensors", *sorted((last / "training_state").glob("*.safetensors"))]
    rows = read_metrics(Path(config.output_dir))
    return {
        "weights": {file.name: weights_hash(load_file(file)) for file in files},
        "metrics": [{k: v for k, v in row.items() if k not in MEASURED} for row in rows],
    }


@pytest.mark.slow
def test_a_killed_and_resumed_run_ends_with_the_bits_of_the_unbroken_one(
    run_config, tmp_path, context
):
    training = {"steps": 40, "save_every": 4, "log_every": 3, "accumulation_steps": 2}
    unbroken, broken = (
        run_config(output_dir=str(tmp_path / name), training=training, validation={"every": 7})
        for name in ("unbroken", "broken")
    )
    assemble.train(unbroken)
    checkpoints = Path(broken.output_dir) / "checkpoints"
    moments, kills, interrupted_saves = random.Random(0), 0, 0
    for _ in range(RANDOM_KILLS):
        process = started(context, broken)
        wait_until(checkpoints.exists, process)
        time.sleep(moments.uniform(0.0, 0.6))
        kills += killed(process)
    for _ in range(KILLS_DURING_A_SAVE):
        process = started(context, broken)
        wait_until(lambda: list(checkpoints.glob(".step_*")), process)
        kills += killed(process)
        interrupted_saves += bool(list(checkpoints.glob(".step_*")))
        for complete in checkpoints.glob("step_*"):
            load_policy(complete)
    assert kills >= KILLS_DURING_A_SAVE, "the run ended before it could be killed"
    assert interrupted_saves > 0, "no kill came in the middle of a save"
    process = started(context, broken)
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert final(broken) == final(unbroken)
    assert not list(checkpoints.glob(".*")), "what the kills left half-written is gone"
