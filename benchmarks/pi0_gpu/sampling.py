"""Latency of one action chunk: from an observation on the device to actions on the device."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from pi0_sizes import NUM_CAMERAS
from torch import Tensor

from pi0_gpu.cases import random_inputs
from pi0_gpu.device import release, wait
from pi0_gpu.report import Report
from pi0_gpu.training import COMPILING_S
from policy_ft.config.model import ModelConfig
from policy_ft.models.build import build_model
from policy_ft.models.inputs import ModelInput
from policy_ft.models.vla import VLAModel

NUM_SAMPLINGS = 20


def sample_all(config: ModelConfig, report: Report, device: str, *, compiled: bool) -> None:
    """1, 2 and 3 cameras as it is and, on a GPU, replayed as a CUDA graph."""
    model = sampling_model(config, device)
    model.compile_blocks(compiled)
    for graphed in (False, True) if device != "cpu" else (False,):
        setting = f"{'compiled' if compiled else 'eager'}{', CUDA graph' if graphed else ''}"
        for cameras in range(1, NUM_CAMERAS + 1):
            if report.left_s < 10.0 + compiled * COMPILING_S:
                report.add("sampling", setting, cameras, note="no time left")
                continue
            times = sorted(latencies(model, config, cameras, device, graphed=graphed))
            report.add(
                "sampling",
                setting,
                cameras,
                batch=1,
                median_ms=1e3 * median(times),
                p95_ms=1e3 * times[int(0.95 * (len(times) - 1))],
            )
            release(device)
    del model
    release(device)


def sampling_model(config: ModelConfig, device: str) -> VLAModel:
    """pi0 in the types it is served in: bfloat16 but for what stays float32."""
    with torch.device(device):
        model = build_model(config).eval().requires_grad_(False)
    kept = model.float32_names()
    for name, parameter in model.named_parameters():
        if name not in kept:
            parameter.data = parameter.data.bfloat16()
    return model


def latencies(
    model: VLAModel, config: ModelConfig, cameras: int, device: str, *, graphed: bool
) -> list[float]:
    """Seconds of each of NUM_SAMPLINGS chunks, ten flow steps each."""
    inputs = random_inputs(config, 1, cameras, device)
    noise = torch.randn(1, config.action_horizon, config.action_dim, device=device)
    with _bf16(device), torch.no_grad():
        sample = _sampler(model, inputs, noise, graphed=graphed)
        return [_latency(sample, device) for _ in range(NUM_SAMPLINGS)]


def _sampler(
    model: VLAModel, inputs: ModelInput, noise: Tensor, *, graphed: bool
) -> Callable[[], object]:
    """Samples; warmed up, and where asked for recorded as a CUDA graph and replayed."""

    def sample() -> Tensor:
        return model.sample_actions(inputs, noise)

    if not graphed:
        for _ in range(3):
            sample()
        return sample
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            sample()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = sample()
    return lambda: (graph.replay(), kept)


def _latency(sample: Callable[[], object], device: str) -> float:
    wait(device)
    before = time.perf_counter()
    sample()
    wait(device)
    return time.perf_counter() - before


@contextmanager
def _bf16(device: str) -> Iterator[None]:
    """As Policy.act computes; casts are not kept, which a CUDA graph could not replay."""
    with torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False):
        yield
