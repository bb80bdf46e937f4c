"""The sidecar of a new file: what declares a source goes with its copy, or the copy is refused."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_tools.errors import UserError, describe
from data_tools.files.disk import finished_file
from data_tools.layouts.sidecar import folder_sidecar_of, is_there, sidecar_of


def declaring_sidecar(path: Path, *, is_native: bool, places: Iterable[Path] = ()) -> Path | None:
    """The sidecar by which a file is read, its own or its folder's; None when there is none.

    Args:
        path: the file.
        is_native: whether it declares itself: then only a sidecar of its own goes before that.
        places: what the dataset was opened from; a folder's sidecar is looked for up to there.
    """
    top = next((place for place in places if place in path.parents), path.parent)
    own, of_folder = sidecar_of(path), folder_sidecar_of(path, top)
    if is_there(own):
        return own
    return of_folder if is_there(of_folder) and not is_native else None


def sidecar_for_copy(target: Path, sidecar: Path | None, *, is_native: bool) -> bytes | None:
    """What must lie beside a copy so that it is read as its source; None when nothing is needed.

    Args:
        target: the copy, not yet there.
        sidecar: what declares the source, of `declaring_sidecar`.
        is_native: whether source and copy declare themselves.

    Raises:
        UserError: a sidecar that is there already would speak for the copy, and says something
            else; nothing that a person may have written is ever written over.
    """
    content = None if sidecar is None else sidecar.read_bytes()
    there = declaring_sidecar(target, is_native=is_native)
    if there is None or (there != sidecar_of(target) and content is not None):
        return content  # a sidecar of its own goes before the folder's
    if there.read_bytes() == content:
        return None
    found = f"a declaration that would speak for {target}"
    expected = "none, as for its source" if sidecar is None else f"what {sidecar} says"
    remedy = "Delete it if it is left over, or choose another name or folder."
    raise UserError(describe(str(there), found, expected, remedy))


@contextmanager
def sidecar_beside(target: Path, content: bytes | None) -> Iterator[None]:
    """The sidecar of a file that gets its name in the block; removed again where that fails.

    First the sidecar, then the file: a kill in between leaves nothing that is read wrongly.
    """
    if content is None:
        yield
        return
    own = sidecar_of(target)
    with finished_file(own, is_new=True) as partial:
        partial.write_bytes(content)
    try:
        yield
    except BaseException:
        own.unlink(missing_ok=True)
        raise
