"""Published weights for the parts of a new policy: a language model and a vision tower.

A policy from a robot checkpoint is loaded whole (native.py). These two loaders are for a policy
composed anew from a transformers language model and a timm vision tower on the local disk.
"""

from pathlib import Path

from policy_ft.checkpoints.tensor_files import WEIGHTS_FILE, tensor_files
from policy_ft.checkpoints.weights import read_weights
from policy_ft.config.model import DecoderConfig
from policy_ft.errors import UserError, describe, raise_faults, read_json
from policy_ft.formats.published import CONFIG_FILE
from policy_ft.models.backbones.decoder import Decoder, decoder_config_from_transformers
from policy_ft.models.backbones.timm_tower import TimmTower
from policy_ft.models.torchvision_guard import ensure_torchvision_imports
from policy_ft.policy import LoadReport


def load_language(decoder: Decoder, directory: str | Path) -> LoadReport:
    """Fill a decoder from a transformers checkpoint directory, tensor by name.

    The output head is dropped, and so are the blocks beyond the decoder's depth: taking the first
    blocks of a deeper model is how SmolVLA halves its backbone.

    Args:
        decoder: whose settings must be the checkpoint's, but for a smaller depth.
        directory: holds config.json and model.safetensors, or its shards with their index.

    Raises:
        UserError: another family, other sizes, or a tensor that is missing or does not fit.
    """
    directory = Path(directory)
    raise_faults(_size_faults(decoder.config, _published_config(directory), directory))
    depth = decoder.config.depth

    def rename(name: str) -> str | None:
        inner = name.removeprefix("model.")
        parts = inner.split(".")
        is_cut = parts[0] == "layers" and int(parts[1]) >= depth
        return None if inner == "lm_head.weight" or is_cut else inner

    return read_weights(tensor_files(directory / WEIGHTS_FILE), decoder, None, rename)


def load_tower(tower: TimmTower, file: str | Path) -> LoadReport:
    """Fill a vision tower from a timm model's safetensors file, tensor by name.

    What the tower was cut off from (later stages, pooling, the classifier) is dropped and listed.

    Args:
        tower: its FiLM layers are not in such a file and stay at the identity they start from.
        file: safetensors with timm's names for the tower's model and arguments.

    Raises:
        UserError: a tensor of the tower is missing from the file or has another shape.
    """
    own = set(tower.body.state_dict())

    def rename(name: str) -> str | None:
        head, _, rest = name.partition(".")
        number, _, tail = rest.partition(".")
        # timm wraps a model (model.blocks.3...) or cuts it up (stages.0... as stages_0...)
        candidates = (name, f"model.{name}", f"{head}_{number}.{tail}")
        return next((candidate for candidate in candidates if candidate in own), None)

    return read_weights([Path(file)], tower.body, None, rename)


def _published_config(directory: Path) -> DecoderConfig:
    """The settings of a checkpoint, its family's defaults filled in by transformers."""
    read_json(directory / CONFIG_FILE)  # its own errors name the file
    ensure_torchvision_imports()
    from transformers import AutoConfig  # takes seconds, and few runs come here

    try:
        published = AutoConfig.from_pretrained(directory, local_files_only=True)
        return decoder_config_from_transformers(published.to_dict())
    except ValueError as error:
        raise UserError(f"{directory}, {error}") from None


def _size_faults(wanted: DecoderConfig, stored: DecoderConfig, directory: Path) -> list[str]:
    faults = []
    for name in DecoderConfig.model_fields:
        ours, theirs = getattr(wanted, name), getattr(stored, name)
        if ours != theirs and not (name == "depth" and ours < theirs):
            remedy = f"Set language.{name} to {theirs!r}."
            where = f"policy.model.language.{name}"
            faults.append(describe(where, repr(ours), f"{theirs!r}, as in {directory}", remedy))
    return faults
