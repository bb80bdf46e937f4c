"""Small tensor files as JSON and back, bit for bit."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, Field, RootModel, StrictInt, ValidationError

from policy_ft.errors import UserError, describe, validation_faults

TensorDocument = dict[str, dict[str, Any]]
"""Name -> {"dtype": ..., "shape": [...], "values": [...]}."""

_FLOATS: Final = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_INTEGERS: Final = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_DTYPES: Final = {str(dtype).removeprefix("torch."): dtype for dtype in (*_FLOATS, *_INTEGERS)}


class TensorRecord(BaseModel):
    """One tensor of a TensorDocument."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    dtype: str = Field(description="As torch calls it.")
    shape: tuple[StrictInt, ...] = Field(description="Sizes.")
    values: tuple[bool | int | float, ...] = Field(description="All numbers, row by row.")


class TensorRecords(RootModel[dict[str, TensorRecord]]):
    """A TensorDocument."""


def tensor_document(tensors: Mapping[str, torch.Tensor]) -> TensorDocument:
    """Small tensors as JSON, exact: numbers of 32 bits are written as the doubles they equal."""
    return {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "values": tensor.reshape(-1).tolist(),
        }
        for name, tensor in tensors.items()
    }


def tensors_of(document: Any, where: str) -> dict[str, torch.Tensor]:
    """The tensors that `tensor_document` wrote, bit for bit.

    Args:
        document: what it returned, as it came back from a file.
        where: how messages call it.

    Raises:
        UserError: the document is no such thing.
    """
    try:
        records = TensorRecords.model_validate(document).root
        return {
            name: torch.tensor(record.values, dtype=_DTYPES[record.dtype]).reshape(record.shape)
            for name, record in records.items()
        }
    except (ValidationError, KeyError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, ValidationError):
            reason = validation_faults(error, TensorRecords)[0]
        remedy = "Copy the checkpoint again; the document was changed."
        expected = "small tensors: dtype, shape and values of each"
        raise UserError(describe(where, f"none ({reason})", expected, remedy)) from None
