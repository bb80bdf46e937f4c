"""This process among those of its launcher: device, rank, precision, threads, seeds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from torch import Tensor

from policy_ft.config.training import TrainingConfig
from policy_ft.data.noise import dropout_seed
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.models.vla import VLAModel

RANKS_WAIT = timedelta(days=1)
"""How long ranks wait for one another: while the first collects data or saves tens of gigabytes to
a slow disk, and while others finish longer rollouts. torch's 10 to 30 minutes would end such runs.
A rank that died is not waited for: its launcher ends the others."""

SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def autocast_dtype(training: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """bfloat16 where it is asked for or 'auto' meets a device that has it; None for float32."""
    is_wanted = training.precision == "bf16"
    if training.precision == "auto":
        is_wanted = _computes_bf16(device)
    return torch.bfloat16 if is_wanted else None


def _computes_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 matrix products.

    Emulation is worse than float32: on a CPU limited to AVX512 without BF16, a train step of the
    shipped policy took 1.5 s in bfloat16 against 0.74 s in float32, and 0.46 s with the
    instructions (docs/experiments.md).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def start_accelerator() -> Accelerator:
    """This process among those of its launcher: its device, its rank, and how they talk.

    Raises:
        UserError: the launched processes do not train together, or by a method that is not built,
            or the launcher was given settings that belong to the run.
    """
    # on a machine without any accelerator, processes of one launch find each other as CPU ranks
    raise_faults(_unheeded_settings())
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=RANKS_WAIT)],
    )
    if accelerator.distributed_type not in SUPPORTED:
        raise UserError(
            describe(
                "accelerate",
                f"distributed type {accelerator.distributed_type.value}",
                f"one of {[kind.value for kind in SUPPORTED]}",
                "Launch with --multi_gpu, without FSDP or DeepSpeed; to share weights among the "
                "processes, set training.shard.",
            )
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise UserError(
            describe(
                "accelerate",
                f"{launched} launched processes, of which {accelerator.num_processes} in a group",
                "one group of all processes",
                "Launch with `accelerate-launch --multi_gpu --num_processes N`.",
            )
        )
    return accelerator


def _unheeded_settings() -> Iterator[str]:
    """What the launcher asks for and a run decides: followed nowhere, so refused here."""
    for name, heeded, instead in (
        ("ACCELERATE_MIXED_PRECISION", "no", "training.precision"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1", "training.accumulation_steps"),
    ):
        found = os.environ.get(name, heeded)
        if found != heeded:
            remedy = f"Leave it out of the launcher's arguments and set {instead} of the run."
            yield describe(name, repr(found), repr(heeded), remedy)


@contextmanager
def numerics(training: TrainingConfig) -> Iterator[None]:
    """Threads, kernels and torch's generators as the run asks for; afterwards as they were."""
    threads, was_deterministic = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )
    if training.num_threads != "all":
        torch.set_num_threads(training.num_threads)
    if training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
        torch.set_num_threads(threads)


@contextmanager
def block_execution(model: VLAModel, training: TrainingConfig) -> Iterator[None]:
    """Blocks of the model compiled and checkpointed as the run asks for; afterwards neither."""
    model.checkpoint_activations(training.activation_checkpointing)
    model.compile_blocks(training.compile)
    try:
        yield
    finally:
        model.checkpoint_activations(False)
        model.compile_blocks(False)


def require_compiler(training: TrainingConfig, device: torch.device) -> None:
    """UserError where the run asks for torch.compile and not even x * 2 can be compiled."""
    if not training.compile:
        return
    try:
        torch.compile(_doubled)(torch.ones(8, device=device))
    except RuntimeError as error:
        is_cpu = device.type == "cpu"
        needed = "a C++ compiler and Python's headers" if is_cpu else "Triton"
        remedy = "apt-get install g++ python3-dev" if is_cpu else "pip install triton"
        raise UserError(
            describe(
                "training.compile",
                f"true, where torch.compile fails: {str(error).partition(chr(10))[0]}",
                f"{needed}, which it uses on the device {device.type}",
                f"Install them (`{remedy}`), or set training.compile to false.",
            )
        ) from error


def _doubled(x: Tensor) -> Tensor:
    return x * 2


def seed_dropout(seed: int, train_step: int, rank: int) -> None:
    """Makes dropout in the model a function of (seed, step, rank): a resumed run repeats it.

    Not of the sample's identity: with dropout the result depends on the number of processes. Noise
    and flow time, which matter to every run, come with the batch and do not.
    """
    torch.manual_seed(dropout_seed(seed, train_step, rank))
