"""Runs that several processes of this machine share, started without a launcher's ten seconds."""

import multiprocessing
import os
import signal
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState

from policy_ft import assemble
from policy_ft.config.run import RunConfig
from policy_ft.errors import UserError
from policy_ft.ranks import own_part, own_rows
from policy_ft.training.hooks import Hook, RunView

PATIENCE_S = 240.0


@dataclass(frozen=True)
class Job:
    """A run that several processes share."""

    config: RunConfig
    resume: bool = False
    methods: tuple[Hook, ...] = ()
    folders: tuple[Path, ...] = ()
    """That each process works in; where it is if there are none."""


class Kill(Hook):
    """Ends the process without a word; until then adds up a weight, each process its rows.

    Args:
        after: which step; 0 for none.
    """

    name = "kill"
    works_on_shards = True

    def __init__(self, after: int) -> None:
        self._after = after

    def begin(self, run: RunView) -> None:
        self._weight = run.policy.model.expert.action_out_proj.weight
        self._sum = torch.zeros_like(self._weight, requires_grad=False)

    def after_step(self, train_step: int) -> dict[str, float]:
        if train_step == self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        own_part(self._sum).add_(own_part(self._weight))
        return {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"sum": self._sum}

    def load_state_dict(self, state) -> None:
        own_part(self._sum).copy_(state["sum"][own_rows(self._sum)])


class Spoil(Hook):
    """Makes the second process's rows of a weight, or of its gradient, NaN in one step."""

    name = "spoil"
    works_on_shards = True

    def __init__(self, what: str, train_step: int) -> None:
        self._what, self._at = what, train_step

    def begin(self, run: RunView) -> None:
        self._weight = run.policy.model.expert.action_out_proj.weight

    def after_backward(self, train_step: int) -> None:
        if self._what == "gradient":
            self._spoil(train_step, self._weight.grad)

    def after_step(self, train_step: int) -> dict[str, float]:
        if self._what == "weight":
            self._spoil(train_step, self._weight)
        return {}

    def _spoil(self, train_step: int, tensor: torch.Tensor) -> None:
        if train_step == self._at and PartialState().process_index == 1:
            own_part(tensor).fill_(float("nan"))


def work(rank: int, num_processes: int, port: int, jobs: list[Job]) -> None:
    """What one of the processes does, as a launcher would have started it."""
    world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= {name: str(value) for name, value in (world | place).items()}
    torch.set_num_threads(1)
    # graphs are made as ever and run by torch itself, which takes seconds and not minutes
    torch.compile = partial(torch.compile, backend="eager")
    for job in jobs:
        if job.folders:
            os.chdir(job.folders[rank])
        try:
            assemble.train(job.config, resume=job.resume, methods=job.methods)
        except UserError as error:
            directory = Path(job.config.output_dir)
            directory.mkdir(exist_ok=True)
            (directory / f"fault_{rank}.txt").write_text(str(error))


def launch(num_processes: int, *jobs: Job) -> list[int | None]:
    """Exit codes of processes that share the runs, one after the other.

    What a run is refused or stopped for lies in its output_dir, as `fault_<rank>.txt`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["policy_ft.assemble", __name__])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    processes = [
        context.Process(target=work, args=(rank, num_processes, port, list(jobs)))
        for rank in range(num_processes)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(PATIENCE_S)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
