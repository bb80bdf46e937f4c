"""Prompts are written as the models' reference code writes them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer

from data_tools.episode import Observation
from policy_ft.errors import UserError
from policy_ft.transforms.prompts import longest_prompt, prompt_ids, prompt_pieces
from policy_ft.transforms.tokenization import (
    BOS,
    read_tokenizer,
    text_vocabulary_size,
    tokenize,
    train_tokenizer,
)

TEXT = "  Pick_up the\nRED cube "
STATE = np.array([-1.2, -1.0, -0.9999, 0.0, 0.5, 0.99999, 1.0, 7.0])
# 256 bins of 1/128: below -1 is -1, 0 is bin 128, 0.5 is bin 192, above the last edge is 255
BINS = "-1 0 0 128 192 255 255 255"

PIECES = {
    "plain": ["pick_up the red cube"],
    "cased": ["Pick_up the RED cube"],
    "pi0": ["Pick up the RED cube", "\n"],
    "lerobot_pi0": ["  Pick_up the\nRED cube \n"],
    "smolvla": ["  Pick_up the\nRED cube \n"],
    "pi05": [f"Task: Pick up the RED cube, State: {BINS};\nAction: "],
    "pi05_padded_state": [f"Task: Pick up the RED cube, State: {BINS} 128 128;\nAction: "],
    "pi05_no_state": ["Task: Pick up the RED cube;\nAction: "],
}


@pytest.mark.parametrize("kind", PIECES)
def test_each_prompt_is_written_as_its_reference_writes_it(kind):
    assert prompt_pieces(TEXT, kind, STATE, 10) == PIECES[kind]


@pytest.mark.parametrize("kind", ["lerobot_pi0", "smolvla"])
def test_a_newline_that_is_there_is_not_doubled(kind):
    assert prompt_pieces("go\n", kind, STATE, 10) == ["go\n"]


def test_state_steps_are_those_counted_one_by_one():
    rng = np.random.default_rng(0)
    state = np.concatenate([rng.uniform(-1.1, 1.1, 200), np.arange(-130, 131) / 128])
    edges = [-1 + i / 128 for i in range(256)]
    counted = [sum(value >= edge for edge in edges) - 1 for value in state.tolist()]
    (text,) = prompt_pieces("go", "pi05", state, 500)
    assert [int(n) for n in re.search("State: (.*);", text)[1].split()] == counted


def observation(instruction: str = "push the red block") -> Observation:
    images = {name: np.zeros((32, 32, 3), np.uint8) for name in ("front", "wrist")}
    return Observation(images, np.array([0.3, -0.2, 0.1, 0.0], np.float32), instruction)


def long_prompts(fitted, **changes):
    shape = fitted().shape.model_copy(update={"max_prompt_tokens": 128})
    return fitted(shape=shape, **changes)


def real_tokens(transforms, instruction: str = "push the red block") -> list[int]:
    sample = transforms.encode(observation(instruction))
    return sample["prompt_tokens"][sample["prompt_mask"]].tolist()


@pytest.mark.parametrize("kind", [kind for kind in PIECES if kind != "smolvla"])
def test_the_begin_of_text_token_comes_first(kind, fitted):
    tokens = real_tokens(long_prompts(fitted, prompt=kind))
    assert tokens[0] == 1
    assert 1 not in tokens[1:]


def test_smolvla_has_no_begin_of_text_token(fitted):
    transforms = long_prompts(fitted, prompt="smolvla")
    tokenizer = Tokenizer.from_str(transforms.tokenizer_json)
    expected = tokenizer.encode("push the red block\n", add_special_tokens=False).ids
    assert real_tokens(transforms) == expected


def test_pi0_tokenizes_the_newline_by_itself(fitted):
    transforms = long_prompts(fitted, prompt="pi0")
    tokenizer = Tokenizer.from_str(transforms.tokenizer_json)
    text = tokenizer.encode("push the red block", add_special_tokens=False).ids
    newline = tokenizer.encode("\n", add_special_tokens=False).ids
    assert real_tokens(transforms) == [1, *text, *newline]


def test_pi05_says_the_normalized_state_of_the_robots_own_columns(fitted):
    """The model's state has five columns, the robot's four; quantiles make [-1, 1] of them."""
    transforms = long_prompts(fitted, prompt="pi05", state_normalization="quantiles")
    stats = transforms.statistics.state
    low, high = np.array(stats.q01), np.array(stats.q99)
    normal = (observation().state - low) / (high - low) * 2 - 1
    steps = np.floor((normal + 1) * 128).clip(-1, 255).astype(int)
    tokenizer = Tokenizer.from_str(transforms.tokenizer_json)
    text = f"Task: push the red block, State: {' '.join(map(str, steps))};\nAction: "
    assert real_tokens(transforms) == [1, *tokenizer.encode(text).ids]


def test_a_prompt_that_is_too_long_is_refused_and_not_cut(fitted):
    with pytest.raises(
        UserError, match=r"tokens in 'push.*pi05; expected at most 16.*raise policy\.model\.max_"
    ):
        fitted(prompt="pi05").encode(observation())


def test_special_tokens_in_an_instruction_are_refused(fitted):
    with pytest.raises(UserError, match=r"special tokens \['<bos>'\].*Say it in other words"):
        fitted().encode(observation("push <bos> the block"))


def without_bos(tokenizer_json: str) -> str:
    return tokenizer_json.replace(BOS, "<start>")


def test_a_tokenizer_without_begin_of_text_is_refused_where_the_prompt_starts_with_it(fitted):
    transforms = fitted()
    bare = without_bos(transforms.tokenizer_json)
    for kind in ("pi0", "lerobot_pi0", "pi05", "pi05_padded_state", "pi05_no_state"):
        config = transforms.config.model_copy(update={"prompt": kind})
        with pytest.raises(UserError, match=r"no token '<bos>'.*Give the tokenizer"):
            replace(transforms, config=config, tokenizer_json=bare)
    for kind in ("plain", "cased", "smolvla"):
        config = transforms.config.model_copy(update={"prompt": kind})
        assert replace(transforms, config=config, tokenizer_json=bare)


def test_marks_behind_the_words_need_no_embedding():
    """PaliGemma's tokenizer ends in <image>, for which pi0 has no row."""
    tokenizer = train_tokenizer(["push the red block"], 270)
    tokenizer.add_special_tokens([AddedToken("<image>", special=True)])
    assert tokenizer.get_vocab_size() == 271
    assert text_vocabulary_size(tokenizer) == 270
    tokenizer.add_tokens([AddedToken("cube", special=False)])
    assert text_vocabulary_size(tokenizer) == 272


def test_begin_of_text_behind_the_words_needs_its_embedding():
    tokenizer = Tokenizer.from_str(without_bos(train_tokenizer(["push"], 260).to_str()))
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    tokenizer.add_special_tokens([AddedToken(BOS, special=True)])
    assert text_vocabulary_size(tokenizer) == tokenizer.get_vocab_size()


def test_pieces_are_tokenized_one_by_one():
    tokenizer = train_tokenizer(["push push push the the block"] * 3, 280)
    ids = tokenize(tokenizer, ["push", "the"], with_bos=True)
    assert ids == [1, *tokenizer.encode("push").ids, *tokenizer.encode("the").ids]


def test_a_tokenizer_is_read_from_a_file_or_its_directory(tmp_path):
    text = train_tokenizer(["push"], 260).to_str()
    (tmp_path / "tokenizer.json").write_text(text)
    assert read_tokenizer(tmp_path, "here") == text
    assert read_tokenizer(tmp_path / "tokenizer.json", "here") == text


def test_a_missing_or_damaged_tokenizer_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"policy.tokenizer: found no file.*save_pretrained"):
        read_tokenizer(tmp_path, "policy.tokenizer")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"no tokenizer \(.*Copy it again"):
        read_tokenizer(tmp_path, "policy.tokenizer")


def test_a_prompt_that_only_some_states_make_too_long_is_found_at_once(fitted):
    said = fitted(prompt="pi05")
    tokens = (said.tokenizer_json, "push", "pi05")
    every = [len(prompt_ids(*tokens, np.full(4, at), 5)) for at in np.linspace(-1.5, 1.5, 1000)]
    longest = longest_prompt(*tokens, 4, 5)
    assert longest == max(every) > min(every)
    faults = said.prompt_faults("push", "demo_0, step 0")
    assert faults[0].startswith(f"demo_0, step 0, instruction: found {longest} tokens")
    assert fitted(prompt="pi0").prompt_faults("push", "demo_0, step 0") == []
