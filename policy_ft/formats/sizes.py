"""The architecture of a published checkpoint, from the shapes of its tensors and its config.json.

What config.json states decides, and must agree with the shapes. What neither says follows the rules
of the published models, each with its source beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any, NamedTuple

from pydantic import ValidationError

from policy_ft.config.model import ModelConfig
from policy_ft.errors import UserError, describe, dotted, raise_faults, validation_faults
from policy_ft.formats.tensor_names import EMBEDDING, PublishedFamily

Shapes = Mapping[str, tuple[int, ...]]
"""Live name -> shape."""

SIGLIP_HEADS = {32: 2, 192: 3, 384: 6, 768: 12, 1024: 16, 1152: 16}
"""Width of a SigLIP tower -> heads. Source: big_vision, models/vit.py, decode_variant."""

SMOLVLM_HEADS = {576: 9, 960: 15, 2048: 32}
"""Width of SmolVLM2's decoder (256M, 500M, 2.2B) -> query heads, all of 64 columns."""

PROMPT_TOKENS: dict[PublishedFamily, int] = {"pi0": 48, "pi05": 200, "smolvla": 48}
"""Source: openpi, models/pi0_config.py; LeRobot, configuration_smolvla.py."""

GEMMA_VARIANTS = {
    "gemma_2b": (2048, 18, 16384),
    "gemma_300m": (1024, 18, 4096),
    "dummy": (64, 4, 128),
}
"""Name of a Gemma -> width, depth, MLP width. Source: openpi, models/gemma.py, get_config."""

_VISION = "backbone.vision."
PATCHES = f"{_VISION}embeddings.patch_embedding.weight"
POSITIONS = f"{_VISION}embeddings.position_embedding.weight"
FC1 = f"{_VISION}encoder.layers.0.mlp.fc1.weight"
PROJECTOR = "backbone.projector.weight"
LANGUAGE_BLOCKS = "backbone.language.layers."
EXPERT_BLOCKS = "expert.layers."
ACTION_IN = "expert.action_in_proj.weight"


class Stated(NamedTuple):
    """A size as config.json gives it, and the key it stands under."""

    key: str
    value: Any


@dataclass
class _Sizes:
    """Picks every size from its sources and collects what is wrong with them."""

    where: str
    shapes: Shapes
    stated: Mapping[str, Stated]
    faults: list[str] = field(default_factory=list)
    assumed: dict[str, str] = field(default_factory=dict)

    def pick(self, name: str, shape: Any = None, default: Any = None) -> Any:
        """The size `name`: as stated, else as the shapes say, else the published models' rule."""
        found = self.stated.get(name)
        if found is not None and shape is not None and found.value != shape:
            self._fault(found.key, repr(found.value), f"{shape!r}, as in the weights")
        if found is not None:
            return found.value
        if shape is None and default is not None:
            self.assumed[name] = f"{name} {default}: not in the checkpoint; as published"
        return default if shape is None else shape

    def stated_or(self, name: str, default: Any) -> Any:
        """A constant that hardly any checkpoint states: all published models share it."""
        found = self.stated.get(name)
        return default if found is None else found.value

    def depth(self, prefix: str) -> int:
        """Number of blocks whose names begin so; names without a number are for others to judge."""
        names = [name for name in self.shapes if name.startswith(prefix)]
        indices = [name.removeprefix(prefix).split(".")[0] for name in names]
        return 1 + max(int(index) for index in indices if index.isdecimal())

    def ask(self, key: str, found: str, expected: str) -> None:
        """Note that the shapes leave a size open that config.json must give."""
        remedy = f"Add the key {key!r} to config.json, with the value the model was made with."
        self.faults.append(describe(self.where, found, expected, remedy))

    def _fault(self, key: str, found: str, expected: str) -> None:
        remedy = "Take config.json and weights from the same checkpoint."
        self.faults.append(describe(f"{self.where}, config.json, {key}", found, expected, remedy))


def model_config(
    family: PublishedFamily, shapes: Shapes, stated: Mapping[str, Stated], where: str
) -> tuple[ModelConfig, dict[str, str]]:
    """The settings that `build_model` makes this checkpoint's model from, and what they rest on.

    Args:
        family: of the checkpoint.
        shapes: of its tensors; those that `require_size_tensors` asks for are among them.
        stated: setting -> what config.json says; `<part>.<setting>` for those of a part, with the
            parts vision, connector, language and expert.
        where: how messages call the checkpoint.

    Returns:
        The settings, and every size that neither shapes nor config.json give and that is therefore
        the published models' own, with what to say of it.

    Raises:
        UserError: config.json and shapes disagree, or a size is in neither; all of them.
    """
    sizes = _Sizes(where, shapes, stated)
    parts = {
        "vision": _vision(sizes),
        "connector": _connector(sizes, family),
        "language": _gemma(sizes) if family != "smolvla" else _llama(sizes),
        "expert": _expert(sizes, family),
    }
    action_dim = sizes.pick("action_dim", shapes[ACTION_IN][1])
    state = shapes.get("backbone.state_proj.weight") or shapes.get("expert.state_proj.weight")
    height, width = _image_size(sizes)
    values = {
        "image_height": height,
        "image_width": width,
        "num_cameras": sizes.stated_or("num_cameras", 3),
        "max_prompt_tokens": sizes.stated_or("max_prompt_tokens", PROMPT_TOKENS[family]),
        "state_dim": (
            sizes.pick("state_dim", state[1]) if state else sizes.stated_or("state_dim", action_dim)
        ),
        "action_dim": action_dim,
        "action_horizon": sizes.pick("action_horizon", default=50),
        "num_sampling_steps": sizes.stated_or("num_sampling_steps", 10),
    }
    sizes.pick("expert.depth", sizes.depth(EXPERT_BLOCKS))
    raise_faults(sizes.faults)
    try:
        return ModelConfig(**values, **parts), sizes.assumed
    except ValidationError as error:
        place = f"{where}, sizes"
        raise UserError(
            validation_faults(error, ModelConfig, lambda path: f"{place}, {dotted(path)}")
        ) from None


def stated_variant(key: str, variant: str | None, part: str) -> dict[str, Stated]:
    """The sizes that a named Gemma states for one part of the model; none for no name.

    Args:
        key: of config.json.
        variant: its value; openpi's low-rank variants have the sizes of what they adapt.
        part: "language" or "expert".

    Raises:
        UserError: an unknown name.
    """
    if variant is None:
        return {}
    sizes = GEMMA_VARIANTS.get(variant.removesuffix("_lora"))
    if sizes is None:
        expected = f"one of {list(GEMMA_VARIANTS)}"
        remedy = "Use a checkpoint of one of these sizes."
        raise UserError(describe(f"config.json, {key}", repr(variant), expected, remedy))
    named = zip(("width", "depth", "mlp_width"), sizes, strict=True)
    return {
        f"{part}.{name}": Stated(f"{key} ({variant}), {name.replace('_', ' ')}", size)
        for name, size in named
    }


def gemma_variants(config: ModelConfig) -> dict[str, str]:
    """The keys that name the sizes of both Gemmas, as far as their sizes have a name."""
    names = {sizes: name for name, sizes in GEMMA_VARIANTS.items()}
    depth = config.language.depth
    wanted = {
        "paligemma_variant": (config.language.width, depth, config.language.mlp_width),
        "action_expert_variant": (config.expert.width, depth, config.expert.mlp_width),
    }
    return {key: names[sizes] for key, sizes in wanted.items() if sizes in names}


def _image_size(sizes: _Sizes) -> tuple[int, int]:
    """Rows and columns of an image: square unless stated, for the shapes give their product."""
    patch, positions = sizes.shapes[PATCHES][2], sizes.shapes[POSITIONS][0]
    side = isqrt(positions) * patch
    height, width = (sizes.stated_or(name, side) for name in ("image_height", "image_width"))
    if height % patch or width % patch or (height // patch) * (width // patch) != positions:
        sizes.faults.append(
            describe(
                f"{sizes.where}, image size",
                f"{height} x {width} pixels with patches of {patch}",
                f"{positions} patches, as {POSITIONS} has rows",
                "Take config.json and weights from the same checkpoint.",
            )
        )
    return height, width


def _vision(sizes: _Sizes) -> dict[str, Any]:
    width = sizes.shapes[PATCHES][0]
    heads = sizes.stated_or("vision.num_heads", SIGLIP_HEADS.get(width))
    if heads is None:
        key = "vlm_config.vision_config.num_attention_heads"
        sizes.ask(key, f"a vision tower of width {width}", "its number of heads")
    return {
        "kind": "siglip",
        "patch_size": sizes.pick("vision.patch_size", sizes.shapes[PATCHES][2]),
        "width": sizes.pick("vision.width", width),
        "depth": sizes.pick("vision.depth", sizes.depth(f"{_VISION}encoder.layers.")),
        "num_heads": heads,
        "mlp_width": sizes.pick("vision.mlp_width", sizes.shapes[FC1][0]),
        "norm_eps": sizes.stated_or("vision.norm_eps", 1e-6),
        "shifted_positions": sizes.stated_or("vision.shifted_positions", False),
    }


def _connector(sizes: _Sizes, family: PublishedFamily) -> dict[str, Any]:
    is_smolvla = family == "smolvla"
    cells = sizes.shapes[PROJECTOR][1] // sizes.shapes[PATCHES][0]
    return {
        "pixel_shuffle": sizes.pick("connector.pixel_shuffle", isqrt(cells)),
        "bias": not is_smolvla,
        "slot_positions": False,
        "scale_tokens": is_smolvla,
    }


def _decoder(sizes: _Sizes) -> dict[str, Any]:
    """What both families of decoders have: everything but the heads."""
    vocab_size, width = sizes.shapes[EMBEDDING]
    return {
        "vocab_size": sizes.pick("language.vocab_size", vocab_size),
        "width": sizes.pick("language.width", width),
        "depth": sizes.pick("language.depth", sizes.depth(LANGUAGE_BLOCKS)),
        "mlp_width": sizes.pick(
            "language.mlp_width", sizes.shapes[f"{LANGUAGE_BLOCKS}0.mlp.gate_proj.weight"][0]
        ),
    }


def _attention_rows(sizes: _Sizes) -> tuple[int, int]:
    """Rows of the language model's query and key projections."""
    rows = [sizes.shapes[f"{LANGUAGE_BLOCKS}0.self_attn.{part}_proj.weight"][0] for part in "qk"]
    return rows[0], rows[1]


def _gemma(sizes: _Sizes) -> dict[str, Any]:
    """Every Gemma of openpi has one key-value head, so the rows of k_proj are one head's columns.

    Source: openpi, models/gemma.py, get_config.
    """
    q_rows, k_rows = _attention_rows(sizes)
    return {
        "family": "gemma",
        **_decoder(sizes),
        "num_heads": sizes.pick("language.num_heads", q_rows // k_rows),
        "num_kv_heads": 1,
        "head_dim": sizes.pick("language.head_dim", k_rows),
        "norm_eps": 1e-6,
    }


def _llama(sizes: _Sizes) -> dict[str, Any]:
    q_rows, k_rows = _attention_rows(sizes)
    width = sizes.shapes[EMBEDDING][1]
    heads = sizes.stated_or("language.num_heads", SMOLVLM_HEADS.get(width))
    if heads is None:
        key = "vlm_config.text_config.num_attention_heads"
        sizes.ask(key, f"a decoder of width {width}", "its number of heads")
        heads = 1
    head_dim = sizes.pick("language.head_dim", q_rows // heads)
    return {
        "family": "llama",
        **_decoder(sizes),
        "num_heads": heads,
        "num_kv_heads": sizes.pick("language.num_kv_heads", k_rows // head_dim),
        "head_dim": head_dim,
        # LeRobot turns by its own table of base 10,000, whatever the language model's config says.
        "rope_theta": 10_000.0,
        "norm_eps": sizes.stated_or("language.norm_eps", 1e-5),
    }


def _expert(sizes: _Sizes, family: PublishedFamily) -> dict[str, Any]:
    width = sizes.shapes[ACTION_IN][0]
    own, language = sizes.depth(EXPERT_BLOCKS), sizes.depth(LANGUAGE_BLOCKS)
    if own != language:
        remedy = "Use a complete checkpoint; an expert of another depth is not implemented."
        found, expected = f"{own} expert blocks", f"{language}, one a language block"
        sizes.faults.append(describe(sizes.where, found, expected, remedy))
    is_smolvla = family == "smolvla"
    return {
        "width": sizes.pick("expert.width", width),
        "mlp_width": sizes.pick(
            "expert.mlp_width", sizes.shapes[f"{EXPERT_BLOCKS}0.mlp.gate_proj.weight"][0]
        ),
        "time": "adaptive_norm" if family == "pi05" else "concat",
        "state_token": {"pi0": "suffix", "pi05": "none", "smolvla": "prefix"}[family],
        "self_attention_every": _self_attention_every(sizes, width) if is_smolvla else 1,
        "causal": is_smolvla,
        "min_period": sizes.stated_or("expert.min_period", 4e-3),
        "max_period": sizes.stated_or("expert.max_period", 4.0),
    }


def _self_attention_every(sizes: _Sizes, width: int) -> int:
    """Blocks from one self-attention to the next: the others project keys as wide as the VLM's.

    A block of which neither the key's nor the value's matrix is there tells nothing, and any number
    that the others bear out may be the right one: what is missing is told by who misses it.
    """
    stated = sizes.stated.get("expert.self_attention_every")
    depth, vlm_width = sizes.depth(EXPERT_BLOCKS), _attention_rows(sizes)[1]
    is_own = {
        index: shape[1] == width
        for index in range(depth)
        for part in "vk"
        if (shape := sizes.shapes.get(f"{EXPERT_BLOCKS}{index}.self_attn.{part}_proj.weight"))
    }

    def fits(every: Any) -> bool:
        return all((index % every == 0) == own for index, own in is_own.items())

    if width == vlm_width or (stated is not None and fits(stated.value)):
        return int(sizes.pick("expert.self_attention_every", default=2))
    told = next(filter(fits, range(1, depth + 1)), None)
    return int(sizes.pick("expert.self_attention_every", told, default=2))
