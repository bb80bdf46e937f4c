"""What published checkpoints call their tensors, and what they are called here.

The names differ by their beginnings alone, so one table read in both directions does the whole job.
Source: the state dicts of openpi's PI0Pytorch and of LeRobot's pi0, pi0.5 and SmolVLA policies.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from policy_ft.config.model import ModelConfig
from policy_ft.errors import UserError, describe

PiFamily = Literal["pi0", "pi05"]
PublishedFamily = Literal["pi0", "pi05", "smolvla"]

LEROBOT_ROOT = "model."
"""What LeRobot puts before every weight; openpi, and some LeRobot files on the hub, do not."""

STATISTICS_ROOTS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
"""How LeRobot before 0.4 began the names of statistics, which lay among the weights."""

EMBEDDING = "backbone.language.embed_tokens.weight"

PALIGEMMA = "paligemma_with_expert.paligemma."
EXPERT = "paligemma_with_expert.gemma_expert."
_SMOLVLM = "vlm_with_expert.vlm."

PI_HEADS: dict[PiFamily, tuple[str, ...]] = {
    "pi0": (
        "action_in_proj",
        "action_out_proj",
        "state_proj",
        "action_time_mlp_in",
        "action_time_mlp_out",
    ),
    "pi05": ("action_in_proj", "action_out_proj", "time_mlp_in", "time_mlp_out"),
}
"""The linear layers around the expert, under their names in files."""


@dataclass(frozen=True)
class NameTable:
    """The names of one family, without LeRobot's root.

    Attributes:
        starts: (start of a name in files, start of the name here). The first that fits decides in
            both directions, so of two file names of one tensor the earlier is the one written.
        dead: name in files of a head that no computation uses.
        tied: (name in files, its other name in files) of one tensor, or empty. Files hold either or
            both; where they differ the second is the one that was trained.
    """

    starts: tuple[tuple[str, str], ...]
    dead: str
    tied: tuple[str, ...] = ()

    def live_name(self, name: str) -> str | None:
        """The model's name of a stored tensor; None for a dead head; the same if unknown."""
        if name == self.dead:
            return None
        for stored, live in self.starts:
            if name.startswith(stored):
                return live + name.removeprefix(stored)
        return name

    def stored_name(self, live: str) -> str:
        """The name in files of a parameter of the model."""
        for stored, start in self.starts:
            if live.startswith(start):
                return stored + live.removeprefix(start)
        raise ValueError(f"parameter {live!r}: no published file has it; {list(self.starts)}")


def _heads(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{name}.", f"expert.{name}.") for name in names)


def _pi_names(family: PiFamily) -> NameTable:
    head = f"{PALIGEMMA}lm_head.weight"
    return NameTable(
        starts=(
            (head, EMBEDDING),
            (f"{PALIGEMMA}model.vision_tower.vision_model.", "backbone.vision."),
            (f"{PALIGEMMA}model.multi_modal_projector.linear.", "backbone.projector."),
            (f"{PALIGEMMA}model.language_model.", "backbone.language."),
            *_heads(*PI_HEADS[family]),
            (f"{EXPERT}model.", "expert."),
        ),
        dead=f"{EXPERT}lm_head.weight",
        tied=(head, f"{PALIGEMMA}model.language_model.embed_tokens.weight"),
    )


NAMES: dict[PublishedFamily, NameTable] = {
    "pi0": _pi_names("pi0"),
    "pi05": _pi_names("pi05"),
    "smolvla": NameTable(
        starts=(
            (f"{_SMOLVLM}model.vision_model.", "backbone.vision."),
            (f"{_SMOLVLM}model.connector.modality_projection.proj.", "backbone.projector."),
            (f"{_SMOLVLM}model.text_model.", "backbone.language."),
            ("state_proj.", "backbone.state_proj."),
            *_heads("action_in_proj", "action_out_proj"),
            *_heads("action_time_mlp_in", "action_time_mlp_out"),
            ("vlm_with_expert.lm_expert.", "expert."),
        ),
        dead=f"{_SMOLVLM}lm_head.weight",
    ),
}

_PI_MARKS: dict[PublishedFamily, tuple[str, ...]] = {
    "pi0": ("state_proj.", "action_time_mlp_in.", f"{EXPERT}model.norm.weight"),
    "pi05": ("time_mlp_in.", f"{EXPERT}model.norm.dense."),
}
"""How the names begin that tell pi0 from pi0.5."""


@dataclass(frozen=True)
class PublishedNames:
    """The names of one checkpoint's tensors.

    Attributes:
        family: whose table they follow.
        root: LEROBOT_ROOT or empty.
        stored: all names of weights in the files.
    """

    family: PublishedFamily
    root: str
    stored: tuple[str, ...]

    @property
    def table(self) -> NameTable:
        """The family's names."""
        return NAMES[self.family]

    @property
    def twins(self) -> tuple[str, ...]:
        """Both stored names of one tied tensor where the files hold both, else none."""
        pair = tuple(self.root + name for name in self.table.tied)
        return pair if set(pair) <= set(self.stored) else ()

    @property
    def dropped(self) -> tuple[str, ...]:
        """Stored names of weights that fill no parameter: a dead head, the first of two twins.

        LeRobot 0.6 unties the head of PaliGemma, stores it beside the embedding and trains the
        embedding alone.
        """
        unused = (self.root + self.table.dead, *self.twins[:1])
        return tuple(name for name in unused if name in self.stored)

    def live_name(self, name: str) -> str | None:
        """The model's name of a stored tensor; None where it fills no parameter."""
        if name in self.dropped or name.startswith(STATISTICS_ROOTS):
            return None
        return self.table.live_name(name.removeprefix(self.root))

    def stored_name(self, live: str) -> str:
        """The name in these files of a parameter of the model; the same if no such file has it."""
        is_known = any(live.startswith(start) for _, start in self.table.starts)
        return self.root + self.table.stored_name(live) if is_known else live


def published_names(names: Iterable[str], where: str) -> PublishedNames:
    """The family and root of a checkpoint's tensors, told by their names alone.

    Args:
        names: of all tensors in its files; statistics among them are left out.
        where: how messages call the files.

    Raises:
        UserError: the names of no family or of several, or LeRobot's root before some of them only.
    """
    weights = tuple(name for name in names if not name.startswith(STATISTICS_ROOTS))
    family = _family([name.removeprefix(LEROBOT_ROOT) for name in weights], where)
    rooted = [name for name in weights if name.startswith(LEROBOT_ROOT)]
    if rooted and len(rooted) < len(weights):
        bare = next(name for name in weights if not name.startswith(LEROBOT_ROOT))
        found = f"{rooted[0]!r} beside {bare!r}"
        expected = f"{LEROBOT_ROOT!r} before every name or before none"
        raise UserError(describe(where, found, expected, "Use the file as it was published."))
    return PublishedNames(family, LEROBOT_ROOT if rooted else "", weights)


def dead_head_shape(config: ModelConfig) -> tuple[int, int]:
    """Rows and columns of the family's dead head: one row a token."""
    is_smolvla = config.family == "smolvla"
    width = config.language.width if is_smolvla else config.expert.width
    return config.language.vocab_size, width


def _family(names: Sequence[str], where: str) -> PublishedFamily:
    if any(name.startswith("vlm_with_expert.") for name in names):
        return "smolvla"
    if not any(name.startswith("paligemma_with_expert.") for name in names):
        raise UserError(describe(where, *_strangers(names)))
    marks = {
        family: [name for name in names if name.startswith(starts)]
        for family, starts in _PI_MARKS.items()
    }
    found = [family for family, marked in marks.items() if marked]
    if not found:
        remedy = "Give a checkpoint with an action expert; pi0-FAST has none and is not read."
        expected = "those of pi0 or pi05, with an action expert"
        raise UserError(describe(where, "the tensors of a PaliGemma alone", expected, remedy))
    if len(found) > 1:
        seen = [marked[0] for marked in marks.values()]
        remedy = "Use the file as it was published; renaming does not make one of the other."
        expected = "those of pi0 or of pi05"
        raise UserError(describe(where, f"the tensors {seen} of both", expected, remedy))
    return found[0]


def _strangers(names: Sequence[str]) -> tuple[str, str, str]:
    """What to say about a file of another kind: found, expected, remedy."""
    expected = f"those of {', '.join(NAMES)}"
    if any(name.startswith("dit.") for name in names):
        remedy = "Take the same policy from openpi or LeRobot, whose files are read."
        return "the tensors of transformers' PI0ForConditionalGeneration", expected, remedy
    if any(".lora_A." in name or ".lora_B." in name for name in names):
        remedy = "Merge the adapter into its base (peft: merge_and_unload) and load the result."
        return "the tensors of an adapter", expected, remedy
    remedy = "Give the checkpoint of a policy of one of these families."
    return f"{len(names)} tensors such as {sorted(names)[:3]}", expected, remedy
