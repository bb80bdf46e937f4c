"""Names of parameters: the leaf group each belongs to, and patterns over both."""

from fnmatch import fnmatchcase

BASE = "base_layer."
"""What peft puts into the name of a layer that has an adapter, before its own parameters'."""

ADAPTER = "adapter"
"""The last part of the leaf that holds the adapters of a leaf's layers."""

LORA_A, LORA_B = "lora_A.default.weight", "lora_B.default.weight"
"""What it calls the two halves of an adapter, which other programs know, too."""

MAGNITUDE = "lora_magnitude_vector.default.weight"
"""What it calls the lengths of the rows of a weight whose adapter is a DoRA."""

_ADAPTER_NAME = "default"
"""How peft calls the one adapter of a layer, behind the name of each of its parts."""

_LEAVES = {
    "backbone.projector": "projector",
    "backbone.image_positions": "projector",
    "backbone.language.embed_tokens": "language.embed",
    "backbone.language.norm": "language.norm",
    "backbone.vision.film": "vision.film",
    "expert.norm": "expert.norm",
    "backbone.state_proj": "heads.state_in",
    "expert.state_proj": "heads.state_in",
    "expert.action_in_proj": "heads.action_in",
    "expert.time_mlp_in": "heads.time",
    "expert.time_mlp_out": "heads.time",
    "expert.action_time_mlp_in": "heads.time",
    "expert.action_time_mlp_out": "heads.time",
    "expert.action_out_proj": "heads.action_out",
}


def leaf_of(parameter: str) -> str:
    """The leaf group of a parameter.

    'backbone.language.layers.3.mlp.up_proj.weight' belongs to 'language.layers.3', and with an
    adapter 'backbone.language.layers.3.mlp.up_proj.lora_A.default.weight' to
    'language.layers.3.adapter'.
    """
    if is_of_adapter(parameter):
        parts = parameter.split(".")
        layer = parts[: parts.index(_ADAPTER_NAME) - 1]
        return f"{leaf_of('.'.join(layer))}.{ADAPTER}"
    for start, leaf in _LEAVES.items():
        if parameter == start or parameter.startswith(f"{start}."):
            return leaf
    parts = parameter.removeprefix("backbone.").split(".")
    if parts[0] == "vision" and parts[1] in ("embeddings", "post_layernorm"):
        return ".".join(parts[:2])
    if parts[0] == "vision":
        # encoder.layers.3.... of SigLIP, or a timm tower's own names: body.stem.conv.weight,
        # body.stages_1.blocks.0...., body.blocks.3....
        numbered = len(parts) > 3 and parts[3].isdigit()
        return ".".join(["vision", *parts[2 : 4 if numbered else 3]])
    return ".".join(parts[:3])


def matches(pattern: str, leaf: str, parameter: str) -> bool:
    """Whether a pattern names the leaf group, a group above it, or the parameter itself."""
    parts = leaf.split(".")
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return any(fnmatchcase(name, pattern) for name in [*names, parameter])


def is_of_adapter(name: str) -> bool:
    """Whether a layer or a tensor is part of an adapter."""
    return _ADAPTER_NAME in name.split(".")


def adapted_names(parameter: str, axis: int) -> tuple[str, ...]:
    """Names of what is as long on an axis as a linear layer's parameter, under an adapter of it.

    Args:
        parameter: of the layer without an adapter.
        axis: 0 for the layer's outputs, 1 for its inputs.
    """
    layer, _, last = parameter.rpartition(".")
    return f"{layer}.{BASE}{last}", f"{layer}.{LORA_A if axis else LORA_B}"
