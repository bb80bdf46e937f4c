"""Tensors of which each process of a run holds some rows (torch's DTensor), beside whole ones."""

from torch import Tensor
from torch.distributed.tensor import DTensor


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
