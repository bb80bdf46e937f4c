"""The sidecar of a new file: what declares a source goes with its copy, or the copy is refused."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from data_tools.errors import Faults, UserError, describe
from data_tools.formats.layouts.sidecar import (
    Sidecar,
    folder_sidecars_of,
    is_there,
    read_sidecars,
    sidecar_of,
    with_farther,
)
from data_tools.storage.files.disk import finished_file


def declaring_sidecar(
    path: Path, *, is_native: bool, places: Iterable[Path] = ()
) -> Sidecar | None:
    """What sidecars say of a file, its own and its folders' together; None when there is none.

    Args:
        path: the file.
        is_native: whether it declares itself: then only a sidecar of its own goes before that.
        places: what the dataset was opened from; folders' sidecars are looked for up to there.

    Raises:
        UserError: a sidecar is no YAML or no mapping, or names a layout that we do not know.
    """
    top = next((place for place in places if place in path.parents), path.parent)
    return read_sidecars([sidecar_of(path), *([] if is_native else folder_sidecars_of(path, top))])


def content_of(sidecar: Sidecar) -> bytes:
    """What one file must hold to say what a sidecar says: its bytes, or what several say merged."""
    if len(sidecar.files) == 1:
        return sidecar.path.read_bytes()
    layout = {"preset": sidecar.preset} if sidecar.preset else {}
    layout |= sidecar.layout or {}
    content = {**({"layout": layout} if layout else {}), **sidecar.overrides}
    # an alias, which a sidecar may not have, would be made of what stands in two places
    dumper = type("_Plain", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    return yaml.dump(content, Dumper=dumper, sort_keys=False, allow_unicode=True).encode()


def sidecar_for_copy(target: Path, sidecar: Sidecar | None, *, is_native: bool) -> bytes | None:
    """What must lie beside a copy so that it is read as its source; None when nothing is needed.

    Args:
        target: the copy, not yet there.
        sidecar: what declares the source, of `declaring_sidecar`.
        is_native: whether source and copy declare themselves.

    Raises:
        UserError: sidecars that are there already would speak for the copy, and say something else;
            nothing that a person may have written is ever written over.
    """
    content = None if sidecar is None else content_of(sidecar)
    own, in_the_way = sidecar_of(target), sidecar_of(target)
    of_folders = [] if is_native else folder_sidecars_of(target, target.parent)
    if not is_there(own):
        others = read_sidecars(of_folders)
        if others is None or (sidecar and said(with_farther(sidecar, others)) == said(sidecar)):
            return content
        in_the_way = others.path
    elif own.read_bytes() == content or _says_as(sidecar, [own, *of_folders]):
        return None
    found = f"a declaration that would speak for {target}"
    expected = "none, as for its source" if sidecar is None else f"what {sidecar.name} says"
    remedy = "Delete it if it is left over, or choose another name or folder."
    raise UserError(describe(str(in_the_way), found, expected, remedy))


def _says_as(sidecar: Sidecar | None, paths: Sequence[Path]) -> bool:
    """Whether sidecars say what another one says; False where they cannot be read."""
    there = Faults().of(lambda: read_sidecars(paths))
    return sidecar is not None and there is not None and said(there) == said(sidecar)


def said(sidecar: Sidecar) -> tuple[object, object, object]:
    """What a sidecar says, whichever file says it."""
    return sidecar.overrides, sidecar.preset, sidecar.layout


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
