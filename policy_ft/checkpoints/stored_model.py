"""Settings and files -> a model, without the memory and the time of random weights."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from policy_ft.checkpoints.image_sizes import regridded
from policy_ft.checkpoints.tensor_files import TensorFiles, TensorStore
from policy_ft.checkpoints.weights import read_weights
from policy_ft.config.model import ModelConfig, SiglipVisionConfig
from policy_ft.config.resize import ModelResize
from policy_ft.errors import UserError, describe
from policy_ft.models.build import build_model
from policy_ft.models.vla import VLAModel
from policy_ft.policy import LoadReport

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STORED = "stored"


def read_model(
    config: ModelConfig,
    files: Sequence[Path | TensorStore],
    *,
    device: torch.device | str = "cpu",
    dtype: str = "float32",
    init_missing: Sequence[str] = (),
    rename: Callable[[str], str | None] = str,
    stored_name: Callable[[str], str] = str,
    resize: ModelResize | None = None,
    stored: ModelConfig | None = None,
) -> tuple[VLAModel, LoadReport]:
    """A model in evaluation mode whose weights come from files, and what became of each of them.

    Its weights take the memory of their own type once, on the device, and nothing else of their
    size is made. Two cases cost more, for they start from random weights in float32: init_missing,
    and towers from timm, which may hold tensors that no file has.

    Args:
        config: the model's settings, the sizes of `resize` included.
        files: safetensors files and stores that hold the tensors between them.
        device: where the weights go.
        dtype: a name in DTYPES, of all weights but VLAModel.float32_names; or STORED, which keeps
            each tensor's own.
        init_missing: as in `read_weights`.
        rename: as in `read_weights`.
        stored_name: as in `read_weights`.
        resize: as in `read_weights`.
        stored: the settings of the model in the files, where their image size may be another.

    Raises:
        UserError: dtype is another, or whatever `read_weights` refuses.
    """
    if dtype not in (*DTYPES, STORED):
        remedy, expected = "Choose one of these.", f"one of {[*DTYPES, STORED]}"
        raise UserError(describe("dtype", repr(dtype), expected, remedy))
    types = _stored_types(files, rename) if dtype == STORED else {}
    cast = partial(_cast, dtype=DTYPES.get(dtype), types=types)
    regrid = regridded(stored or config, config)
    if isinstance(config.vision, SiglipVisionConfig) and not init_missing:
        model = _without_values(config, cast, device)
    else:
        model = cast(build_model(config)).to(device)
    report = read_weights(
        files,
        model,
        init_missing,
        rename,
        stored_name=stored_name,
        resize=resize,
        regrid=regrid,
    )
    return model.eval(), report


def _without_values(
    config: ModelConfig, cast: Callable[[VLAModel], VLAModel], device: torch.device | str
) -> VLAModel:
    """The model in memory that was never written to: every value is to come from files."""
    with torch.device("meta"):
        model = cast(build_model(config))
    unsaved = {name for name, _ in model.named_buffers()} - set(model.state_dict())
    assert not unsaved, f"no file fills the buffers {unsaved}"
    return model.to_empty(device=device)


def _cast(model: VLAModel, dtype: torch.dtype | None, types: Mapping[str, torch.dtype]) -> VLAModel:
    """The model in another type but for what stays float32 in every model, or in types by name."""
    kept = model.float32_names()
    for name, parameter in model.named_parameters():
        if dtype is None:
            parameter.data = parameter.data.to(types.get(name, parameter.dtype))
        elif name not in kept:
            parameter.data = parameter.data.to(dtype)
    return model


def _stored_types(
    files: Sequence[Path | TensorStore], rename: Callable[[str], str | None]
) -> dict[str, torch.dtype]:
    """Name in the model -> type in the files, of the floating ones."""
    with TensorFiles(files) as stored:
        return {
            live: stored.tensor(name).dtype
            for name, header in stored.headers.items()
            if header.is_floating_point and (live := rename(name)) is not None
        }
