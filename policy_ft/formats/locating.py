"""Where a checkpoint is, and whose format it has: ours, openpi's or LeRobot's; hub ids too."""

from pathlib import Path
from typing import Final, Literal, NamedTuple

from policy_ft.checkpoints.atomic import is_unfinished
from policy_ft.checkpoints.native import MODEL_FILE, PROVENANCE_FILE
from policy_ft.checkpoints.tensor_files import INDEX_SUFFIX, WEIGHTS_FILE
from policy_ft.errors import UserError, describe, nearest, read_json
from policy_ft.formats.hub import is_remote, pull
from policy_ft.formats.lerobot.read_lerobot import ADAPTER_FILE, LEROBOT_FILES
from policy_ft.formats.openpi.read_openpi import PARAMS_DIRECTORY
from policy_ft.formats.published import (
    CONFIG_FILE,
)

CheckpointFormat = Literal["native", "openpi", "lerobot"]


# where LeRobot's trainer puts what it saves, below the directory of a run
_LEROBOT_PLACES: Final = ("pretrained_model", "last/pretrained_model")


_LEROBOT_PLACES_OF_RUNS: Final = ("checkpoints/last/pretrained_model",)


NATIVE_FILES: Final = (MODEL_FILE, PROVENANCE_FILE, "transforms.json")
"""Any of them makes a directory ours, so that what is missing is told as what it is."""


_LEROBOT_AVERAGE: Final = "pretrained_model_ema"


_PICKLES: Final = (".pt", ".pth", ".ckpt", ".bin", ".pkl")


class Located(NamedTuple):
    """A checkpoint on the disk and the format of its directory; openpi covers its JAX weights."""

    directory: Path
    format: CheckpointFormat


def locate(path: str | Path) -> Located:
    """The checkpoint that a path or hub id means.

    Raises:
        UserError: there is none, there are several, or the weights are pickled.
    """
    directory = Path(path)
    if not directory.exists() and isinstance(path, str) and is_remote(path):
        directory = pull(path)
    if not directory.is_dir():
        raise UserError(describe(str(path), *_no_directory(directory)))
    if directory.name == PARAMS_DIRECTORY and not _formats(directory):
        directory = directory.resolve().parent
    places = [directory / name for name in ("", *_LEROBOT_PLACES, *_LEROBOT_PLACES_OF_RUNS)]
    for place in places:
        formats = _formats(place)
        twin = place.parent / _LEROBOT_AVERAGE
        if place != directory and formats and _formats(twin):
            remedy = "Give one of the two; the second holds the running average of the weights."
            found = f"{place.name} and {twin.name}"
            raise UserError(describe(str(place.parent), found, "one checkpoint", remedy))
        if len(formats) == 1:
            return Located(place, formats[0])
        if formats:
            remedy = "Move the files of all but one of them to a directory of their own."
            found = f"files of several checkpoints: {', '.join(formats)}"
            raise UserError(describe(str(place), found, "one", remedy))
    raise UserError(describe(str(directory), *_no_checkpoint(directory)))


def _formats(directory: Path) -> list[CheckpointFormat]:
    """The formats whose files are there."""
    if any((directory / name).is_file() for name in NATIVE_FILES):
        return ["native"]
    weights = (WEIGHTS_FILE, WEIGHTS_FILE + INDEX_SUFFIX, ADAPTER_FILE)
    has_weights = any((directory / name).is_file() for name in weights)
    found: list[CheckpointFormat] = []
    if has_weights:
        found.append("lerobot" if _is_lerobot(directory) else "openpi")
    if (directory / PARAMS_DIRECTORY).is_dir():
        found.append("openpi")
    return found


def _is_lerobot(directory: Path) -> bool:
    """Whether there are files that openpi never writes, or config.json names a kind of policy."""
    if any((directory / name).is_file() for name in LEROBOT_FILES):
        return True
    config = directory / CONFIG_FILE
    if not config.is_file():
        return False
    document = read_json(config)
    return isinstance(document, dict) and not {"type", "input_features"}.isdisjoint(document)


def _no_directory(path: Path) -> tuple[str, str, str]:
    """What to say of a path that is none of a directory: found, expected, remedy."""
    found = "a file" if path.exists() else "no such directory"
    parent = path.parent
    beside = [place.name for place in parent.iterdir() if place.is_dir()] if parent.is_dir() else []
    hint = nearest(path.name, beside)
    remedy = f"Correct the path, or give a hub id 'owner/name'{f'; {hint}' if hint else '.'}"
    return found, "a checkpoint directory", remedy


def _no_checkpoint(directory: Path) -> tuple[str, str, str]:
    """What to say of a directory without a checkpoint: found, expected, remedy."""
    expected = "a checkpoint directory of policy_ft, openpi or LeRobot"
    found = f"neither {MODEL_FILE} nor {WEIGHTS_FILE}"
    names = (MODEL_FILE, WEIGHTS_FILE, WEIGHTS_FILE + INDEX_SUFFIX)
    places = {path.parent for name in names for path in directory.glob(f"**/{name}")}
    below = sorted(str(place) for place in places if not is_unfinished(place))
    if below:
        remedy = f"Give a directory that has them, e.g. {', '.join(below[-3:])}."
        return found, expected, remedy
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in _PICKLES)
    if pickles:
        remedy = "Save the weights as safetensors; pickles can run code and are never opened."
        return f"only the pickled {pickles}", expected, remedy
    return found, expected, "Copy the whole directory again."
