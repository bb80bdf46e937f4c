"""Runs that several processes of this machine share, started without a launcher's ten seconds."""

import multiprocessing
import os
import signal
import socket
from dataclasses import dataclass
from functools import partial

import torch

from policy_ft import assemble
from policy_ft.config.run import RunConfig
from policy_ft.training.hooks import Hook

PATIENCE_S = 240.0


@dataclass(frozen=True)
class Job:
    """A run that several processes share, and after which step they are killed, if at all."""

    config: RunConfig
    resume: bool = False
    killed_after: int = 0


class Kill(Hook):
    """Ends the process without a word."""

    name = "kill"
    works_on_shards = True

    def __init__(self, after: int) -> None:
        self._after = after

    def after_step(self, train_step: int) -> dict[str, float]:
        if train_step == self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}


def work(rank: int, num_processes: int, port: int, jobs: list[Job]) -> None:
    """What one of the processes does, as a launcher would have started it."""
    world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= {name: str(value) for name, value in (world | place).items()}
    torch.set_num_threads(1)
    # graphs are made as ever and run by torch itself, which takes seconds and not minutes
    torch.compile = partial(torch.compile, backend="eager")
    for job in jobs:
        methods = [Kill(job.killed_after)] if job.killed_after else []
        assemble.train(job.config, resume=job.resume, methods=methods)


def launch(num_processes: int, *jobs: Job) -> list[int | None]:
    """Exit codes of processes that share the runs, one after the other."""
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
