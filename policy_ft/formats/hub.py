"""Checkpoints on a hub, through huggingface_hub, which also knows its address and the login.

What is asked for by a hub id comes from the local cache where there is no network.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from httpx2 import TransportError
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging

from policy_ft.checkpoints.atomic import atomic_directory
from policy_ft.errors import UserError, describe
from policy_ft.formats.embodiments.robot_beside import EMBODIMENT_FILE

READ_FILES: Final = (
    *("*.json", "*.safetensors", "*.md", "params/*", "assets/*"),
    EMBODIMENT_FILE,
)
"""What is downloaded: never pickles."""

TRAINING_STATES: Final = ("training_state/*", "train_state/*", "*/training_state/*")
"""What is not, though its names fit: as large as the weights, and of no use without the run."""

_NOT_HERE: Final = "no such path here, and of the hub "
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(text: str) -> bool:
    """Whether a text may name a repository on the hub: 'owner/name'."""
    return _HUB_ID.fullmatch(text) is not None


def is_remote(text: str) -> bool:
    """Whether a text is asked of the hub: 'owner/name' where no directory 'owner' is here."""
    return is_hub_id(text) and not Path(text).parent.is_dir()


def pull(repo_id: str, directory: Path | None = None, patterns: Sequence[str] = READ_FILES) -> Path:
    """The directory of a checkpoint that is downloaded from the hub.

    Args:
        repo_id: 'owner/name'.
        directory: where to put it, complete or not at all; the hub's own cache when not given.
        patterns: shell patterns of the files to download.

    Raises:
        UserError: the id cannot be one, there is no such repository, no permission or no network,
            or the directory holds files.
    """
    if directory is None:
        with _telling(repo_id, _NOT_HERE, _filling(repo_id)):
            return _download(repo_id, patterns, None)
    _require_id(repo_id)
    remedy = "Run it again where there is a network, and copy the directory here."
    with atomic_directory(directory) as unfinished, _telling(repo_id, "", remedy):
        _download(repo_id, patterns, unfinished)
    return directory


def pull_file(repo_id: str, name: str) -> Path:
    """The path of one file that is downloaded from the hub into its cache; errors as `pull`."""
    with _telling(repo_id, _NOT_HERE, _filling(repo_id, f" --only {name}")):
        # asks once, where hf_hub_download asks five times and waits in between
        path = _download(repo_id, [name], None) / name
    if not path.is_file():
        remedy = "Correct the id; the repository's page lists its files."
        raise UserError(describe(repo_id, f"a repository without {name}", name, remedy))
    return path


def push(directory: Path, repo_id: str, *, is_private: bool) -> str:
    """Upload a checkpoint directory; returns the address of the commit.

    Args:
        directory: of a checkpoint, of any format.
        repo_id: 'owner/name'; made when it does not exist.
        is_private: whether a repository that is made now is private.

    Raises:
        UserError: the id cannot be one, or there is no permission or no network.
    """
    _require_id(repo_id)
    api = HfApi()
    with _telling(repo_id, "", "Run it again where there is a network."):
        api.create_repo(repo_id, private=is_private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=directory))


def _download(repo_id: str, patterns: Sequence[str], directory: Path | None) -> Path:
    return Path(
        snapshot_download(
            repo_id,
            allow_patterns=list(patterns),
            ignore_patterns=list(TRAINING_STATES),
            local_dir=directory,
        )
    )


def _require_id(repo_id: str) -> None:
    if not is_hub_id(repo_id):
        remedy = "Write the owner's name, a slash and the repository's name."
        raise UserError(describe("repository", repr(repo_id), "'owner/name'", remedy))


def _filling(text: str, only: str = "") -> str:
    """How to get what a text means that may be a path or a hub id."""
    return (
        f"Give the path of a local directory, filled with `policy-ft pull OWNER/NAME {text}{only}`"
        f", or, if this is an id, with `policy-ft pull {text} DIRECTORY{only}`, where there is a "
        "network."
    )


@contextmanager
def _telling(repo_id: str, before: str, offline: str) -> Iterator[None]:
    """The library's errors as ours, and nothing else of what it has to say.

    Args:
        repo_id: what was asked for.
        before: what was found before the hub was asked.
        offline: what to do without a network.
    """
    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    except (GatedRepoError, LocalTokenNotFoundError) as error:
        remedy = "Accept its terms on its page, and log in with `hf auth login`."
        raise UserError(describe(repo_id, _short(error), "permission to use it", remedy)) from None
    except RepositoryNotFoundError as error:
        remedy = "Correct the id, or log in with `hf auth login` if the repository is private."
        remedy = f"{remedy} {offline}" if before else remedy
        found = f"{before}{_short(error)}"
        raise UserError(describe(repo_id, found, "a repository", remedy)) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, TransportError) as error:
        expected = "a network or a copy in the hub's cache" if before else "a network"
        found = f"{before}{_short(error)}"
        raise UserError(describe(repo_id, found, expected, offline)) from None
    except (EntryNotFoundError, HFValidationError, HfHubHTTPError) as error:
        remedy = "Correct the id; the repository's page lists its files."
        raise UserError(describe(repo_id, _short(error), "a checkpoint there", remedy)) from None
    finally:
        hub_logging.set_verbosity(level)


def _short(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__} ({lines[0]})"
