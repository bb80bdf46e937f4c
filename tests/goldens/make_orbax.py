# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["orbax-checkpoint==0.11.13", "jax==0.5.3", "numpy<2.3", "safetensors>=0.5"]
# ///
"""Writes orbax_pi0/ and orbax_pi05/ from the golden weights, with orbax, as openpi does.

The versions above are those that openpi locks. Run in an environment of its own:
    pipx run tests/goldens/make_orbax.py
The layouts follow openpi's flax modules (src/openpi/models/{gemma,siglip,lora}.py), its released
checkpoints (orbax_pi0: bare parameters) and its training (orbax_pi05: a CheckpointManager's step, a
`value` at the end of each path, bfloat16, arrays sharded over two devices). orbax_pi05 is cut to
PI05_DEPTH layers and PI05_VOCABULARY tokens, to be small.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent
HEADS, HEAD_DIM, VISION_HEADS = 8, 16, 2
PI05_DEPTH, PI05_VOCABULARY = 1, 32
MIN_SHARDED_BYTES = 4096

Tree = dict[str, Any]


def linear(tensors: Tree, name: str) -> Tree:
    return {"kernel": tensors[f"{name}.weight"].T, "bias": tensors[f"{name}.bias"]}


def norm(tensors: Tree, name: str) -> Tree:
    return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}


def stacked(layers: list[Tree]) -> Tree:
    return jax.tree.map(lambda *arrays: np.stack(arrays), *layers)


def siglip_block(tensors: Tree, name: str) -> Tree:
    attention = {}
    for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v")):
        weight, bias = (
            tensors[f"{name}.self_attn.{ours}_proj.{kind}"] for kind in ("weight", "bias")
        )
        width = weight.shape[0]
        attention[theirs] = {
            "kernel": weight.T.reshape(width, VISION_HEADS, width // VISION_HEADS),
            "bias": bias.reshape(VISION_HEADS, width // VISION_HEADS),
        }
    out = linear(tensors, f"{name}.self_attn.out_proj")
    out["kernel"] = out["kernel"].reshape(VISION_HEADS, width // VISION_HEADS, width)
    return {
        "LayerNorm_0": norm(tensors, f"{name}.layer_norm1"),
        "LayerNorm_1": norm(tensors, f"{name}.layer_norm2"),
        "MlpBlock_0": {
            "Dense_0": linear(tensors, f"{name}.mlp.fc1"),
            "Dense_1": linear(tensors, f"{name}.mlp.fc2"),
        },
        "MultiHeadDotProductAttention_0": {**attention, "out": out},
    }


def siglip(tensors: Tree, depth: int) -> Tree:
    name = "paligemma_with_expert.paligemma.model."
    tower = name + "vision_tower.vision_model."
    patches = tensors[tower + "embeddings.patch_embedding.weight"]
    blocks = [siglip_block(tensors, f"{tower}encoder.layers.{i}") for i in range(depth)]
    return {
        "embedding": {
            "kernel": patches.transpose(2, 3, 1, 0),
            "bias": tensors[tower + "embeddings.patch_embedding.bias"],
        },
        "pos_embedding": tensors[tower + "embeddings.position_embedding.weight"][None],
        "Transformer": {
            "encoderblock": stacked(blocks),
            "encoder_norm": norm(tensors, tower + "post_layernorm"),
        },
        "head": linear(tensors, name + "multi_modal_projector.linear"),
    }


def rms_norm(tensors: Tree, name: str) -> Tree:
    if f"{name}.weight" in tensors:
        return {"scale": tensors[f"{name}.weight"]}
    return {"Dense_0": linear(tensors, f"{name}.dense")}


def gemma_block(tensors: Tree, name: str, suffix: str) -> tuple[Tree, Tree]:
    """The leaves below layers/attn and those beside it."""
    q, k, v, o = (tensors[f"{name}.self_attn.{each}_proj.weight"] for each in "qkvo")
    gate, up, down = (tensors[f"{name}.mlp.{each}_proj.weight"] for each in ("gate", "up", "down"))
    width = q.shape[1]
    attention = {
        f"q_einsum{suffix}": {"w": q.reshape(HEADS, HEAD_DIM, width).transpose(0, 2, 1)},
        f"kv_einsum{suffix}": {"w": np.stack([k.T[None], v.T[None]])},
        f"attn_vec_einsum{suffix}": {"w": o.T.reshape(HEADS, HEAD_DIM, width)},
    }
    beside = {
        f"mlp{suffix}": {"gating_einsum": np.stack([gate.T, up.T]), "linear": down.T},
        f"pre_attention_norm{suffix}": rms_norm(tensors, f"{name}.input_layernorm"),
        f"pre_ffw_norm{suffix}": rms_norm(tensors, f"{name}.post_attention_layernorm"),
    }
    return attention, beside


def gemma(tensors: Tree, depth: int, vocabulary: int) -> Tree:
    paligemma = "paligemma_with_expert.paligemma."
    towers = {
        "": paligemma + "model.language_model",
        "_1": "paligemma_with_expert.gemma_expert.model",
    }
    tree: Tree = {
        "embedder": {"input_embedding": tensors[paligemma + "lm_head.weight"][:vocabulary]},
        "layers": {"attn": {}},
    }
    for suffix, name in towers.items():
        blocks = [gemma_block(tensors, f"{name}.layers.{i}", suffix) for i in range(depth)]
        tree["layers"]["attn"] |= stacked([attention for attention, _ in blocks])
        tree["layers"] |= stacked([beside for _, beside in blocks])
        tree[f"final_norm{suffix}"] = rms_norm(tensors, f"{name}.norm")
    return tree


def parameters(tensors: Tree, depth: int, vocabulary: int) -> Tree:
    heads = sorted({name.split(".")[0] for name in tensors} - {"paligemma_with_expert"})
    return {
        "PaliGemma": {"img": siglip(tensors, 1), "llm": gemma(tensors, depth, vocabulary)},
        **{name: linear(tensors, name) for name in heads},
    }


def norm_stats(seed: int) -> Tree:
    random = np.random.default_rng(seed)

    def columns() -> dict[str, list[float]]:
        centre, scale = random.normal(size=14).round(4), random.uniform(0.1, 2, 14).round(4)
        rows = {"mean": centre, "std": scale, "q01": centre - 2 * scale, "q99": centre + 2 * scale}
        return {key: values.round(4).tolist() for key, values in rows.items()}

    return {"norm_stats": {"state": columns(), "actions": columns()}}


def write_assets(directory: Path, asset_id: str, seed: int) -> None:
    (directory / asset_id).mkdir(parents=True)
    text = json.dumps(norm_stats(seed), indent=2)
    (directory / asset_id / "norm_stats.json").write_text(text)


def write_released(directory: Path) -> None:
    tree = parameters(load_file(HERE / "pi0.safetensors"), depth=4, vocabulary=512)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(directory / "params", {"params": jax.tree.map(jnp.asarray, tree)})
    write_assets(directory / "assets", "trossen", seed=0)


def sharded(array: np.ndarray) -> jax.Array:
    """In bfloat16, the largest axis of a large array divided over the devices, as openpi's FSDP."""
    axes: list[str | None] = [None] * array.ndim
    if array.nbytes >= MIN_SHARDED_BYTES:
        axes[int(np.argmax(array.shape))] = "fsdp"
    mesh = Mesh(np.array(jax.devices()), ("fsdp",))
    return jax.device_put(
        jnp.asarray(array, jnp.bfloat16), NamedSharding(mesh, PartitionSpec(*axes))
    )


def write_trained(directory: Path, step: int) -> None:
    tree = parameters(load_file(HERE / "pi05.safetensors"), PI05_DEPTH, PI05_VOCABULARY)
    params = jax.tree.map(lambda array: {"value": sharded(array)}, tree)
    handlers = {"params": ocp.PyTreeCheckpointHandler()}
    with ocp.CheckpointManager(directory, item_handlers=handlers) as manager:
        manager.save(step, args=ocp.args.Composite(params=ocp.args.PyTreeSave({"params": params})))
    write_assets(directory / str(step) / "assets", "trossen", seed=1)


if __name__ == "__main__":
    for name in ("orbax_pi0", "orbax_pi05"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    write_released(HERE / "orbax_pi0")
    unfinished = HERE / "orbax_pi05.unfinished"
    write_trained(unfinished, step=1000)
    (unfinished / "1000").rename(HERE / "orbax_pi05")
    shutil.rmtree(unfinished)
