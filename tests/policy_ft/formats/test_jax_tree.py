"""The leaves of openpi's parameter trees at the published sizes, by shapes alone."""

from pathlib import Path

import pytest

from policy_ft.formats.orbax.jax_tree import family_of, leaves

KEYS = Path(__file__).parents[2] / "goldens" / "keys"
LLM, IMG = "PaliGemma/llm/", "PaliGemma/img/"
EMBEDDING = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
DEAD_HEAD = "paligemma_with_expert.gemma_expert.lm_head.weight"


def gemma_shapes(suffix: str, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    layers = f"{LLM}layers/"
    return {
        f"{layers}attn/q_einsum{suffix}/w": (18, 8, width, 256),
        f"{layers}attn/kv_einsum{suffix}/w": (18, 2, 1, width, 256),
        f"{layers}attn/attn_vec_einsum{suffix}/w": (18, 8, 256, width),
        f"{layers}mlp{suffix}/gating_einsum": (18, 2, width, hidden),
        f"{layers}mlp{suffix}/linear": (18, hidden, width),
    }


def siglip_shapes() -> dict[str, tuple[int, ...]]:
    block = f"{IMG}Transformer/encoderblock/"
    attention = f"{block}MultiHeadDotProductAttention_0/"
    shapes = {
        f"{IMG}embedding/kernel": (14, 14, 3, 1152),
        f"{IMG}embedding/bias": (1152,),
        f"{IMG}pos_embedding": (1, 256, 1152),
        f"{IMG}Transformer/encoder_norm/scale": (1152,),
        f"{IMG}Transformer/encoder_norm/bias": (1152,),
        f"{IMG}head/kernel": (1152, 2048),
        f"{IMG}head/bias": (2048,),
        f"{block}MlpBlock_0/Dense_0/kernel": (27, 1152, 4304),
        f"{block}MlpBlock_0/Dense_0/bias": (27, 4304),
        f"{block}MlpBlock_0/Dense_1/kernel": (27, 4304, 1152),
        f"{block}MlpBlock_0/Dense_1/bias": (27, 1152),
        f"{attention}out/kernel": (27, 16, 72, 1152),
        f"{attention}out/bias": (27, 1152),
    }
    for part in ("scale", "bias"):
        shapes |= {f"{block}LayerNorm_{index}/{part}": (27, 1152) for index in (0, 1)}
    for part in ("query", "key", "value"):
        shapes[f"{attention}{part}/kernel"] = (27, 1152, 16, 72)
        shapes[f"{attention}{part}/bias"] = (27, 16, 72)
    return shapes


def published_tree(family: str) -> dict[str, tuple[int, ...]]:
    """The leaves of the published size. Source: openpi, models/{siglip,gemma,pi0}.py."""
    norms = ("layers/pre_attention_norm", "layers/pre_ffw_norm", "final_norm")
    shapes = {
        **siglip_shapes(),
        **gemma_shapes("", 2048, 16384),
        **gemma_shapes("_1", 1024, 4096),
        f"{LLM}embedder/input_embedding": (257152, 2048),
    }
    for norm in norms:
        layers = (18,) if norm.startswith("layers") else ()
        shapes[f"{LLM}{norm}/scale"] = (*layers, 2048)
        if family == "pi0":
            shapes[f"{LLM}{norm}_1/scale"] = (*layers, 1024)
        else:
            shapes[f"{LLM}{norm}_1/Dense_0/kernel"] = (*layers, 1024, 3072)
            shapes[f"{LLM}{norm}_1/Dense_0/bias"] = (*layers, 3072)
    heads = {"action_in_proj": (32, 1024), "action_out_proj": (1024, 32)}
    if family == "pi0":
        heads |= {"state_proj": (32, 1024), "action_time_mlp_in": (2048, 1024)}
        heads |= {"action_time_mlp_out": (1024, 1024)}
    else:
        heads |= {"time_mlp_in": (1024, 1024), "time_mlp_out": (1024, 1024)}
    for name, shape in heads.items():
        shapes |= {f"{name}/kernel": shape, f"{name}/bias": shape[1:]}
    return shapes


def published_tensors(family: str) -> dict[str, list[int]]:
    """Name -> shape of openpi's PyTorch model, of which a converted file lacks one tied name."""
    tensors = {}
    for line in (KEYS / f"{family}.txt").read_text(encoding="ascii").splitlines():
        name, sizes, *layers = line.split()
        shape = [int(size) for size in sizes.split("x")]
        numbers = range(*map(int, layers[0].split(":"))) if layers else (0,)
        tensors |= {name.replace("*", str(number)): shape for number in numbers}
    del tensors[EMBEDDING], tensors[DEAD_HEAD]
    return tensors


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_the_published_tree_becomes_the_tensors_of_the_pytorch_model(family):
    shapes = published_tree(family)
    tree = leaves(family)
    assert family_of(shapes) == family
    assert set(tree) == set(shapes)
    assert all(leaf.fits(shapes[path]) for path, leaf in tree.items())
    tensors = {
        name: list(leaf.part_shape(shapes[path]))
        for path, leaf in tree.items()
        for name, _ in leaf.parts(shapes[path][0])
    }
    assert tensors == published_tensors(family)
