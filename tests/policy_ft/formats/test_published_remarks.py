"""What a format cannot say is said to the person, and what it can say is written."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import policy_ft
from policy_ft.checkpoints.tensor_files import write_tensors
from policy_ft.formats.conversion.contents import open_contents
from policy_ft.formats.conversion.convert import convert
from policy_ft.formats.conversion.differences import differences
from policy_ft.formats.conversion.write_lerobot import lerobot_documents
from policy_ft.formats.conversion.write_openpi import openpi_documents
from policy_ft.formats.load import read_published
from policy_ft.formats.locating import locate
from policy_ft.formats.sizes import SIGLIP_HEADS, SMOLVLM_HEADS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"mean": (9.0,) * 7}, ["statistics of state: the files say mean otherwise"]),
        ({"min": None, "max": None}, ["statistics of state: the files have no place for min, max"]),
    ],
)
def test_statistics_that_are_lost_or_rounded_are_told(lerobot_directory, tmp_path, change, words):
    located = locate(lerobot_directory(tmp_path / "a", "pi0"))
    written = read_published(located)
    state = written.statistics.state.model_copy(update=change)
    written = replace(written, statistics=written.statistics.model_copy(update={"state": state}))
    with open_contents(located) as contents:
        assert list(differences(contents, written)) == words


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_heads_beside_the_weights_change_their_type_with_them(lerobot_directory, tmp_path, dtype):
    first = lerobot_directory(tmp_path / "a", "pi0")
    convert(first, "native", tmp_path / "b", dtype=dtype)
    (head,) = load_file(tmp_path / "b/unused_tensors.safetensors").values()
    assert head.dtype == getattr(torch, dtype)


def test_sizes_that_openpis_files_leave_out_are_written_beside_them(
    openpi_directory, tokenizer_file, arm, tmp_path
):
    first = openpi_directory(tmp_path / "a", "pi0")
    assert not (first / "config.json").exists()
    convert(first, "openpi", tmp_path / "b", tokenizer=tokenizer_file, embodiment=arm)
    written = json.loads((tmp_path / "b/config.json").read_text(encoding="utf-8"))
    assert (written["action_horizon"], written["max_token_len"]) == (50, 48)
    given = {"tokenizer": tokenizer_file, "embodiment": arm}
    assert policy_ft.load_policy(tmp_path / "b", **given).load_report.notes == ()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_openpi_is_told_the_type_of_the_weights(openpi_directory, tmp_path, dtype):
    convert(openpi_directory(tmp_path / "a", "pi05"), "openpi", tmp_path / "b", dtype=dtype)
    written = json.loads((tmp_path / "b/config.json").read_text(encoding="utf-8"))
    assert written["precision"] == dtype


@pytest.mark.parametrize("says_state", [True, False])
def test_openpi_is_told_whether_the_prompt_says_the_state(openpi_directory, tmp_path, says_state):
    config = {"discrete_state_input": says_state}
    first = openpi_directory(tmp_path / "a", "pi05", config=config)
    with open_contents(locate(first)) as contents:
        written = openpi_documents(contents, "robot")["config.json"]
    assert written["discrete_state_input"] is says_state


@pytest.mark.parametrize("is_shifted", [True, False])
def test_a_smolvla_of_published_sizes_needs_words_of_ours_for_shifted_positions_alone(
    lerobot_directory, tmp_path, is_shifted
):
    with open_contents(locate(lerobot_directory(tmp_path / "a", "smolvla"))) as contents:
        config = contents.config
        vision = {"width": 768, "num_heads": SIGLIP_HEADS[768], "shifted_positions": is_shifted}
        language = {"width": 960, "num_heads": SMOLVLM_HEADS[960], "num_kv_heads": 5}
        sizes = {
            "vision": config.vision.model_copy(update=vision),
            "language": config.language.model_copy(update=language),
        }
        published = replace(contents, config=config.model_copy(update=sizes))
        assert ("vlm_config" in lerobot_documents(published, "smolvla")["config.json"]) is (
            is_shifted
        )


def test_tensors_lie_where_processors_read_them_in_one_piece(tmp_path):
    tensors = {"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(2, dtype=torch.float64)}
    write_tensors(tmp_path / "x.safetensors", tensors)
    content = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert (8 + length + header["b"]["data_offsets"][0]) % 8 == 0
