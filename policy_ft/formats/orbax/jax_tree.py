"""The leaves of openpi's JAX parameter trees, and the PyTorch tensors that each of them holds.

Source of the layouts: openpi, src/openpi/models/{gemma,siglip,pi0}.py, and for the PyTorch names
examples/convert_jax_model_to_pytorch.py. That program folds the language model's output projection
into (heads x head, width), which is right only where both are equal; here it is (width, heads x
head) for any width.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from policy_ft.formats.tensor_names import EXPERT, PALIGEMMA, PI_HEADS, PiFamily

LORA_MARK = "lora_"
"""In the last part of the path of every low-rank matrix."""

_VISION = f"{PALIGEMMA}model.vision_tower.vision_model."
_EXPERT = f"{EXPERT}model."


@dataclass(frozen=True)
class Leaf:
    """One array of the tree.

    Attributes:
        path: of the leaf, below `params`.
        pattern: einops; the axes of one tensor as they are stored, and as PyTorch has them.
        names: of the tensors, with {layer} for those of all layers. Of several, the leaf holds one
            beside the other on the axis after the layer's.
    """

    path: str
    pattern: str
    names: tuple[str, ...]

    @property
    def is_stacked(self) -> bool:
        """Whether the first axis is that of layers."""
        return "{layer}" in self.names[0]

    @property
    def axes(self) -> tuple[str, ...]:
        """What each axis of the leaf is, e.g. ('layer', '2 parts', 'width', 'hidden')."""
        layer = ("layer",) if self.is_stacked else ()
        parts = (f"{len(self.names)} parts",) if len(self.names) > 1 else ()
        return (*layer, *parts, *self._part_axes)

    @property
    def _part_axes(self) -> list[str]:
        return self.pattern.split(" -> ")[0].split()

    @property
    def stack(self) -> str:
        """How the names begin that share the layers with this leaf's."""
        return self.names[0].partition("{layer}")[0]

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape can be the leaf."""
        has_axes = len(shape) == len(self.axes) and all(shape)
        return has_axes and len(self.names) in (1, shape[self.is_stacked])

    def part_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of each tensor in a leaf of this shape."""
        stored = shape[len(self.axes) - len(self._part_axes) :]
        return tuple(self.arrange(torch.empty(tuple(stored), device="meta")).shape)

    def parts(self, num_layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name of each tensor, and the index at which it lies in the leaf, in order of storage."""
        for layer in range(num_layers) if self.is_stacked else (None,):
            for part, name in enumerate(self.names):
                index = (part,) if len(self.names) > 1 else ()
                yield name.format(layer=layer), index if layer is None else (layer, *index)

    def arrange(self, stored: Tensor) -> Tensor:
        """One tensor with the axes that PyTorch has, a view where that is possible."""
        return rearrange(stored, self.pattern)


def family_of(paths: Iterable[str]) -> PiFamily:
    """pi0.5 where the tree has its time layers or adaptive norms, else pi0."""
    marks = ("time_mlp_in/", "PaliGemma/llm/final_norm_1/Dense_0/")
    return "pi05" if any(path.startswith(marks) for path in paths) else "pi0"


def leaves(family: PiFamily) -> dict[str, Leaf]:
    """Path -> leaf of a whole tree."""
    embedding = f"{PALIGEMMA}lm_head.weight"
    tree = [
        *_siglip("PaliGemma/img/"),
        *_linear("PaliGemma/img/head", f"{PALIGEMMA}model.multi_modal_projector.linear"),
        _same("PaliGemma/llm/embedder/input_embedding", "token width", embedding),
        *_gemma("", f"{PALIGEMMA}model.language_model.", is_adaptive=False),
        *_gemma("_1", _EXPERT, is_adaptive=family == "pi05"),
        *(leaf for name in PI_HEADS[family] for leaf in _linear(name, name)),
    ]
    return {leaf.path: leaf for leaf in tree}


def _same(path: str, axes: str, name: str) -> Leaf:
    return Leaf(path, f"{axes} -> {axes}", (name,))


def _linear(path: str, name: str) -> tuple[Leaf, Leaf]:
    return (
        Leaf(f"{path}/kernel", "input output -> output input", (f"{name}.weight",)),
        _same(f"{path}/bias", "output", f"{name}.bias"),
    )


def _layer_norm(path: str, name: str) -> tuple[Leaf, Leaf]:
    return (
        _same(f"{path}/scale", "width", f"{name}.weight"),
        _same(f"{path}/bias", "width", f"{name}.bias"),
    )


def _siglip(root: str) -> Iterator[Leaf]:
    block = f"{root}Transformer/encoderblock/"
    layer = f"{_VISION}encoder.layers.{{layer}}."
    patches = f"{_VISION}embeddings.patch_embedding"
    positions = f"{_VISION}embeddings.position_embedding.weight"
    yield Leaf(
        f"{root}embedding/kernel", "y x channel width -> width channel y x", (f"{patches}.weight",)
    )
    yield _same(f"{root}embedding/bias", "width", f"{patches}.bias")
    yield Leaf(f"{root}pos_embedding", "one patch width -> (one patch) width", (positions,))
    for index in (0, 1):
        yield from _layer_norm(f"{block}LayerNorm_{index}", f"{layer}layer_norm{index + 1}")
        yield from _linear(f"{block}MlpBlock_0/Dense_{index}", f"{layer}mlp.fc{index + 1}")
    attention = f"{block}MultiHeadDotProductAttention_0/"
    for part in ("query", "key", "value"):
        name = f"{layer}self_attn.{part[0]}_proj"
        kernel = "width heads head -> (heads head) width"
        yield Leaf(f"{attention}{part}/kernel", kernel, (f"{name}.weight",))
        yield Leaf(f"{attention}{part}/bias", "heads head -> (heads head)", (f"{name}.bias",))
    name = f"{layer}self_attn.out_proj"
    kernel = "heads head width -> width (heads head)"
    yield Leaf(f"{attention}out/kernel", kernel, (f"{name}.weight",))
    yield _same(f"{attention}out/bias", "width", f"{name}.bias")
    yield from _layer_norm(f"{root}Transformer/encoder_norm", f"{_VISION}post_layernorm")


def _rms_norm(path: str, name: str, is_adaptive: bool) -> tuple[Leaf, ...]:
    if is_adaptive:
        return _linear(f"{path}/Dense_0", f"{name}.dense")
    return (_same(f"{path}/scale", "width", f"{name}.weight"),)


def _gemma(suffix: str, name: str, is_adaptive: bool) -> Iterator[Leaf]:
    """One of the two towers, which flax tells apart by the suffix."""
    root = "PaliGemma/llm/layers/"
    layer = f"{name}layers.{{layer}}."
    into_heads = "heads width head -> (heads head) width"
    query, key, value, out = (f"{layer}self_attn.{letter}_proj.weight" for letter in "qkvo")
    gate, up, down = (f"{layer}mlp.{part}_proj.weight" for part in ("gate", "up", "down"))
    attention, mlp = f"{root}attn/", f"{root}mlp{suffix}/"
    yield Leaf(f"{mlp}gating_einsum", "width hidden -> hidden width", (gate, up))
    yield Leaf(f"{mlp}linear", "hidden width -> width hidden", (down,))
    yield Leaf(f"{attention}q_einsum{suffix}/w", into_heads, (query,))
    yield Leaf(f"{attention}kv_einsum{suffix}/w", into_heads, (key, value))
    yield Leaf(
        f"{attention}attn_vec_einsum{suffix}/w", "heads head width -> width (heads head)", (out,)
    )
    for flax, torch_name in (
        (f"{root}pre_attention_norm{suffix}", f"{layer}input_layernorm"),
        (f"{root}pre_ffw_norm{suffix}", f"{layer}post_attention_layernorm"),
        (f"PaliGemma/llm/final_norm{suffix}", f"{name}norm"),
    ):
        yield from _rms_norm(flax, torch_name, is_adaptive)
