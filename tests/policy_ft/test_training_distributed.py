"""Two processes that share each batch compute what one process computes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from policy_ft import assemble

SCRIPT = """
import sys
from accelerate import PartialState
from policy_ft import assemble
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.config_file import load_config
from policy_ft.training.hooks import Hook

class HashOfEachStep(Hook):
    name = "hashes"

    def begin(self, run):
        self.model = run.policy.model

    def after_step(self, train_step):
        with open(f"{sys.argv[2]}/rank{PartialState().process_index}.txt", "a") as file:
            file.write(weights_hash(self.model) + "\\n")
        return {}

assemble.train(load_config(sys.argv[1]), methods=[HashOfEachStep()])
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def accelerate_launch(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    return [*command, "--dynamo_backend", "no", "--main_process_port", str(free_port()), *arguments]


def torchrun(*arguments: str) -> list[str]:
    port = str(free_port())
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return [*command, "--master-port", port, *arguments]


def launch_on_two_cpu_processes(command: list[str]) -> str:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def records(metrics, kind: str, *names: str) -> list[list[float]]:
    return [[row[name] for name in names] for row in metrics if row["kind"] == kind]


UNFROZEN_LATER = {
    "groups": [{"pattern": "language", "frozen": True}],
    "phases": [{"start": 3, "groups": []}],
}


@pytest.mark.slow
@pytest.mark.parametrize("tuning", [{}, UNFROZEN_LATER], ids=["whole", "phases"])
def test_two_processes_compute_what_one_computes(run_config, tmp_path, tuning):
    """Masks are uneven (episodes of 3 to 9 steps, chunks of 4) and batches are accumulated."""
    training = {"batch_size": 8, "accumulation_steps": 2, "noise_draws": 2, "log_every": 1}
    alone = assemble.train(run_config(training=training, tuning=tuning)).metrics
    config = run_config(training=training, tuning=tuning, output_dir=str(tmp_path / "two"))
    (tmp_path / "run.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    (tmp_path / "train.py").write_text(SCRIPT)
    launch_on_two_cpu_processes(
        accelerate_launch(str(tmp_path / "train.py"), str(tmp_path / "run.yaml"), str(tmp_path))
    )
    together = [
        json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    ]
    for kind, names in (("train", ("loss", "lr")), ("validation", ("loss", "action_mse"))):
        expected, found = records(alone, kind, *names), records(together, kind, *names)
        assert len(found) == len(expected)
        for one, two in zip(expected, found, strict=True):
            assert two == pytest.approx(one, rel=1e-5)
    hashes = [Path(tmp_path / f"rank{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == config.training.steps, "the weights moved at every step"


READERS = """
import sys
from torch import distributed
from accelerate import PartialState
from policy_ft import assemble
from policy_ft.config.config_file import load_config
from policy_ft.training.launch import RANKS_WAIT

def report(event, arguments):
    if event == "open" and "training_state/" in str(arguments[0]):
        print(f"rank {PartialState().process_index} opens {str(arguments[0]).split('/')[-1]}")

sys.addaudithook(report)
assemble.train(load_config(sys.argv[1]), resume=True)
group = distributed.group.WORLD._get_backend(PartialState().device)
print("patient" if group.options._timeout == RANKS_WAIT else group.options._timeout)
"""


@pytest.mark.slow
def test_of_several_processes_one_reads_the_moments_and_all_go_on_alike(run_config, tmp_path):
    """Two steps, and two more resumed on two processes, are four steps of one process."""
    training = {"batch_size": 8, "log_every": 1}
    alone = assemble.train(run_config(training={**training, "steps": 4})).metrics
    half = run_config(training={**training, "steps": 2}, output_dir=str(tmp_path / "two"))
    assemble.train(half)
    whole = run_config(training={**training, "steps": 4}, output_dir=str(tmp_path / "two"))
    (tmp_path / "run.yaml").write_text(json.dumps(whole.model_dump(mode="json")))
    (tmp_path / "resume.py").write_text(READERS)
    shown = launch_on_two_cpu_processes(
        torchrun(str(tmp_path / "resume.py"), str(tmp_path / "run.yaml"))
    )
    for name in ("weights", "optimizer"):
        assert f"rank 0 opens {name}.safetensors" in shown
        assert f"rank 1 opens {name}.safetensors" not in shown
    assert shown.count("patient") == 2
    rows = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    together = [json.loads(row) for row in rows]
    expected, found = records(alone, "train", "loss"), records(together, "train", "loss")
    assert found == [pytest.approx(loss, rel=1e-5) for loss in expected]


@pytest.mark.slow
def test_a_damaged_state_is_told_on_every_process(run_config, tmp_path):
    """The launcher would else wait for a rank that waits for the first one."""
    config = run_config(training={"batch_size": 8, "steps": 2})
    last = assemble.train(config).last_checkpoint
    damaged = last / "training_state" / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    longer = run_config(training={"batch_size": 8, "steps": 4})
    (tmp_path / "run.yaml").write_text(json.dumps(longer.model_dump(mode="json")))
    command = torchrun("-m", "policy_ft", "train", str(tmp_path / "run.yaml"), "--resume")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert done.stderr.count("to go on from the checkpoint before it") == 2
