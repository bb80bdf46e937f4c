"""What a run of some settings needs of a device's memory, before there is a device or a file."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from policy_ft.assemble.methods import build_methods
from policy_ft.assemble.trainers import build_plan
from policy_ft.checkpoints.image_sizes import resized_config
from policy_ft.checkpoints.native import read_parts
from policy_ft.config.model import ModelConfig
from policy_ft.config.run import RunConfig
from policy_ft.config.starting_policy import NewPolicy
from policy_ft.errors import UserError, describe
from policy_ft.formats.full_sizes import FULL_SIZES
from policy_ft.formats.load import read_published
from policy_ft.formats.locating import locate
from policy_ft.objectives.flow import Flow
from policy_ft.tuning.memory import MemoryPlan, StepShape, largest_micro_batch, plan_memory

_NAMES = {"pi05": "pi05", "pi0.5": "pi05", "pi0": "pi0", "smolvla": "smolvla"}
"""What a checkpoint's path may hold -> the family that it then is of; the first that fits."""

GB = 1e9


@dataclass(frozen=True)
class RunMemory:
    """The memory of one process of a run.

    Attributes:
        config: the run's settings.
        sizes: of its model.
        notes: what had to be assumed.
        num_processes: that share the batch, and with training.shard everything that stands.
        on_cpu: whether the run is on a CPU, where `precision: auto` may be float32.
    """

    config: RunConfig
    sizes: ModelConfig
    notes: tuple[str, ...] = ()
    num_processes: int = 1
    on_cpu: bool = False
    _found: dict[int, MemoryPlan] = field(default_factory=dict, repr=False, compare=False)

    @property
    def micro_batch(self) -> int:
        """Samples of one micro-batch in one process, at least 1."""
        training = self.config.training
        return max(training.batch_size // (training.accumulation_steps * self.num_processes), 1)

    @property
    def plan(self) -> MemoryPlan:
        """With the settings' own micro-batch."""
        return self.at(self.micro_batch)

    def at(self, micro_batch: int) -> MemoryPlan:
        """With another micro-batch."""
        if micro_batch not in self._found:
            self._found[micro_batch] = self._planned(micro_batch)
        return self._found[micro_batch]

    def largest_micro_batch(self, budget_gb: float) -> int:
        """The most samples that fit in so many 10^9 bytes; 0 where not even one does."""
        return largest_micro_batch(self.at, budget_gb * GB)

    def _planned(self, micro_batch: int) -> MemoryPlan:
        config, training = self.config, self.config.training
        objectives = build_methods(config).objectives
        is_low = training.precision == "bf16" or (training.precision == "auto" and not self.on_cpu)
        shape = StepShape(
            # the others run the model again, or read its weights: their own passes are not planned
            objectives=tuple(each for each in objectives if isinstance(each, Flow)),
            autocast_dtype=torch.bfloat16 if is_low else None,
            noise_draws=training.noise_draws,
            checkpointed=training.activation_checkpointing,
            accumulates=training.accumulation_steps > 1,
            average_bytes=0 if config.tuning.ema == "off" else 4,
            keeps_start=any(not isinstance(each, Flow) for each in objectives),
            num_shards=self.num_processes if training.shard else 1,
        )
        return plan_memory(
            self.sizes, lambda model: build_plan(config, model, objectives), shape, micro_batch
        )


def memory_of(config: RunConfig, *, num_processes: int = 1, on_cpu: bool = False) -> RunMemory:
    """What the run needs; reads headers of a checkpoint that is there, and no weights.

    Args:
        config: the run's settings.
        num_processes: of the run.
        on_cpu: whether to plan for a CPU.

    Raises:
        UserError: the checkpoint is not there and its path says no published family.
    """
    policy, notes = config.policy, tuple[str, ...]()
    if isinstance(policy, NewPolicy):
        return RunMemory(config, policy.model, (), num_processes, on_cpu)
    if Path(policy.path).exists():
        sizes = _sizes_of(policy.path)
    else:
        family = next((f for name, f in _NAMES.items() if name in policy.path.lower()), None)
        if family is None:
            expected = f"a checkpoint that is there, or a path that holds one of {list(_NAMES)}"
            remedy = "Correct the path, or download the checkpoint."
            raise UserError(describe("policy.path", repr(policy.path), expected, remedy))
        sizes = FULL_SIZES[family]
        notes = (f"{policy.path} is not here: planned with the published sizes of {family}",)
    sizes = resized_config(sizes, policy.resize)
    sizes = sizes.model_copy(update={"edits": (*sizes.edits, *policy.edits)})
    return RunMemory(config, sizes, notes, num_processes, on_cpu)


def _sizes_of(path: str) -> ModelConfig:
    located = locate(path)
    if located.format == "native":
        return read_parts(located.directory).config
    return read_published(located).config
