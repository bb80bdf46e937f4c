"""Models of which each process holds a part (FSDP2), and what may not be asked of them."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from policy_ft.config.training import TrainingConfig
from policy_ft.errors import describe, raise_faults
from policy_ft.models.objective import Objective
from policy_ft.models.vla import VLAModel
from policy_ft.training.hooks import Hook
from policy_ft.tuning.plan import TuningPlan
from policy_ft.tuning.precision import is_quantized


def shard(model: VLAModel, accelerator: Accelerator) -> None:
    """Leaves each process its rows of every parameter, on its device; changes the model in place.

    A block's parameters are whole while it computes, forward and backward, and what belongs to no
    block while any does. Quantized weights, single numbers and buffers stay whole everywhere. The
    parameters are new objects afterwards: optimizer and hooks are made of these. Source: Zhao et
    al. 2023 (PyTorch FSDP), in torch's second form.
    """
    # no block's output is changed in place, which alone would matter
    warnings.filterwarnings("ignore", r"FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    kept = {each for each in model.parameters() if is_quantized(each) or each.ndim == 0}
    for module in (*model.blocks, model):
        # the whole model's own part, too, is let go of after the forward pass: else weights that
        # are read between two steps would be now whole, now in parts
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=kept)
    register_fsdp_forward_method(model, "sample_actions")
    model.to(accelerator.device)


def wrapped(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """The model as training calls it: gradients are those of all processes' samples."""
    return model if isinstance(model, FSDPModule) else accelerator.prepare(model)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Whole weights in every process inside the block, so that each may compute by itself.

    Processes measure unequal numbers of windows and episodes. A sharded model computes only where
    all call it together: each would wait for those that have nothing left. Every process must enter
    and leave; weights changed inside are lost.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def sharding_notes(training: TrainingConfig, num_processes: int) -> Iterator[str]:
    """What a person should know of a sharded run."""
    if training.shard and num_processes == 1:
        yield (
            "training.shard: without effect in one process, which holds everything; launch several "
            "(docs/many-gpus.md)"
        )


def require_shardable(
    training: TrainingConfig,
    model: nn.Module,
    plan: TuningPlan,
    methods: Sequence[Hook | Objective],
) -> None:
    """UserError for all that a run asks for and a sharded one cannot do.

    Args:
        training: the settings.
        model: not sharded yet.
        plan: of the run.
        methods: its objectives and hooks.
    """
    if training.shard:
        raise_faults(_faults(training, model, plan, methods))


def _faults(
    training: TrainingConfig,
    model: nn.Module,
    plan: TuningPlan,
    methods: Sequence[Hook | Objective],
) -> Iterator[str]:
    remedy = "Set one of the two off."
    if training.feature_cache_gb:
        yield describe(
            "training.feature_cache_gb",
            f"{training.feature_cache_gb:g} with training.shard true",
            "0: processes meet new windows in unequal numbers, and would wait for one another's "
            "part of the backbone",
            remedy,
        )
    for method in methods:
        if not method.works_on_shards:
            yield describe(
                f"method {method.name!r}",
                "training.shard true, where it does not say that it works on parts of weights",
                "works_on_shards true in its class",
                "Leave it out or set training.shard to false; a method of your own says so once a "
                "test has shown it.",
            )
    parameters = dict(model.named_parameters())
    scalars = [name for name in plan.trained if parameters[name].ndim == 0]
    if scalars:
        yield describe(
            "training.shard",
            f"true with {len(scalars)} parameters that are single numbers, e.g. {scalars[0]!r}",
            "parameters of at least one dimension, whose rows processes share",
            "Freeze them in tuning.groups, or set training.shard to false.",
        )
