"""Loading what openpi and LeRobot wrote: whole, in the same numbers, or not at all."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import policy_ft
from policy_ft.checkpoints.native import save_policy
from policy_ft.config.model import ModelConfig
from policy_ft.config.resize import ModelResize
from policy_ft.errors import UserError
from policy_ft.models.solvers import Euler

KINDS = [
    ("openpi", "pi0"),
    ("openpi", "pi05"),
    ("lerobot", "pi0"),
    ("lerobot", "pi05"),
    ("lerobot", "smolvla"),
]
HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
EMBEDDING = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"


@pytest.fixture
def directory(openpi_directory, lerobot_directory, tmp_path):
    """directory(format, family, ...): a checkpoint directory in tmp_path."""

    def write(kind, family, **changes):
        write_one = openpi_directory if kind == "openpi" else lerobot_directory
        return write_one(tmp_path / f"{kind}_{family}", family, **changes)

    return write


@pytest.fixture
def load(tokenizer_file, arm):
    """load(path): with the tokenizer and the robot that a directory of openpi does not hold."""

    def load(path, **changes):
        is_lerobot = (path / "tokenizer").is_dir()
        given = {} if is_lerobot else {"tokenizer": tokenizer_file, "embodiment": arm}
        return policy_ft.load_policy(path, **{**given, **changes})

    return load


@pytest.mark.parametrize(("kind", "family"), KINDS)
def test_a_loaded_policy_computes_the_numbers_of_its_own_code(
    directory, load, golden, kind, family
):
    policy, expected = load(directory(kind, family)), golden(family)
    assert policy.config.family == family
    actions = policy.model.sample_actions(
        expected.inputs, expected.arrays["sample_noise"], Euler(10)
    )
    torch.testing.assert_close(
        actions, expected.arrays["sampled_actions_10_steps"], rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_sizes_come_from_shapes_alone_where_there_is_no_config(directory, load, golden, family):
    found = load(directory("openpi", family)).config
    expected: ModelConfig = golden(family).config
    longest = {"pi0": 48, "pi05": 200}[family]
    assert found == expected.model_copy(update={"max_prompt_tokens": longest})


def test_sizes_of_a_lerobot_policy_come_from_its_config(directory, load, golden):
    found = load(directory("lerobot", "smolvla")).config
    assert found == golden("smolvla").config


@pytest.mark.parametrize(("kind", "family"), KINDS)
def test_every_tensor_of_the_file_is_accounted_for(directory, load, kind, family):
    path = directory(kind, family)
    report = load(path).load_report
    stored = load_file(path / "model.safetensors")
    assert len(report.loaded) + len(report.dropped) == len(stored)
    assert [name.rpartition("lm_head")[1] for name in report.dropped] == ["lm_head"]
    assert (report.missing, report.unexpected, report.tied) == ((), (), ())


@pytest.mark.parametrize("root", ["model.", ""])
def test_lerobot_files_with_and_without_their_root_are_the_same_policy(
    lerobot_directory, tmp_path, root
):
    path = lerobot_directory(tmp_path / "x", "pi0", root=root)
    policy = policy_ft.load_policy(path)
    assert policy.source.prefix == root
    assert len(policy.load_report.loaded) == 108


def test_a_root_before_some_names_only_is_refused(directory, load):
    path = directory("lerobot", "pi0")
    tensors = load_file(path / "model.safetensors")
    tensors["state_proj.bias"] = tensors.pop("model.state_proj.bias")
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(UserError, match=r"beside 'state_proj.bias'.*Use the file as it was publ"):
        load(path)


@pytest.mark.parametrize("kept", [(HEAD,), (EMBEDDING,), (HEAD, EMBEDDING)])
def test_either_name_of_the_tied_pair_or_both_will_do(
    openpi_directory, load, golden_weights, tmp_path, kept
):
    tensors = golden_weights("pi0")
    embedding = tensors.pop(HEAD)
    tensors |= {name: embedding.clone() for name in kept}
    policy = load(openpi_directory(tmp_path / "x", "pi0", tensors))
    assert torch.equal(policy.model.backbone.language.embed_tokens.weight, embedding)
    assert not any("differs" in note for note in policy.provenance["notes"])


def test_an_untied_head_is_left_and_named_for_the_embedding_was_trained(
    lerobot_directory, golden_weights, tmp_path
):
    tensors = golden_weights("pi0")
    tensors[EMBEDDING] = tensors[HEAD] + 1.0
    policy = policy_ft.load_policy(lerobot_directory(tmp_path / "x", "pi0", tensors=tensors))
    assert torch.equal(policy.model.backbone.language.embed_tokens.weight, tensors[EMBEDDING])
    assert f"model.{HEAD}" in policy.load_report.dropped
    assert any("lm_head.weight differs from" in note for note in policy.provenance["notes"])


def test_a_missing_tensor_is_never_made_up(openpi_directory, load, golden_weights, tmp_path):
    tensors = golden_weights("pi0")
    name = "paligemma_with_expert.gemma_expert.model.layers.2.mlp.up_proj.weight"
    moved = tensors.pop(name)
    tensors[name.replace("up_proj", "up_projection")] = moved
    path = openpi_directory(tmp_path / "x", "pi0", tensors)
    with pytest.raises(UserError, match=r"up_proj.weight \(expert.*no such tensor") as caught:
        load(path)
    assert "did you mean" in str(caught.value)
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        (
            "gemma_expert.model.layers.x.mlp.weight",
            (1,),
            "layers.x.mlp.weight.*a tensor of that na",
        ),
        ("paligemma.lm_head.weight", (64,), r"lm_head.weight: found \[64\]; expected 2 sizes"),
        (
            "paligemma.model.language_model.layers.0.self_attn.k_proj.weight",
            (0, 64),
            r"k_proj.weight: found \[0, 64\]; expected 2 sizes above zero",
        ),
    ],
)
def test_tensors_that_make_no_sense_are_told(
    openpi_directory, load, golden_weights, tmp_path, name, shape, words
):
    tensors = golden_weights("pi0") | {f"paligemma_with_expert.{name}": torch.zeros(shape)}
    with pytest.raises(UserError, match=words):
        load(openpi_directory(tmp_path / "x", "pi0", tensors))


def test_a_missing_block_of_smolvla_is_told(lerobot_directory, golden_weights, tmp_path):
    tensors = golden_weights("smolvla")
    name = "model.vlm_with_expert.lm_expert.layers.3.self_attn.k_proj.weight"
    del tensors[name]
    path = lerobot_directory(tmp_path / "x", "smolvla", tensors=tensors)
    with pytest.raises(UserError, match=rf"{name} .*no such tensor"):
        policy_ft.load_policy(path)


def test_new_weights_must_be_asked_for(openpi_directory, load, golden_weights, tmp_path):
    tensors = golden_weights("pi0")
    del tensors["state_proj.weight"], tensors["state_proj.bias"]
    path = openpi_directory(tmp_path / "x", "pi0", tensors)
    with pytest.raises(UserError, match="init_missing"):
        load(path)
    policy = load(path, init_missing=("expert.state_proj.*",))
    assert policy.load_report.missing == ("expert.state_proj.weight", "expert.state_proj.bias")


def test_the_family_is_told_by_the_tensors_and_never_by_the_path(openpi_directory, load, tmp_path):
    policy = load(openpi_directory(tmp_path / "pi05_base", "pi0"))
    assert policy.config.family == "pi0"


def test_a_pi0_file_is_not_put_into_a_pi05_policy(directory, lerobot_settings, load):
    path = directory("lerobot", "pi0", config=lerobot_settings("pi0", type="pi05"))
    with pytest.raises(UserError, match=r"type: found 'pi05'; expected 'pi0', as the weights are"):
        load(path)


def test_tensors_of_both_families_are_refused(openpi_directory, load, golden_weights, tmp_path):
    tensors = golden_weights("pi0") | {"time_mlp_in.weight": torch.zeros(64, 64)}
    with pytest.raises(UserError, match=r"of both.*renaming does not make one of the other"):
        load(openpi_directory(tmp_path / "x", "pi0", tensors))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("model.vlm.a", "model.dit.b", "embed_action_time.c"), "PI0ForConditionalGeneration"),
        (("base_model.model.a.lora_A.weight",), "merge_and_unload"),
        (("paligemma_with_expert.paligemma.lm_head.weight",), "PaliGemma alone.*pi0-FAST"),
        (("transformer.h.0.weight",), "one of these families"),
    ],
)
def test_weights_of_other_kinds_are_refused_by_name(openpi_directory, load, tmp_path, names, words):
    tensors = {name: torch.zeros(2) for name in names}
    with pytest.raises(UserError, match=words):
        load(openpi_directory(tmp_path / "x", "pi0", tensors))


def test_config_and_shapes_must_agree(openpi_directory, load, tmp_path):
    config = {"action_dim": 24, "action_horizon": 10, "paligemma_variant": "gemma_2b"}
    path = openpi_directory(tmp_path / "x", "pi0", config=config)
    with pytest.raises(
        UserError, match="action_dim: found 24; expected 32, as in the weights"
    ) as e:
        load(path)
    sizes = {"width": (2048, 64), "depth": (18, 4), "mlp width": (16384, 128)}
    for name, (stated, found) in sizes.items():
        words = f"paligemma_variant (gemma_2b), {name}: found {stated}; expected {found}"
        assert words in str(e.value)


def test_config_decides_what_shapes_do_not_say(openpi_directory, load, tmp_path):
    config = {"action_horizon": 10, "max_token_len": 96, "discrete_state_input": True}
    policy = load(openpi_directory(tmp_path / "x", "pi05", config=config))
    assert (policy.config.action_horizon, policy.config.max_prompt_tokens) == (10, 96)
    assert policy.provenance["notes"] == []


def test_a_horizon_nobody_wrote_down_is_noted(openpi_directory, load, tmp_path):
    notes = load(openpi_directory(tmp_path / "x", "pi0")).provenance["notes"]
    assert notes == ["action_horizon 50: not in the checkpoint; as published"]


def test_a_resized_policy_keeps_what_was_stored(openpi_directory, load, golden_weights, tmp_path):
    path = openpi_directory(tmp_path / "x", "pi0")
    policy = load(path, resize=ModelResize(action_dim=40, action_horizon=10, num_cameras=4))
    weight = policy.model.expert.action_in_proj.weight
    assert torch.equal(weight[:, :32], golden_weights("pi0")["action_in_proj.weight"])
    assert not weight[:, 32:].any()
    assert {each.name for each in policy.load_report.reshaped} == {
        "expert.action_in_proj.weight",
        "expert.action_out_proj.weight",
        "expert.action_out_proj.bias",
    }
    assert (policy.config.action_horizon, policy.config.num_cameras) == (10, 4)


@pytest.mark.parametrize("below", ["", "pretrained_model", "checkpoints/last/pretrained_model"])
def test_lerobot_checkpoints_are_found_below_their_run(lerobot_directory, tmp_path, below):
    lerobot_directory(tmp_path / "run" / below, "pi0")
    assert policy_ft.load_policy(tmp_path / "run").config.family == "pi0"


def test_weights_and_their_average_are_told_apart(lerobot_directory, tmp_path):
    for name in ("pretrained_model", "pretrained_model_ema"):
        lerobot_directory(tmp_path / "run" / name, "pi0")
    with pytest.raises(UserError, match="Give one of the two; the second holds the running av"):
        policy_ft.load_policy(tmp_path / "run")
    policy_ft.load_policy(tmp_path / "run/pretrained_model_ema")


def test_several_checkpoints_in_one_directory_are_refused(openpi_directory, load, tmp_path):
    path = openpi_directory(tmp_path / "x", "pi0")
    (path / "params").mkdir()
    with pytest.raises(UserError, match=r"several checkpoints.*a directory of their own"):
        load(path)


def test_a_directory_above_several_checkpoints_names_them(openpi_directory, load, tmp_path):
    for name in ("10000", "20000"):
        openpi_directory(tmp_path / "run" / name, "pi0")
    with pytest.raises(UserError, match=r"Give a directory that has them, e.g. .*10000, .*20000"):
        load(tmp_path / "run")


def test_an_adapter_without_its_base_is_refused(lerobot_directory, tmp_path):
    path = lerobot_directory(tmp_path / "x", "pi0")
    (path / "model.safetensors").rename(path / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"adapter.*merge_and_unload"):
        policy_ft.load_policy(path)


def test_pickled_weights_are_never_opened(tmp_path, load):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(UserError, match="pickles can run code and are never opened"):
        load(tmp_path / "x")


@pytest.mark.parametrize("name", ["config.json", "policy_preprocessor.json"])
def test_truncated_json_names_its_file(lerobot_directory, tmp_path, name):
    path = lerobot_directory(tmp_path / "x", "pi0")
    (path / name).write_text((path / name).read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(UserError, match=rf"{name}: found text that is not JSON"):
        policy_ft.load_policy(path)


def test_without_a_network_a_hub_id_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"Give the path of a local directory.*policy-ft pull"):
        policy_ft.load_policy("lerobot/pi0_base")


def test_a_checkpoint_without_tokenizer_asks_for_it(openpi_directory, tmp_path):
    path = openpi_directory(tmp_path / "x", "pi0")
    with pytest.raises(UserError, match=r"'google/paligemma-3b-pt-224'.*as the tokenizer"):
        policy_ft.load_policy(path)


def test_a_checkpoint_of_our_own_takes_no_second_robot_or_tokenizer(
    directory, load, tokenizer_file, tmp_path
):
    save_policy(load(directory("lerobot", "pi0")), tmp_path / "own")
    with pytest.raises(UserError, match="Leave the tokenizer out"):
        policy_ft.load_policy(tmp_path / "own", tokenizer=tokenizer_file)
    with pytest.raises(UserError, match="train with statistics: data"):
        policy_ft.load_policy(tmp_path / "own", embodiment="aloha")


@pytest.mark.parametrize(("kind", "family"), KINDS)
def test_a_policy_acts_the_same_after_saving_and_loading(
    directory, load, tmp_path, kind, family, act
):
    policy = load(directory(kind, family))
    save_policy(policy, tmp_path / "own")
    shutil.rmtree(tmp_path / f"{kind}_{family}")
    again = policy_ft.load_policy(tmp_path / "own")
    np.testing.assert_array_equal(act(again), act(policy))
    assert again.source == policy.source
    assert {name.rpartition(".")[0] for name in again.unused} == {
        name.rpartition(".")[0] for name in policy.unused
    }
    assert json.loads((tmp_path / "own/provenance.json").read_text())["published_format"] == kind
