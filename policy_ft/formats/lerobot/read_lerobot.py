"""Checkpoint directories of LeRobot: config.json, one file of weights, processor files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from policy_ft.checkpoints.tensor_files import (
    INDEX_SUFFIX,
    WEIGHTS_FILE,
    TensorFiles,
    tensor_files,
)
from policy_ft.errors import UserError, describe, raise_faults, read_json
from policy_ft.formats.embodiments import Embodiment
from policy_ft.formats.lerobot.lerobot_config import (
    LerobotConfig,
    config_notes,
    read_lerobot_config,
    stated_sizes,
)
from policy_ft.formats.lerobot.lerobot_processors import (
    POSTPROCESSOR,
    PREPROCESSOR,
    TOKENIZER_STEP,
    Processors,
    read_processors,
)
from policy_ft.formats.lerobot.lerobot_robot import LerobotRobot
from policy_ft.formats.published import (
    CONFIG_FILE,
    Published,
    no_tokenizer,
    read_names,
    tokenizer_beside,
    twin_notes,
    unread_notes,
)
from policy_ft.formats.required_tensors import require_size_tensors
from policy_ft.formats.sizes import Stated, model_config
from policy_ft.formats.tensor_names import PublishedNames
from policy_ft.transforms.tokenization import TOKENIZER_FILE

ADAPTER_FILE: Final = "adapter_model.safetensors"
TRAIN_CONFIG_FILE: Final = "train_config.json"
TOKENIZER_DIRECTORY: Final = "tokenizer"
LEROBOT_FILES: Final = (ADAPTER_FILE, PREPROCESSOR, POSTPROCESSOR, TRAIN_CONFIG_FILE)
"""Any of them makes a directory LeRobot's, so that what is missing is told as what it is."""

_POSITIONS: Final = "backbone.vision.embeddings.position_embedding.weight"


def read_lerobot(
    directory: Path, embodiment: Embodiment | None = None, tokenizer_json: str | None = None
) -> Published:
    """What a LeRobot checkpoint says beside its weights.

    Args:
        directory: the pretrained_model directory, with config.json.
        embodiment: the robot it is used for; not given, the features of config.json name cameras
            and widths, and the rest is declared unknown.
        tokenizer_json: used instead of the directory's own.

    Raises:
        UserError: an adapter instead of weights, weights of no known family or of another than
            config.json says, sizes that disagree, settings whose effect is not implemented, or a
            damaged file.
    """
    _refuse_adapter(directory)
    config, document = read_lerobot_config(directory / CONFIG_FILE)
    files, names, shapes = _read_weights(directory, config)
    processors = read_processors(directory, files)
    stated = _stated(config, document, processors, embodiment)
    documents = {**_documents(directory, document), **processors.documents}
    train_config = documents.get(TRAIN_CONFIG_FILE)
    is_old = _is_old(config, processors, train_config)
    old_ways = ["images and prompts"] if is_old and config.family != "smolvla" else []
    if _has_shifted_positions(is_old, config, stated, files, names):
        stated["vision.shifted_positions"] = Stated("weights in float32", value=True)
        old_ways.append("image positions shifted by one")
    model, assumed = model_config(names.family, shapes, stated, str(directory))
    robot = LerobotRobot(directory, config, processors, model, embodiment, is_old)
    raise_faults(robot.faults())
    found = robot.statistics()
    absent = {} if found.absent is None else {"statistics": found.absent}
    tokenizer_json = tokenizer_json or _own_tokenizer(directory, processors)
    if tokenizer_json is None:
        absent["tokenizer"] = no_tokenizer(directory, names.family)
    notes = (
        *config_notes(document, model.action_horizon),
        *(_old_note(what, train_config) for what in old_ways),
        *found.notes,
        *robot.notes(),
        *twin_notes(files, names),
        *unread_notes(directory, [*files, *(directory / name for name in documents)]),
    )
    return Published(
        directory=directory,
        format="lerobot",
        files=files,
        names=names,
        config=model,
        transforms_config=robot.transforms_config,
        conventions=robot.conventions,
        statistics=found.statistics,
        tokenizer_json=tokenizer_json,
        absent=absent,
        has_unfit_statistics=found.is_unfit,
        documents=documents,
        assumed=assumed,
        notes=notes,
    )


def _stated(
    config: LerobotConfig,
    document: Mapping[str, Any],
    processors: Processors,
    embodiment: Embodiment | None,
) -> dict[str, Stated]:
    """The sizes that config.json, the processors and the embodiment state."""
    stated = stated_sizes(config, document)
    length = processors.of(TOKENIZER_STEP).max_length
    if length is not None:
        stated["max_prompt_tokens"] = Stated("tokenizer_processor.max_length", length)
    if embodiment is not None:
        # no weight belongs to a slot, and LeRobot makes as many as the robot has cameras
        stated["num_cameras"] = Stated("embodiment, cameras", len(embodiment.cameras))
    return stated


def _refuse_adapter(directory: Path) -> None:
    if not (directory / ADAPTER_FILE).is_file():
        return
    if any((directory / name).is_file() for name in (WEIGHTS_FILE, WEIGHTS_FILE + INDEX_SUFFIX)):
        found = f"weights and an adapter ({ADAPTER_FILE})"
        expected = "one of the two, for nobody says whether the weights have the adapter in them"
        remedy = (
            "Merge the adapter into its base (peft: merge_and_unload), or move the one that is not "
            "meant elsewhere."
        )
        raise UserError(describe(str(directory), found, expected, remedy))
    found = f"an adapter ({ADAPTER_FILE}) without the weights it adapts"
    remedy = "Merge it into its base first (peft: merge_and_unload) and load the result."
    raise UserError(describe(str(directory), found, WEIGHTS_FILE, remedy))


def _read_weights(
    directory: Path, config: LerobotConfig
) -> tuple[tuple[Path, ...], PublishedNames, dict[str, tuple[int, ...]]]:
    """The files, names and shapes of the weights; UserError where they are not config.json's."""
    files = tuple(tensor_files(directory / WEIGHTS_FILE))
    names, shapes = read_names(files)
    if names.family != config.family:
        remedy = "Take config.json and weights from the same checkpoint; pi0 does not become pi0.5."
        where, found = f"{directory / CONFIG_FILE}, type", repr(config.type)
        raise UserError(describe(where, found, f"{names.family!r}, as the weights are", remedy))
    require_size_tensors(names, shapes, str(directory))
    return files, names, shapes


def _is_old(config: LerobotConfig, processors: Processors, train_config: Any) -> bool:
    """Whether LeRobot up to 0.4.4 trained it, as far as its files can tell.

    0.5.1 brought use_relative_actions to the config.json of pi0 and pi0.5, and 0.5.0
    cudnn_deterministic to train_config.json. Of pi0 and pi0.5 there are bases that LeRobot
    converted and did not train; those hold no statistics.
    """
    was_trained_here = processors.has_statistics or config.family == "smolvla"
    has_mark = isinstance(train_config, dict) and "cudnn_deterministic" in train_config
    return was_trained_here and config.use_relative_actions is None and not has_mark


def _has_shifted_positions(
    is_old: bool,
    config: LerobotConfig,
    stated: Mapping[str, Stated],
    files: Sequence[Path],
    names: PublishedNames,
) -> bool:
    """Whether the policy was trained with SmolVLM's positions rounded as in float32.

    So it was where the vision tower is stored, and was run, in float32; unless config.json says.
    """
    if not is_old or config.family != "smolvla" or "vision.shifted_positions" in stated:
        return False
    with TensorFiles(files) as stored:
        name = names.stored_name(_POSITIONS)
        return name in stored.headers and stored.tensor(name).dtype == torch.float32


def _old_note(what: str, train_config: Any) -> str:
    """What to say of something that LeRobot up to 0.4.4 does its own way."""
    text = f"{what} as LeRobot up to 0.4.4 has them"
    if train_config is not None:
        return f"{text}: {TRAIN_CONFIG_FILE} has no cudnn_deterministic"
    return f"{text}: without {TRAIN_CONFIG_FILE} it cannot be told apart from 0.5.0 or later"


def _own_tokenizer(directory: Path, processors: Processors) -> str | None:
    """The tokenizer beside the weights, in the directory that the processors name."""
    name = processors.of(TOKENIZER_STEP).tokenizer_name
    places = [f"{TOKENIZER_DIRECTORY}/{TOKENIZER_FILE}", TOKENIZER_FILE]
    if name is not None and (directory / name).resolve().is_relative_to(directory.resolve()):
        places.insert(0, f"{name}/{TOKENIZER_FILE}")
    return tokenizer_beside(directory, places)


def _documents(directory: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    documents = {CONFIG_FILE: config}
    tokenizer = sorted((directory / TOKENIZER_DIRECTORY).glob("*.json"))
    for path in (directory / TRAIN_CONFIG_FILE, *tokenizer):
        if path.is_file() and path.name != TOKENIZER_FILE:
            documents[path.relative_to(directory).as_posix()] = read_json(path)
    return documents
