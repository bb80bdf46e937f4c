"""What a run needs of a device's memory, found without the device: tensors of no data are counted.

The real model is built and trained for one step on fake tensors, which have shapes and types but no
numbers, and every storage that comes and goes is counted. So what checkpointing, freezing,
adapters and autocast save is counted as it happens, not estimated.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from policy_ft.config.model import ModelConfig
from policy_ft.models.batch import Batch
from policy_ft.models.build import build_model
from policy_ft.models.inputs import ModelInput
from policy_ft.models.objective import Objective
from policy_ft.models.vla import VLAModel
from policy_ft.tuning.plan import TuningPlan

PARTS = ("vision", "language", "expert", "rest")


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are made inside the block, as they come and go.

    Args:
        standing: tensors that were there before; their views are no new bytes.

    Attributes:
        now: bytes alive.
        peak: most bytes that were alive at once.
        part: what is computed at the moment.
    """

    def __init__(self, standing: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._standing = {id(storage): storage for storage in map(_storage, standing)}
        self.now = self.peak = 0
        self.part = "rest"
        self._alive: dict[int, tuple[weakref.ref[Any], str, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return made

    def of_parts(self) -> Counter[str]:
        """Part -> bytes alive that were made in it."""
        found = Counter(dict.fromkeys(PARTS, 0))
        for _, part, num_bytes in self._alive.values():
            found[part] += num_bytes
        return found

    def _count(self, tensor: Tensor) -> None:
        storage = _storage(tensor)
        key, num_bytes = id(storage), storage.nbytes()
        known = self._alive.get(key)
        if key in self._standing or (known is not None and known[0]() is storage):
            return

        def gone(_: Any) -> None:
            self.now -= num_bytes
            self._alive.pop(key, None)

        self._alive[key] = (weakref.ref(storage, gone), self.part, num_bytes)
        self.now += num_bytes
        self.peak = max(self.peak, self.now)


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one process; of the phase that needs most.

    Attributes:
        parameters: of the model.
        trainable: of them, those that learn in any phase.
        weights: bytes of the parameters and buffers.
        gradients: of the parameters that learn in the phase.
        optimizer: the moments of all that ever learn.
        average: the running average.
        start: the weights that a run began with, where an objective keeps them.
        working: most bytes alive in a step beside those above: activations, gradients so far,
            casts of weights and temporaries, at `micro_batch`.
        activations: part -> bytes that the forward pass keeps for the backward pass.
        micro_batch: samples.
    """

    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    start: int
    working: int
    activations: dict[str, int]
    micro_batch: int

    @property
    def beside_gradients(self) -> int:
        """Bytes of `working` that are no gradients: mostly activations."""
        return max(self.working - self.gradients, 0)

    @property
    def standing(self) -> int:
        """Bytes that are there all the time."""
        return self.weights + self.optimizer + self.average + self.start

    @property
    def peak(self) -> int:
        """Most bytes alive at once."""
        return self.standing + self.working


@dataclass(frozen=True)
class StepShape:
    """What decides a step's memory beside the model and the plan.

    Attributes:
        objectives: that the step minimises.
        autocast_dtype: of the computation; None for float32.
        noise_draws: k.
        checkpointed: whether blocks keep only their inputs.
        accumulates: whether gradients of an earlier micro-batch are there.
        average_bytes: of each value that learns; 0 without an average.
        keeps_start: whether the weights of the beginning are kept.
        num_shards: processes that share everything that stands.
    """

    objectives: Sequence[Objective]
    autocast_dtype: torch.dtype | None
    noise_draws: int = 1
    checkpointed: bool = False
    accumulates: bool = False
    average_bytes: int = 4
    keeps_start: bool = False
    num_shards: int = 1


def plan_memory(
    sizes: ModelConfig,
    plan_of: Callable[[VLAModel], TuningPlan],
    shape: StepShape,
    micro_batch: int,
) -> MemoryPlan:
    """The memory of a training step, of the phase that needs most.

    Within 10 % of what a CPU measures of models above 1 GB (benchmarks/memory_plan.py). Not counted
    are a CUDA context, fragmentation, buckets of distributed training, and passes of objectives
    that run the model again.

    Args:
        sizes: of the model, edits among them.
        plan_of: the tuning plan of a model.
        shape: of the step.
        micro_batch: samples of one micro-batch.
    """
    with torch.device("meta"):
        model = build_model(sizes)
    with FakeTensorMode():
        _give_fake_tensors(model)
        plan = plan_of(model)
        values = {name: p.numel() for name, p in model.named_parameters()}
        trainable = sum(values[name] for name in plan.trained)
        stored = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
        shards = shape.num_shards
        found = []
        for phase in plan.of_phases:
            phase.apply(model)
            gradients = 4 * sum(values[name] for name in phase.trained)
            batch = partial(example_batch, sizes, micro_batch, shape.noise_draws)
            working, parts = _step(model, shape, batch, gradients)
            found.append(
                MemoryPlan(
                    parameters=sum(values.values()),
                    trainable=trainable,
                    weights=stored // shards,
                    gradients=gradients // shards,
                    optimizer=8 * trainable // shards,
                    average=shape.average_bytes * trainable // shards,
                    start=stored if shape.keeps_start else 0,
                    working=working - (gradients - gradients // shards if shards > 1 else 0),
                    activations=parts,
                    micro_batch=micro_batch,
                )
            )
    return max(found, key=lambda each: each.peak)


def _give_fake_tensors(model: nn.Module) -> None:
    """Tensors of a CPU without numbers in place of those without a device; peft makes no others."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(empty) if is_parameter else empty
                held[name] = made[id(tensor)]  # type: ignore[assignment]


def largest_micro_batch(
    plan_at: Callable[[int], MemoryPlan], budget: float, most: int = 4096
) -> int:
    """The most samples of a micro-batch with which the peak stays within a budget; 0 if none do.

    Args:
        plan_at: the plan of a micro-batch.
        budget: bytes.
        most: what is not asked beyond.
    """
    low, high = 0, 1
    while high <= most and plan_at(high).peak <= budget:
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if plan_at(middle).peak <= budget:
            low = middle
        else:
            high = middle
    return low


def _step(
    model: VLAModel, shape: StepShape, make_batch: Callable[[], Batch], gradients: int
) -> tuple[int, dict[str, int]]:
    """Most bytes alive in a step beside what stands, and what its forward pass keeps, by part."""
    model.checkpoint_activations(shape.checkpointed)
    live = LiveBytes((*model.parameters(), *model.buffers()))
    with live, _told_parts(model, live):
        batch = make_batch()
        loss = step_loss(model, shape, batch)
        parts = live.of_parts()
        loss.backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        parameter.grad = None
    # gradients of an earlier micro-batch are there from the beginning, and none is made anew
    working = live.peak + gradients if shape.accumulates else max(live.peak, gradients)
    return working, dict(parts)


def step_loss(model: VLAModel, shape: StepShape, batch: Batch) -> Tensor:
    """The loss of a micro-batch on a CPU, whose backward pass frees what the forward pass kept."""
    dtype = shape.autocast_dtype
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        terms = model(batch, shape.objectives)
    return torch.stack([term.values.float().sum() * term.weight for term in terms.values()]).sum()


def example_batch(config: ModelConfig, num_samples: int, noise_draws: int) -> Batch:
    """Samples that fill every camera slot, with prompts of the greatest length."""
    chunk = (config.action_horizon, config.action_dim)
    images = (num_samples, config.num_cameras, 3, config.image_height, config.image_width)
    inputs = ModelInput(
        images=torch.zeros(images),
        image_mask=torch.ones(images[:2], dtype=torch.bool),
        prompt_tokens=torch.ones(num_samples, config.max_prompt_tokens, dtype=torch.int64),
        prompt_mask=torch.ones(num_samples, config.max_prompt_tokens, dtype=torch.bool),
        state=torch.zeros(num_samples, config.state_dim),
        camera_slots=tuple(range(config.num_cameras)),
    )
    return Batch(
        inputs=inputs,
        actions=torch.zeros(num_samples, *chunk),
        valid=torch.ones(num_samples, 1, *chunk, dtype=torch.bool),
        noise=torch.zeros(num_samples, noise_draws, *chunk),
        time=torch.full((num_samples, noise_draws), 0.5),
        sample_id=torch.arange(num_samples),
        epoch=torch.zeros(num_samples, dtype=torch.int64),
    )


@contextmanager
def _told_parts(model: VLAModel, live: LiveBytes) -> Iterator[None]:
    """Inside, `live.part` is the part whose block runs."""
    vision = model.backbone.vision
    blocks: list[tuple[str, nn.Module]] = [
        *(("vision", module) for module in (() if vision is None else vision.blocks)),
        *(("language", module) for module in model.backbone.language.layers),
        *(("expert", module) for module in model.expert.layers),
    ]
    handles = []
    for part, module in blocks:

        def enter(_module: nn.Module, _args: Any, part: str = part) -> None:
            live.part = part

        def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
            live.part = "rest"

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    yield
    for handle in handles:
        handle.remove()
