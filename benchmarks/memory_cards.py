"""What fits on which card: the planned memory of pi0, pi0.5 and SmolVLA, tuned in four ways.

Prints one table in Markdown (docs/memory.md) and writes one JSON file. All in bf16 autocast with
float32 masters, checkpointed blocks, three cameras and prompts of the greatest length.

    python benchmarks/memory_cards.py
"""

import argparse
import json
from pathlib import Path

from policy_ft.assemble.memory import GB, memory_of
from policy_ft.commands.plan import CONTEXT_GB
from policy_ft.config.config_file import load_config

CARDS = (12, 24, 48, 80, 141)
POLICIES = {"pi0": "pi0_libero", "pi0.5": "pi05_libero", "SmolVLA": "smolvla_libero"}
VISION = "tuning.groups=[{pattern: vision, frozen: true}]"
BACKBONE = (
    "tuning.groups=[{pattern: vision, frozen: true}, {pattern: projector, frozen: true}, "
    "{pattern: language, frozen: true}]"
)
LORA = (
    "policy.edits=[{kind: lora, target: [language], rank: 32}, "
    "{kind: lora, target: [expert], rank: 64}]"
)
WAYS = {
    "full, with average": ("tuning.groups=[]", "tuning.ema={decay: 0.99}"),
    "full": ("tuning.groups=[]", "tuning.ema=off"),
    "LoRA 32 / 64, vision frozen": (VISION, LORA, "tuning.ema=off"),
    "expert and heads alone": (BACKBONE, "tuning.ema=off"),
}
BATCHES = (1, 4, 16, 64)


def main() -> None:
    """Plan every policy in every way at some micro-batches, and place them on the cards."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("runs/memory_cards.json"))
    options = parser.parse_args()
    found = {}
    heads = "".join(f" {card} GB |" for card in CARDS)
    print(f"| policy | tuned | learn, M | peak at 1, GB |{heads}")
    print("|---|---|---|---|" + "---|" * len(CARDS))
    for policy, recipe in POLICIES.items():
        for way, settings in WAYS.items():
            common = [
                "training.activation_checkpointing=true",
                "training.accumulation_steps=1",
                "training.batch_size=1",
            ]
            config = load_config(f"configs/{recipe}.yaml", [*common, *settings])
            run = memory_of(config)
            peaks = {batch: run.at(batch).peak for batch in BATCHES}
            fits = [largest(peaks, (card - CONTEXT_GB) * GB) for card in CARDS]
            cells = "".join(f" {each or '-'} |" for each in fits)
            learn = run.plan.trainable / 1e6
            print(f"| {policy} | {way} | {learn:,.0f} | {peaks[1] / GB:.1f} |{cells}", flush=True)
            found[f"{policy}, {way}"] = {
                "peaks": peaks,
                "fits": dict(zip(CARDS, fits, strict=True)),
            }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="ascii")
    print(f"wrote {options.output}")


def largest(peaks: dict[int, int], budget: float) -> int:
    """About the largest micro-batch within a budget: lines between the planned ones, and on."""
    batches = sorted(peaks)
    if peaks[batches[0]] > budget:
        return 0
    fitting = max(batch for batch in batches if peaks[batch] <= budget)
    place = min(batches.index(fitting), len(batches) - 2)
    low, high = batches[place], batches[place + 1]
    slope = (peaks[high] - peaks[low]) / (high - low)
    return int(low + (budget - peaks[low]) / slope)


if __name__ == "__main__":
    main()
