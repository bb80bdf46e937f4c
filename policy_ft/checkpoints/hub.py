"""Checkpoints on a hub, through huggingface_hub, which also knows its address and the login.

What is asked for by a hub id comes from the local cache where there is no network.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from httpx2 import TransportError
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
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

from policy_ft.checkpoints.atomic import atomic_directory
from policy_ft.errors import UserError, describe

READ_FILES: Final = ("*.json", "*.safetensors", "*.md", "params/*", "assets/*")
"""What is downloaded: never pickles."""

TRAINING_STATES: Final = ("training_state/*", "train_state/*", "*/training_state/*")
"""What is not, though its names fit: as large as the weights, and of no use without the run."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(text: str) -> bool:
    """Whether a text may name a repository on the hub: 'owner/name'."""
    return _HUB_ID.fullmatch(text) is not None


def pull(repo_id: str, directory: Path | None = None, patterns: Sequence[str] = READ_FILES) -> Path:
    """The directory of a checkpoint that is downloaded from the hub.

    Args:
        repo_id: 'owner/name'.
        directory: where to put it, complete or not at all; the hub's own cache when not given.
        patterns: shell patterns of the files to download.

    Raises:
        UserError: there is no such repository, no permission or no network, or the directory holds
            files.
    """
    if directory is None:
        return _download(repo_id, patterns, None)
    with atomic_directory(directory) as unfinished:
        _download(repo_id, patterns, unfinished)
    return directory


def pull_file(repo_id: str, name: str) -> Path:
    """The path of one file that is downloaded from the hub into its cache; errors as `pull`."""
    with _telling(repo_id):
        return Path(hf_hub_download(repo_id, name))


def push(directory: Path, repo_id: str, *, is_private: bool) -> str:
    """Upload a checkpoint directory; returns the address of the commit.

    Args:
        directory: of a checkpoint, of any format.
        repo_id: 'owner/name'; made when it does not exist.
        is_private: whether a repository that is made now is private.

    Raises:
        UserError: the id cannot be one, or there is no permission or no network.
    """
    if not is_hub_id(repo_id):
        remedy = "Write the owner's name, a slash and the repository's name."
        raise UserError(describe("repository", repr(repo_id), "'owner/name'", remedy))
    api = HfApi()
    with _telling(repo_id):
        api.create_repo(repo_id, private=is_private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=directory))


def _download(repo_id: str, patterns: Sequence[str], directory: Path | None) -> Path:
    with _telling(repo_id):
        return Path(
            snapshot_download(
                repo_id,
                allow_patterns=list(patterns),
                ignore_patterns=list(TRAINING_STATES),
                local_dir=directory,
            )
        )


@contextmanager
def _telling(repo_id: str) -> Iterator[None]:
    """The library's errors as ours."""
    try:
        yield
    except (GatedRepoError, LocalTokenNotFoundError) as error:
        remedy = "Accept its terms on its page, and log in with `hf auth login`."
        raise UserError(describe(repo_id, _short(error), "permission to use it", remedy)) from None
    except RepositoryNotFoundError as error:
        remedy = "Correct the id, or log in with `hf auth login` if the repository is private."
        raise UserError(describe(repo_id, _short(error), "a repository", remedy)) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, TransportError) as error:
        remedy = (
            "Give the path of a local directory, or download it where there is a network "
            f"(`policy-ft pull {repo_id} DIRECTORY`) and copy it here."
        )
        expected = "a network or a copy in the hub's cache"
        raise UserError(describe(repo_id, _short(error), expected, remedy)) from None
    except (EntryNotFoundError, HFValidationError, HfHubHTTPError) as error:
        remedy = "Correct the id; the repository's page lists its files."
        raise UserError(describe(repo_id, _short(error), "a checkpoint there", remedy)) from None


def _short(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__} ({lines[0]})"
