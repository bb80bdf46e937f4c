"""The device's own clock and memory; on a CPU there is nothing to wait for."""

import gc

import torch


def wait(device: str) -> None:
    """Until the device has done all it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def forget_peak(device: str) -> None:
    """The next `peak_gib` is of what comes from here on."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: str) -> float | None:
    """The most memory that tensors took at once, in GiB; None on a CPU."""
    return None if device == "cpu" else torch.cuda.max_memory_allocated(device) / 2**30


def release(device: str) -> None:
    """Gives freed memory back to the device."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
