"""Processes that share a run: what one finds out for all, and what each holds of a tensor."""

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from policy_ft.errors import UserError

T = TypeVar("T")


def of_first_rank(make: Callable[[], T]) -> T:
    """What `make` returns on the first process, on every process; on a single one it is called.

    For what takes minutes or reads a whole disk and is the same for all. Every process must call
    it, in the same order. Its result goes from process to process pickled; the first has its own.

    Args:
        make: called on the first process only.

    Raises:
        UserError: what `make` raises on the first process, on every process. Anything else ends the
            first, and with it the launch.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return make()
    told: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            told = [make()]
        except UserError as error:
            told = [error]
    mine = told[0]
    broadcast_object_list(told)
    found = mine if PartialState().is_main_process else told[0]
    if isinstance(found, UserError):
        raise found
    return found


def is_sharded(tensor: Tensor) -> bool:
    """Whether other processes hold some of it."""
    return isinstance(tensor, DTensor)


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, in the tensor's own memory; all of one that is whole."""
    detached = tensor.detach()
    return detached.to_local() if isinstance(detached, DTensor) else detached


def own_rows(tensor: Tensor) -> slice:
    """Which rows `own_part` has: the first process the first, each as many as the one before it.

    Example: of 5 rows, three processes hold 0 to 2, 2 to 4 and 4 to 5; of one row the first all.

    Args:
        tensor: of at least one dimension.
    """
    num_rows = tensor.shape[0]
    if not isinstance(tensor, DTensor):
        return slice(0, num_rows)
    length = -(-num_rows // tensor.device_mesh.size())
    start = min(tensor.device_mesh.get_local_rank() * length, num_rows)
    return slice(start, min(start + length, num_rows))


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every process; each must call this, for the same tensors in one order."""
    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached
