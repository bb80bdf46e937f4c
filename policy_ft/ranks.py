"""What the first of a run's processes finds, told to all of them."""

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import distributed

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
