"""What pi0 at full size costs on one GPU: training, memory and the latency of sampling.

Random weights, and random batches that lie on the device already. Training is the run's own step
(bf16 autocast, float32 weights, clipping, fused AdamW, running average); batch sizes double until
memory is full. Prints one table and writes one JSON file, whatever was reached when the time is up.

    python benchmarks/gpu_pi0.py --budget-s 540
    python benchmarks/gpu_pi0.py --device cpu --tiny --budget-s 60 --no-compile --max-batch 2

MFU is model FLOPs a sample * samples/s / the device's peak. A forward pass counts 2 m n k for each
matrix product and 4 q n d for each head's attention; training counts what learns three times and
what is frozen once (pi0_gpu/cases.py).

Memory before activations for full fine-tuning, of P = 3.24 billion parameters of which T = 3.13
learn: float32 weights 4 P; gradients, two AdamW moments and the average 16 T; and 2 bytes of every
matrix that autocast casts, kept until the backward pass, 5.2: 68 GB, which is 63.5 GiB.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from pi0_gpu.cases import pi0_of_size, tokens_a_sample
from pi0_gpu.report import Report
from pi0_gpu.sampling import sample_all
from pi0_gpu.training import train_all

# dense bfloat16 matrix products, from NVIDIA's data sheets; the first name that fits
PEAK_FLOPS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12}
TARGETS = "Targets on one H200: full fine-tuning >= 30 samples/s; sampling, 2 cameras, <= 25 ms."


def device_facts(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured on."""
    is_cpu = options.device == "cpu"
    name = "cpu" if is_cpu else torch.cuda.get_device_name(options.device)
    known = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    memory = None if is_cpu else torch.cuda.get_device_properties(options.device).total_memory
    return {
        "device": name,
        "memory_gib": None if memory is None else memory / 2**30,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "peak_flops": options.peak_tflops * 1e12 if options.peak_tflops else known,
        "max_batch": options.max_batch,
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the same shape, few parameters")
    parser.add_argument("--budget-s", type=float, default=540.0, help="seconds until it ends")
    parser.add_argument("--max-batch", type=int, default=128)
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of a GPU not listed here")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--json", type=Path, default=Path("runs/gpu_pi0.json"))
    return parser.parse_args()


def main() -> None:
    """Measure what the time allows, what is quick and most asked for first."""
    began = time.monotonic()
    options = arguments()
    torch.manual_seed(0)
    config, device = pi0_of_size(tiny=options.tiny), options.device
    report = Report(options.json, device_facts(options), began + options.budget_s, TARGETS)
    report.facts["tokens a sample"] = tokens_a_sample(config)
    report.watch()
    sample_all(config, report, device, compiled=False)
    train_all(config, report, device, compiled=options.compile)
    if options.compile:
        sample_all(config, report, device, compiled=True)
    report.finish()


if __name__ == "__main__":
    main()
