"""Checks of the sentences: of one episode, and of all together."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Final

from data_tools.errors import shown
from data_tools.finding import DATASET, Finding, Rule

INSTRUCTION_LENGTHS: Final = (3, 200)
PLACEHOLDERS: Final = {
    *("test", "task", "todo", "tbd", "do something", "do the task", "instruction", "none", "null"),
    *("n/a", "unknown", "default", "dummy", "placeholder", "language instruction", "string"),
}
# 'episode_3', 'demo 12', 'trajectory': the name of a recording, not of a task.
_RECORDING: Final = re.compile(r"(episode|demo|traj(ectory)?|task|recording|rollout)[ _-]*\d*")

INSTRUCTION = Rule(
    name="instruction",
    severity="warning",
    sentence="A sentence tells a policy nothing: too short, too long, or a placeholder.",
    threshold="the task in {} to {} characters".format(*INSTRUCTION_LENGTHS),
    remedy="Say what the robot was asked to do.",
)
INSTRUCTION_IS_FILE_NAME = Rule(
    name="instruction_is_file_name",
    severity="warning",
    sentence="A sentence is the name of a file, not what a person would say.",
    threshold="words with spaces",
    remedy="Write the task as a sentence, e.g. with robot-data relabel.",
)
INSTRUCTION_SPACES = Rule(
    name="instruction_spaces",
    severity="warning",
    sentence="A sentence has spaces around it, doubled, or line breaks in it.",
    threshold="words with one space between",
    remedy="Repair it with --fix.",
    repair="Spaces around the sentence are removed, and any run of them becomes one.",
)
INSTRUCTION_NOT_ASCII = Rule(
    name="instruction_not_ascii",
    severity="warning",
    sentence="A sentence has characters beyond ASCII, which many tokenizers split into bytes.",
    threshold="ASCII, unless the language needs more",
    remedy="Replace typographic quotes and invisible characters.",
)
INSTRUCTION_VARIANTS = Rule(
    name="instruction_variants",
    severity="warning",
    sentence="Sentences differ in case or punctuation only: to a policy they are different tasks.",
    threshold="one spelling",
    remedy="Choose one spelling, e.g. with robot-data relabel.",
)
RULES = (
    *(INSTRUCTION, INSTRUCTION_IS_FILE_NAME, INSTRUCTION_SPACES, INSTRUCTION_NOT_ASCII),
    INSTRUCTION_VARIANTS,
)


def check_instructions(episodes: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """What is wrong with each sentence, told of the first episode that has it.

    Args:
        episodes: sentence -> the names of the episodes that have it.
    """
    for instruction, names in episodes.items():
        more = f", in {len(names)} episodes" if len(names) > 1 else ""
        for rule, value in _sentence_faults(instruction, names[0]):
            yield rule.found(names[0], f"{value}{more}")
    yield from _check_variants(episodes)


def _sentence_faults(instruction: str, name: str) -> Iterator[tuple[Rule, str]]:
    text = instruction.strip()
    shortest, longest = INSTRUCTION_LENGTHS
    plain = text.lower().strip(". ")
    is_empty = plain in PLACEHOLDERS or _RECORDING.fullmatch(plain) is not None
    if is_empty or not shortest <= len(text) <= longest:
        yield INSTRUCTION, f"{_shown(text)} ({len(text)} characters)"
        return
    stem = PurePath(name.partition(":")[0]).stem
    if " " not in text and (text == stem or "_" in text):
        yield INSTRUCTION_IS_FILE_NAME, _shown(text)
    if single_spaced(instruction) != instruction:
        yield INSTRUCTION_SPACES, shown(instruction, 60)
    if not text.isascii():
        strange = sorted({letter for letter in text if not letter.isascii()})
        codes = ", ".join(f"U+{ord(letter):04X}" for letter in strange[:5])
        yield INSTRUCTION_NOT_ASCII, f"{_shown(text)} with {codes}"


def single_spaced(text: str) -> str:
    """The sentence without spaces around it, and with one between words."""
    return " ".join(text.split())


def _check_variants(episodes: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    spellings: dict[str, dict[str, int]] = {}
    for text in episodes:
        plain = " ".join(re.sub(r"[^\w]+", " ", text.casefold()).split())
        counts = spellings.setdefault(plain, {})
        # spaces are told of above
        counts[single_spaced(text)] = counts.get(single_spaced(text), 0) + len(episodes[text])
    for counts in spellings.values():
        if len(counts) > 1:
            told = [f"{_shown(text)} ({count} episodes)" for text, count in counts.items()][:4]
            yield INSTRUCTION_VARIANTS.found(DATASET, ", ".join(told))


def _shown(text: str) -> str:
    # ascii(): a terminal or a log may not show what was found to be strange
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")
