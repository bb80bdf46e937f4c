"""The full-size benchmark counts what it says it counts, and ends with what it has."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def measured(path: Path, *arguments: str) -> dict[str, Any]:
    """What gpu_pi0.py writes for the tiny model on a CPU."""
    command = [sys.executable, str(BENCHMARKS / "gpu_pi0.py"), "--device", "cpu", "--tiny"]
    command += ["--no-compile", "--max-batch", "2", "--json", str(path), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"wrote {path}" in done.stdout.replace("\n", " ")
    return json.loads(path.read_text())


def test_the_benchmark_measures_sampling_and_both_kinds_of_training(tmp_path):
    record = measured(tmp_path / "gpu.json", "--budget-s", "240")
    found = {(row["work"], row["setting"], row["cameras"], row["batch"]) for row in record["rows"]}
    trained = {
        (work, f"checkpointing {on}, compile off", 3, batch)
        for work, on in (
            ("full fine-tuning", "on"),
            ("full fine-tuning", "off"),
            ("frozen backbone", "off"),
        )
        for batch in (1, 2)
    }
    assert found == trained | {("sampling", "eager", cameras, 1) for cameras in (1, 2, 3)}
    for row in record["rows"]:
        assert row.get("median_ms", 1.0) > 0
        assert row.get("samples_per_s", 1.0) > 0
    learning = [record[f"{work}: parameters that learn"] for work in ("full fine-tuning",)]
    assert learning[0] > record["frozen backbone: parameters that learn"] > 0
    assert record["tokens a sample"] == 3 * 4 + 24 + 1 + 50


def test_when_the_time_is_up_the_benchmark_reports_what_it_has(tmp_path):
    record = measured(tmp_path / "gpu.json", "--budget-s", "0.01")
    assert {"work": "stopped", "note": "the time was up"} in record["rows"]


@pytest.fixture
def cases(monkeypatch):
    """benchmarks/pi0_gpu/cases.py, which is found from a script beside it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import pi0_gpu.cases

    return pi0_gpu.cases


def test_flops_are_those_of_every_product_and_attention(cases):
    """The tiny model, on 12 patches of 3 cameras, 24 prompt tokens, a state and 50 actions."""
    vision_block = 2 * 12 * (4 * 32 * 32 + 2 * 32 * 64) + 3 * 4 * (4 * 4) * 32
    vision = 2 * 12 * (3 * 14 * 14) * 32 + 2 * vision_block + 2 * 12 * 32 * 64
    keys_values = 2 * 36 * 2 * 64 * 16
    block = keys_values + 2 * 36 * (2 * 64 * 128 + 3 * 64 * 128) + 4 * 36 * 36 * 128
    language = 2 * block + keys_values  # the last of three blocks makes keys and values only
    heads = 2 * 32 * 32 + 2 * 50 * (32 * 32 + 64 * 32 + 32 * 32 + 32 * 32)
    expert_block = 2 * 51 * (2 * 32 * 128 + 2 * 32 * 16 + 3 * 32 * 64) + 4 * 51 * (36 + 51) * 128
    found = cases.forward_flops(cases.pi0_of_size(tiny=True))
    assert found == {"backbone": vision + language, "expert": heads + 3 * expert_block}


def test_what_learns_counts_three_times_and_what_is_frozen_once(cases):
    config = cases.pi0_of_size(tiny=True)
    forward = cases.forward_flops(config)
    both = 3 * (forward["backbone"] + forward["expert"])
    assert cases.training_flops(config, frozen_backbone=False) == both
    saved = 2 * forward["backbone"]
    assert cases.training_flops(config, frozen_backbone=True) == both - saved
