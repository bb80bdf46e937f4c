"""A name for the numbers of a dataset: equal iff numbers, sentences and declarations are."""

import hashlib
from collections.abc import Iterable

import numpy as np

from data_tools.conventions import Conventions
from data_tools.episode import Episode


def fingerprint(conventions: Conventions, episodes: Iterable[Episode]) -> str:
    """SHA-256 in hex over the conventions and each episode's instruction, states and actions.

    Episodes count in their order. Paths, file layout, attributes and images do not enter: a moved
    or repacked dataset keeps its
    fingerprint, and no frame is read.
    """
    digest = hashlib.sha256()
    _add(digest, conventions.model_dump_json().encode())
    for episode in episodes:
        _add(digest, episode.instruction.encode())
        for array in (episode.state(), episode.actions()):
            _add(digest, repr(array.shape).encode())
            _add(digest, np.ascontiguousarray(array, dtype="<f4").tobytes())
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", data: bytes) -> None:
    # The length goes first, so that no two sequences of parts give the same stream of bytes.
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)
