"""What a cache of frozen features saves: CPU seconds of a train step with and without it.

Runs the whole training loop on demonstrations of the embedded tabletop, for the shipped base and
for a small model of SmolVLA's shape with random weights, with a frozen vision tower and with a
frozen backbone. Prints one table and writes one JSON file.

    python benchmarks/feature_cache.py
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from cpu_clock import CpuClock
from rich.console import Console
from rich.table import Table

from data_tools.episode import Dataset
from policy_ft import assemble
from policy_ft.config.config_file import load_config
from policy_ft.config.model import (
    ConnectorConfig,
    DecoderConfig,
    ExpertConfig,
    ModelConfig,
    SiglipVisionConfig,
)
from policy_ft.config.run import RunConfig
from policy_ft.data import opening
from policy_ft.data.fitting import fit_transforms
from policy_ft.models.build import build_model
from policy_ft.policy import Policy
from policy_ft.transforms import ModelShape

RECIPE = Path("configs/quickstart.yaml")
BATCH_SIZE = 32
FROZEN = {
    "tower": ["vision", "projector", "language.embed"],
    "backbone": ["vision", "projector", "language", "heads.state_in"],
}


def smolvla_shaped(policy: Policy) -> ModelConfig:
    """SmolVLA at a quarter of its widths and half its depth, for another policy's robot."""
    own = policy.config
    return ModelConfig(
        image_height=128,
        image_width=128,
        num_cameras=own.num_cameras,
        max_prompt_tokens=own.max_prompt_tokens,
        state_dim=own.state_dim,
        action_dim=own.action_dim,
        action_horizon=own.action_horizon,
        vision=SiglipVisionConfig(
            kind="siglip", patch_size=16, width=192, depth=6, num_heads=3, mlp_width=768
        ),
        connector=ConnectorConfig(
            pixel_shuffle=2, bias=False, slot_positions=False, scale_tokens=True
        ),
        language=DecoderConfig(
            family="llama",
            vocab_size=own.language.vocab_size,
            width=240,
            depth=8,
            mlp_width=640,
            num_heads=15,
            num_kv_heads=5,
            head_dim=16,
        ),
        expert=ExpertConfig(
            width=180,
            mlp_width=512,
            time="concat",
            state_token="prefix",
            self_attention_every=2,
            causal=True,
        ),
    )


def policies(config: RunConfig, episodes: Dataset, name: str) -> Policy:
    """The shipped base, or a new small SmolVLA with the base's tokenizer."""
    base = assemble.build_policy(config, episodes)
    if name == "base":
        return base
    model = smolvla_shaped(base)
    transforms = fit_transforms(
        base.transforms.config.model_copy(update={"resize": "pil_bilinear_center_pad"}),
        episodes,
        range(len(episodes)),
        shape=ModelShape.of(model),
        tokenizer_json=base.transforms.tokenizer_json,
    )
    return Policy(build_model(model), transforms, model)


def measure(name: str, frozen: str, cache_gb: float, options: argparse.Namespace) -> dict[str, Any]:
    """Losses, and CPU seconds of a step in the first epoch and after it."""
    rules = [
        {"pattern": pattern, "frozen": True}
        for pattern in FROZEN[frozen]
        if name == "smolvla" or pattern != "heads.state_in"
    ]
    settings = {
        "output_dir": options.output / f"{name}_{frozen}_{cache_gb:g}",
        "data.path": "data/feature_cache.hdf5",
        "data.collect.num_episodes": 12,
        "tuning.groups": json.dumps(rules),
        "training.steps": options.steps,
        "training.batch_size": BATCH_SIZE,
        "training.feature_cache_gb": cache_gb,
        "training.precision": "fp32",
        "training.log_every": 1,
        "validation.every": options.steps,
        "validation.num_windows": 8,
    }
    config = load_config(RECIPE, [f"{key}={value}" for key, value in settings.items()])
    episodes = opening.open_or_collect(config.data)
    policy, clock = policies(config, episodes, name), CpuClock()
    rows = assemble.build_trainer(config, policy, episodes, hooks=[clock]).run().records
    steps = [row for row in rows if row["kind"] == "train"]
    hits = [row.get("feature_cache_hits", 0.0) for row in steps]
    epoch = hits.index(1.0) if 1.0 in hits else options.steps // 2
    return {
        "losses": [row["loss"] for row in steps],
        "first_epoch_s": clock.step_s(2, epoch),
        "later_s": clock.step_s(epoch + 1),
        "epoch_steps": epoch,
    }


def main() -> None:
    """Measure with and without, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40, help="more than an epoch's")
    parser.add_argument("--output", type=Path, default=Path("runs/feature_cache"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, table = (
        [],
        Table(
            "model",
            "frozen",
            "s a step",
            "first epoch, cache",
            "later, cache",
            "faster",
            "loss differs",
        ),
    )
    for name in ("base", "smolvla"):
        for frozen in FROZEN:
            plain, cached = (measure(name, frozen, gb, options) for gb in (0.0, 4.0))
            difference = max(
                abs(a - b) / a for a, b in zip(plain["losses"], cached["losses"], strict=True)
            )
            found.append({"model": name, "frozen": frozen, "plain": plain, "cached": cached})
            table.add_row(
                name,
                frozen,
                f"{plain['later_s']:.3f}",
                f"{cached['first_epoch_s']:.3f}",
                f"{cached['later_s']:.3f}",
                f"{plain['later_s'] / cached['later_s']:.2f}x",
                f"{difference:.1e}",
            )
    Console(width=120).print(table)
    path = options.output / "result.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="ascii")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
