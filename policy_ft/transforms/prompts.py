"""From an instruction to token ids, as the model at hand was trained to read it."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from policy_ft.config.transforms import Prompt
from policy_ft.errors import describe
from policy_ft.transforms.tokenization import (
    BOS,
    TOKENIZER_FILE,
    parse_tokenizer,
    special_tokens,
    text_vocabulary_size,
    tokenize,
)

Array = npt.NDArray[Any]

OWN_PROMPTS: Final = ("plain", "cased")
STATE_PROMPTS: Final = ("pi05", "pi05_padded_state")
# 256 steps of 1/128 from -1 on: openpi's PaligemmaTokenizer
STATE_EDGES: Final = np.linspace(-1.0, 1.0, 257)[:-1]


def prompt_text(instruction: str, prompt: Prompt) -> str:
    """The instruction as this prompt holds it.

    " Pick up_the  RED cube " becomes "pick up_the red cube" for plain, "Pick up_the RED cube" for
    cased, "Pick up the  RED cube" for pi0 and all of pi05, and stays as it is for lerobot_pi0 and
    smolvla.
    """
    match prompt:
        case "plain":
            return " ".join(instruction.split()).lower()
        case "cased":
            return " ".join(instruction.split())
        case "lerobot_pi0" | "smolvla":
            return instruction
    return instruction.strip().replace("_", " ").replace("\n", " ")


def prompt_pieces(instruction: str, prompt: Prompt, state: Array, state_dim: int) -> list[str]:
    r"""The texts that are tokenized one by one and then joined.

    For "pick_up" and the state [0.0, 0.5]: pi0 ["pick up", "\n"], pi05
    ["Task: pick up, State: 128 192;\nAction: "], pi05_no_state ["Task: pick up;\nAction: "],
    smolvla and lerobot_pi0 ["pick_up\n"], plain and cased ["pick_up"].

    Args:
        instruction: as given.
        prompt: the form.
        state: float[s], normalized; said in steps of 1/128, 0 from -1 on, -1 below, 255 above 1.
        state_dim: columns of the padded state, which pi05_padded_state says as well.
    """
    text = prompt_text(instruction, prompt)
    match prompt:
        case "plain" | "cased":
            return [text]
        case "pi0":
            return [text, "\n"]
        case "lerobot_pi0" | "smolvla":
            return [text if text.endswith("\n") else f"{text}\n"]
        case "pi05_no_state":
            return [f"Task: {text};\nAction: "]
    width = state_dim if prompt == "pi05_padded_state" else len(state)
    said = np.pad(state, (0, width - len(state)))
    steps = np.digitize(said, STATE_EDGES) - 1
    return [f"Task: {text}, State: {' '.join(map(str, steps))};\nAction: "]


def prompt_ids(
    tokenizer_json: str, instruction: str, prompt: Prompt, state: Array, state_dim: int
) -> tuple[int, ...]:
    """Token ids of the whole prompt; the arguments are those of `prompt_pieces`."""
    pieces = tuple(prompt_pieces(instruction, prompt, state, state_dim))
    if prompt in STATE_PROMPTS:  # hardly ever the same twice
        return _ids(tokenizer_json, pieces, prompt)
    return _remembered_ids(tokenizer_json, pieces, prompt)


def longest_prompt(
    tokenizer_json: str, instruction: str, prompt: Prompt, width: int, state_dim: int
) -> int:
    """Tokens of the longest prompt that an instruction can make, whatever the state.

    Args:
        tokenizer_json: the tokenizer.
        instruction: as given.
        prompt: the form.
        width: columns of the robot's state, which a prompt may say.
        state_dim: columns of the padded state.
    """
    edges = (-2.0, *STATE_EDGES) if prompt in STATE_PROMPTS else (0.0,)
    states = (np.full(width, edge) for edge in edges)
    return max(
        len(prompt_ids(tokenizer_json, instruction, prompt, state, state_dim)) for state in states
    )


def vocabulary_size(tokenizer_json: str) -> int:
    """How many embeddings the model needs for this tokenizer."""
    return text_vocabulary_size(_tokenizer(tokenizer_json))


def tokenizer_faults(tokenizer_json: str, prompt: Prompt) -> Iterator[str]:
    """A tokenizer without the begin-of-text token that this prompt starts with.

    Raises:
        UserError: the text is no tokenizer.
    """
    has_bos = _tokenizer(tokenizer_json).token_to_id(BOS) is not None
    if not has_bos and prompt not in (*OWN_PROMPTS, "smolvla"):
        remedy = "Give the tokenizer the model was pretrained with (PaliGemma's)."
        found, expected = f"no token {BOS!r}", f"one, as the prompt {prompt!r} starts with it"
        yield describe(TOKENIZER_FILE, found, expected, remedy)


def instruction_faults(tokenizer_json: str, instruction: str, where: str) -> Iterator[str]:
    """Special tokens written out in an instruction, which would be read as what they mark."""
    marks = _marks_in(tokenizer_json, instruction)
    if marks:
        found = f"the special tokens {list(marks)} in {instruction!r}"
        remedy = "Say it in other words: these would not be read as text."
        yield describe(f"{where}, instruction", found, "plain words", remedy)


@lru_cache(maxsize=8)
def _tokenizer(tokenizer_json: str) -> Tokenizer:
    return parse_tokenizer(tokenizer_json, TOKENIZER_FILE)


@lru_cache(maxsize=4096)
def _marks_in(tokenizer_json: str, instruction: str) -> tuple[str, ...]:
    marks = special_tokens(_tokenizer(tokenizer_json))
    return tuple(mark for mark in marks if mark in instruction)


def _ids(tokenizer_json: str, pieces: tuple[str, ...], prompt: Prompt) -> tuple[int, ...]:
    tokenizer = _tokenizer(tokenizer_json)
    return tuple(tokenize(tokenizer, pieces, with_bos=prompt != "smolvla"))


_remembered_ids = lru_cache(maxsize=4096)(_ids)
