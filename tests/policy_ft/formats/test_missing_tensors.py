"""Whichever one tensor a checkpoint lacks, that one is named, and nothing else is blamed."""

import shutil
from pathlib import Path

import pytest
import tensorstore
from safetensors.torch import load_file, save_file

import policy_ft
from policy_ft.errors import UserError
from policy_ft.formats.conversion.convert import convert
from policy_ft.formats.orbax.orbax_weights import OrbaxWeights

GOLDENS = Path(__file__).parents[2] / "goldens"
KEYS_OF_SECOND_BLOCK = "model.vlm_with_expert.lm_expert.layers.2.self_attn.k_proj.weight"
UNUSED = ("gemma_expert.lm_head.weight", "vlm.lm_head.weight")


@pytest.fixture
def complete(openpi_directory, lerobot_directory, tokenizer_file, arm, tmp_path):
    """complete(layout, family): a checkpoint, and what load_policy needs beside it."""

    def write(layout, family):
        directory, given = tmp_path / "checkpoint", {}
        if layout == "openpi":
            openpi_directory(directory, family)
            given = {"tokenizer": tokenizer_file, "embodiment": arm}
        elif layout == "lerobot":
            lerobot_directory(directory, family)
        else:
            convert(lerobot_directory(tmp_path / "published", family), "native", directory)
        return directory, given

    return write


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "family"),
    [
        ("openpi", "pi0"),
        ("openpi", "pi05"),
        ("lerobot", "pi0"),
        ("lerobot", "pi05"),
        ("lerobot", "smolvla"),
        ("native", "pi05"),
        ("native", "smolvla"),
    ],
)
def test_each_missing_tensor_is_named(complete, layout, family):
    directory, given = complete(layout, family)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        kept = {each: tensor for each, tensor in tensors.items() if each != name}
        save_file(kept, file, metadata={"format": "pt"})
        if name.endswith(UNUSED):
            policy_ft.load_policy(directory, **given)
            continue
        with pytest.raises(UserError) as caught:
            policy_ft.load_policy(directory, **given)
        (fault,) = caught.value.faults
        assert f", {name}" in fault.partition(": found no such tensor; expected ")[0], fault


@pytest.mark.parametrize("stated", [{}, {"self_attn_every_n_layers": None}])
@pytest.mark.parametrize("parts", ["k", "v", "kv"])
def test_the_weights_that_tell_the_kind_of_a_block_are_named_too(
    lerobot_directory, lerobot_settings, golden_weights, tmp_path, parts, stated
):
    """SmolVLA's keys tell which blocks attend to themselves, where config.json does not."""
    tensors = golden_weights("smolvla")
    gone = [KEYS_OF_SECOND_BLOCK.replace("k_proj", f"{part}_proj") for part in parts]
    for name in gone:
        del tensors[name]
    config = lerobot_settings("smolvla", **stated)
    path = lerobot_directory(tmp_path / "x", "smolvla", tensors=tensors, config=config)
    with pytest.raises(UserError) as caught:
        policy_ft.load_policy(path)
    for name in gone:
        assert any(f"{name} (expert.layers.2" in fault for fault in caught.value.faults)


def test_another_rhythm_of_blocks_than_the_weights_have_is_refused(
    lerobot_directory, lerobot_settings, tmp_path
):
    config = lerobot_settings("smolvla", self_attn_every_n_layers=3)
    path = lerobot_directory(tmp_path / "x", "smolvla", config=config)
    with pytest.raises(UserError, match="self_attn_every_n_layers: found 3; expected 2, as in"):
        policy_ft.load_policy(path)


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_each_missing_leaf_of_a_jax_tree_is_named(tmp_path, family):
    whole = GOLDENS / f"orbax_{family}" / "params"
    with OrbaxWeights(whole) as weights:
        assert weights.keys()
    params = tmp_path / "params"
    for key in leaves_of(whole):
        shutil.copytree(whole, params)
        store = store_of(params)
        store.delete_range(tensorstore.KvStore.KeyRange(f"{key}/", f"{key}0")).result()
        path = key.removeprefix("params.").removesuffix(".value").replace(".", "/")
        with pytest.raises(UserError, match=f"found no {path}; expected the"):
            OrbaxWeights(params)
        shutil.rmtree(params)


def store_of(params: Path) -> "tensorstore.KvStore":
    base = {"driver": "file", "path": f"{params}/"}
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()


def leaves_of(params: Path) -> list[str]:
    names = store_of(params).list().result()
    return sorted({name.decode().rpartition("/")[0] for name in names})
