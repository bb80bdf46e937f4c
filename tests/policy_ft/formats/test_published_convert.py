"""Conversion between formats: every bit there and back, and a word on whatever cannot be said."""

import json
import weakref
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import policy_ft
from policy_ft.checkpoints.native import save_policy
from policy_ft.checkpoints.tensor_files import write_tensors
from policy_ft.config.model import ModelConfig
from policy_ft.errors import UserError
from policy_ft.formats.conversion.convert import convert

HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
EMBEDDING = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
DEAD = "paligemma_with_expert.gemma_expert.lm_head.weight"
PI = ("pi0", "pi05")
FAMILIES = (*PI, "smolvla")


def mixed(tensors):
    """The weights in two types, as released: the large ones in bfloat16."""
    return {n: t.bfloat16() if "proj.weight" in n else t for n, t in tensors.items()}


def assert_same_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def same_files(found, expected):
    """Every JSON and tensor file of the second directory stands in the first with its content."""
    for path in expected.rglob("*"):
        other = found / path.relative_to(expected)
        if path.suffix == ".json":
            assert json.loads(other.read_text()) == json.loads(path.read_text()), path.name
        elif path.suffix == ".safetensors":
            assert_same_tensors(load_file(other), load_file(path))


@pytest.mark.parametrize("family", PI)
@pytest.mark.parametrize("config", [None, {"action_dim": 32, "action_horizon": 10}])
def test_openpi_to_native_and_back_is_the_same_to_the_bit(
    openpi_directory, golden_weights, tokenizer_file, arm, tmp_path, family, config, act
):
    tensors = mixed(golden_weights(family))
    first = openpi_directory(tmp_path / "a", family, tensors, config)
    convert(first, "native", tmp_path / "b", tokenizer=tokenizer_file, embodiment=arm)
    converted = convert(tmp_path / "b", "openpi", tmp_path / "c")
    same_files(tmp_path / "c", first)
    assert [each.partition(":")[0] for each in converted.remarks] == ["embodiment.yaml"]
    np.testing.assert_array_equal(
        act(policy_ft.load_policy(tmp_path / "b")),
        act(policy_ft.load_policy(first, tokenizer=tokenizer_file, embodiment=arm)),
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("root", ["model.", ""])
def test_lerobot_to_native_and_back_is_the_same_to_the_bit(
    lerobot_directory, golden_weights, tmp_path, family, root, act
):
    tensors = mixed(golden_weights(family))
    first = lerobot_directory(tmp_path / "a", family, tensors=tensors, root=root)
    convert(first, "native", tmp_path / "b")
    converted = convert(tmp_path / "b", "lerobot", tmp_path / "c")
    same_files(tmp_path / "c", first)
    assert converted.remarks == ()
    again = (tmp_path / "c/tokenizer/tokenizer.json").read_text()
    assert again == (first / "tokenizer/tokenizer.json").read_text()
    np.testing.assert_array_equal(
        act(policy_ft.load_policy(tmp_path / "b")), act(policy_ft.load_policy(tmp_path / "c"))
    )


@pytest.mark.parametrize("family", PI)
def test_openpi_to_lerobot_and_back_keeps_every_tensor_and_statistic(
    openpi_directory, golden_weights, tokenizer_file, arm, tmp_path, family
):
    first = openpi_directory(tmp_path / "a", family, mixed(golden_weights(family)))
    convert(first, "lerobot", tmp_path / "b", tokenizer=tokenizer_file, embodiment=arm)
    convert(tmp_path / "b", "openpi", tmp_path / "c")
    assert_same_tensors(
        load_file(tmp_path / "c/model.safetensors"), load_file(first / "model.safetensors")
    )
    (stored,) = (tmp_path / "c/assets").glob("*/norm_stats.json")
    assert json.loads(stored.read_text()) == json.loads(
        (first / "assets/trossen/norm_stats.json").read_text()
    )


@pytest.mark.parametrize("family", PI)
def test_a_policy_acts_the_same_in_lerobots_format(
    openpi_directory, tokenizer_file, arm, tmp_path, family, act
):
    first = openpi_directory(tmp_path / "a", family)
    given = {"tokenizer": tokenizer_file, "embodiment": arm}
    convert(first, "lerobot", tmp_path / "b", **given)
    expected = act(policy_ft.load_policy(first, **given))
    written = policy_ft.load_policy(tmp_path / "b")
    # of PaliGemma's tokens, a newline is one of its own; of this small tokenizer's it is not
    prompt = {"prompt": "pi05" if family == "pi05" else "pi0"}
    config = written.transforms.config.model_copy(update=prompt)
    written = replace(written, transforms=replace(written.transforms, config=config))
    np.testing.assert_allclose(act(written), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("is_tied", [True, False])
def test_both_names_of_the_tied_pair_survive(lerobot_directory, golden_weights, tmp_path, is_tied):
    tensors = golden_weights("pi0")
    tensors[EMBEDDING] = tensors[HEAD] + (0.0 if is_tied else 1.0)
    first = lerobot_directory(tmp_path / "a", "pi0", tensors=tensors)
    convert(first, "native", tmp_path / "b")
    convert(tmp_path / "b", "lerobot", tmp_path / "c")
    same_files(tmp_path / "c", first)


def test_openpi_gets_one_name_of_the_tied_pair_with_the_trained_values(
    lerobot_directory, golden_weights, tmp_path
):
    tensors = golden_weights("pi0")
    tensors[EMBEDDING] = tensors[HEAD] + 1.0
    first = lerobot_directory(tmp_path / "a", "pi0", tensors=tensors)
    converted = convert(first, "openpi", tmp_path / "b")
    stored = load_file(tmp_path / "b/model.safetensors")
    assert EMBEDDING not in stored
    assert torch.equal(stored[HEAD], tensors[EMBEDDING])
    assert any(f"{HEAD}: left out" in remark for remark in converted.remarks)


def test_a_dead_head_that_never_was_there_is_written_as_zeros_and_said(
    openpi_directory, golden_weights, tokenizer_file, arm, tmp_path
):
    tensors = golden_weights("pi0")
    del tensors[DEAD]
    first = openpi_directory(tmp_path / "a", "pi0", tensors)
    convert(first, "native", tmp_path / "b", tokenizer=tokenizer_file, embodiment=arm)
    assert not (tmp_path / "b/unused_tensors.safetensors").exists()
    converted = convert(tmp_path / "b", "openpi", tmp_path / "c")
    stored = load_file(tmp_path / "c/model.safetensors")
    assert not stored.pop(DEAD).any()
    assert_same_tensors(stored, tensors)
    assert any(f"{DEAD}: zeros" in remark for remark in converted.remarks)


def test_statistics_among_old_weights_go_there_and_back(
    lerobot_directory, golden_weights, tmp_path
):
    tensors = golden_weights("smolvla")
    for root, feature in (
        ("normalize_inputs.", "observation_state"),
        ("normalize_targets.", "action"),
        ("unnormalize_outputs.", "action"),
    ):
        tensors |= {f"{root}buffer_{feature}.{n}": torch.full((7,), 0.3) for n in ("mean", "std")}
    first = lerobot_directory(tmp_path / "a", "smolvla", tensors=tensors, processors=False)
    convert(first, "native", tmp_path / "b")
    convert(tmp_path / "b", "lerobot", tmp_path / "c")
    same_files(tmp_path / "c", first)
    assert not (tmp_path / "c/policy_preprocessor.json").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_may_be_stored_in_another_type(lerobot_directory, golden_weights, tmp_path, dtype):
    tensors = mixed(golden_weights("pi0"))
    first = lerobot_directory(tmp_path / "a", "pi0", tensors=tensors)
    convert(first, "native", tmp_path / "b", dtype=dtype)
    stored = load_file(tmp_path / "b/model.safetensors")
    small = policy_ft.load_policy(tmp_path / "b").model.float32_names()
    expected = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    for name, tensor in stored.items():
        assert tensor.dtype == (torch.float32 if name in small else expected)
    embedding = "backbone.language.embed_tokens.weight"
    assert torch.equal(stored[embedding], tensors[HEAD].to(expected))


def test_shards_become_the_one_file_that_others_read(
    openpi_directory, tokenizer_file, arm, tmp_path
):
    first = openpi_directory(tmp_path / "a", "pi0")
    policy = policy_ft.load_policy(first, tokenizer=tokenizer_file, embodiment=arm)
    save_policy(policy, tmp_path / "b", max_shard_bytes=200_000)
    assert len(list((tmp_path / "b").glob("model-*.safetensors"))) > 2
    convert(tmp_path / "b", "openpi", tmp_path / "c")
    assert_same_tensors(
        load_file(tmp_path / "c/model.safetensors"), load_file(first / "model.safetensors")
    )


def test_a_jax_checkpoint_becomes_a_pytorch_one(tmp_path, golden_weights):
    goldens = policy_ft.__path__[0] + "/../tests/goldens/orbax_pi0"
    converted = convert(goldens, "openpi", tmp_path / "a")
    stored = load_file(tmp_path / "a/model.safetensors")
    assert not stored.pop(DEAD).any()
    expected = golden_weights("pi0")
    del expected[DEAD]
    assert_same_tensors(stored, expected)
    assert json.loads((tmp_path / "a/assets/trossen/norm_stats.json").read_text())["norm_stats"]
    assert len(converted.remarks) == 1


def test_a_model_of_our_own_has_no_place_elsewhere(policy, tmp_path):
    save_policy(policy, tmp_path / "a")
    assert policy.config.family == "own"
    for to in ("openpi", "lerobot"):
        with pytest.raises(UserError, match=r"model family: found 'own'.*Convert it to native"):
            convert(tmp_path / "a", to, tmp_path / to)


def test_smolvla_has_no_place_in_openpi(lerobot_directory, tmp_path):
    first = lerobot_directory(tmp_path / "a", "smolvla")
    with pytest.raises(UserError, match=r"'smolvla'; expected one of \['pi0', 'pi05'\]"):
        convert(first, "openpi", tmp_path / "b")


def test_an_incomplete_checkpoint_leaves_nothing_behind(
    openpi_directory, golden_weights, tokenizer_file, tmp_path
):
    tensors = golden_weights("pi0")
    del tensors["action_out_proj.bias"]
    first = openpi_directory(tmp_path / "a", "pi0", tensors)
    with pytest.raises(UserError, match=r"action_out_proj.bias.*no such tensor"):
        convert(first, "native", tmp_path / "b", tokenizer=tokenizer_file)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a"]


def test_native_needs_what_a_policy_needs(openpi_directory, tmp_path):
    first = openpi_directory(tmp_path / "a", "pi0", statistics={})
    with pytest.raises(UserError, match=r"norm_stats.json") as caught:
        convert(first, "native", tmp_path / "b")
    assert len(caught.value.faults) == 2  # the tokenizer, too


def test_a_base_without_statistics_still_goes_to_lerobot(openpi_directory, tmp_path):
    first = openpi_directory(tmp_path / "a", "pi0", statistics={})
    converted = convert(first, "lerobot", tmp_path / "b")
    assert not list((tmp_path / "b").glob("*normalizer*"))
    assert any(remark.startswith("no statistics") for remark in converted.remarks)


def test_statistics_of_a_robot_that_nobody_named_stay_in_openpis_space(
    openpi_directory, tokenizer_file, tmp_path
):
    first = openpi_directory(tmp_path / "a", "pi0")
    with pytest.raises(UserError, match="'trossen' is of embodiment 'aloha'"):
        convert(first, "native", tmp_path / "b", tokenizer=tokenizer_file)
    converted = convert(first, "lerobot", tmp_path / "c", tokenizer=tokenizer_file)
    assert not list((tmp_path / "c").glob("*normalizer*"))
    assert any("'trossen' is of embodiment 'aloha'" in each for each in converted.remarks)
    convert(first, "openpi", tmp_path / "d", dtype="bfloat16")
    assert (tmp_path / "d/assets/trossen/norm_stats.json").is_file()


def test_documents_cannot_be_written_elsewhere(lerobot_directory, tmp_path):
    convert(lerobot_directory(tmp_path / "a", "pi0"), "native", tmp_path / "b")
    source = json.loads((tmp_path / "b/source.json").read_text())
    source["documents"]["../../escaped.json"] = {}
    (tmp_path / "b/source.json").write_text(json.dumps(source))
    with pytest.raises(UserError, match="a path below the checkpoint"):
        convert(tmp_path / "b", "lerobot", tmp_path / "c")
    assert not (tmp_path.parent / "escaped.json").exists()


def test_an_unknown_type_or_a_full_directory_is_refused(lerobot_directory, tmp_path):
    first = lerobot_directory(tmp_path / "a", "pi0")
    with pytest.raises(UserError, match=r"dtype: found 'float16'; expected one of \['stored'"):
        convert(first, "native", tmp_path / "b", dtype="float16")
    with pytest.raises(UserError, match="Choose another directory"):
        convert(first, "native", first)


def test_a_changed_model_is_not_described_by_the_old_documents(lerobot_directory, tmp_path):
    policy = policy_ft.load_policy(lerobot_directory(tmp_path / "a", "pi0"))
    config: ModelConfig = policy.config.model_copy(update={"action_horizon": 8})
    shape = policy.transforms.shape.model_copy(update={"action_horizon": 8})
    shorter = replace(policy, config=config, transforms=replace(policy.transforms, shape=shape))
    save_policy(shorter, tmp_path / "b")
    convert(tmp_path / "b", "lerobot", tmp_path / "c")
    document = json.loads((tmp_path / "c/config.json").read_text())
    assert (document["chunk_size"], document["n_action_steps"]) == (8, 8)


def test_the_tokenizer_that_is_written_is_read_by_transformers(
    openpi_directory, tokenizer_file, tmp_path
):
    from transformers import AutoTokenizer

    first = openpi_directory(tmp_path / "a", "pi0")
    convert(first, "lerobot", tmp_path / "b", tokenizer=tokenizer_file)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "b/tokenizer")
    ours = Tokenizer.from_file(str(tokenizer_file)).encode("red cube\n").ids
    found = theirs("red cube\n", padding="max_length", max_length=12)["input_ids"]
    assert found == [*ours, *[0] * (12 - len(ours))]


def test_weights_of_another_model_are_refused_before_anything_is_written(
    lerobot_directory, tmp_path
):
    convert(lerobot_directory(tmp_path / "a", "pi0"), "native", tmp_path / "b")
    tensors = load_file(tmp_path / "b/model.safetensors")
    tensors["expert.more"] = torch.zeros(3)
    save_file(tensors, tmp_path / "b/model.safetensors")
    with pytest.raises(UserError, match=r"expert.more"):
        convert(tmp_path / "b", "lerobot", tmp_path / "c")


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    alive = weakref.WeakSet()

    class Made(Mapping):
        def __getitem__(self, name):
            assert not alive
            tensor = torch.full((3, int(name)), float(name))
            alive.add(tensor)
            return tensor

        def __iter__(self):
            return iter(["1", "2", "3"])

        def __len__(self):
            return 3

    write_tensors(tmp_path / "x.safetensors", Made(), max_shard_bytes=40)
    assert len(list(tmp_path.glob("x-*.safetensors"))) == 2
    write_tensors(tmp_path / "y.safetensors", Made(), max_shard_bytes=None)
    assert_same_tensors(
        load_file(tmp_path / "y.safetensors"),
        {name: torch.full((3, int(name)), float(name)) for name in ("1", "2", "3")},
    )
