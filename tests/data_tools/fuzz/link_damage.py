"""Damage to links: circles, other files, double names."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.data_tools.fuzz.byte_damage import Rng
from tests.data_tools.fuzz.dataset_damage import places_of

Edit = Callable[[h5py.File, Rng], list[str]]
OUTSIDE = "outside.h5"  # beside the folder of the case; no reader may take a number from it


def soft_circle(file: h5py.File, rng: Rng) -> list[str]:
    place = str(rng.choice(places_of(file, h5py.Dataset | h5py.Group)))
    del file[place]
    file[place] = h5py.SoftLink("/circle_a")
    file["circle_a"], file["circle_b"] = h5py.SoftLink("/circle_b"), h5py.SoftLink("/circle_a")
    return [place]


def hard_circle(file: h5py.File, rng: Rng) -> list[str]:
    """A group that is a member of its own member, or of itself."""
    groups = places_of(file, h5py.Group) or ["/"]
    a, b = str(rng.choice(groups)), str(rng.choice(groups))
    file[a]["again"] = file[b]
    file[b]["root"] = file["/"]
    return []


def soft_link(file: h5py.File, rng: Rng) -> list[str]:
    """To its own place, to nothing, to a parent, or to another dataset, with dots on the way."""
    places = places_of(file, h5py.Dataset | h5py.Group)
    place = str(rng.choice(places))
    targets = [place, "/nowhere", "/", "..", ".", "../" * 50, str(rng.choice(places)), ""]
    target = str(rng.choice(targets[:-1]))
    del file[place]
    file[place] = h5py.SoftLink(target)
    return [place]


def external_link(file: h5py.File, rng: Rng) -> list[str]:
    place = str(rng.choice(places_of(file, h5py.Dataset | h5py.Group)))
    outside = _outside(file)
    del file[place]
    targets = [str(outside), f"../{OUTSIDE}", "/etc/passwd", "missing.h5", "/dev/zero"]
    file[place] = h5py.ExternalLink(str(rng.choice(targets)), "/values")
    return []


def external_storage(file: h5py.File, rng: Rng) -> list[str]:
    """Numbers that are the bytes of any file this process may read."""
    place = str(rng.choice(places_of(file, h5py.Dataset)))
    shape = file[place].shape or (6,)
    del file[place]
    name = str(rng.choice([str(_outside(file)), "/etc/passwd", "/proc/self/environ"]))
    size = int(np.prod(shape))
    file.create_dataset(place, shape, "u1", external=[(name, 0, size)])
    return []


def virtual_dataset(file: h5py.File, rng: Rng) -> list[str]:
    """A view of another file, or of itself without end."""
    place = str(rng.choice(places_of(file, h5py.Dataset)))
    shape, kind = file[place].shape or (6,), file[place].dtype
    del file[place]
    if kind.kind not in "fiu":
        kind = np.dtype("f8")
    layout = h5py.VirtualLayout(shape=shape, dtype=kind)
    source = str(rng.choice([str(_outside(file)), ".", file.filename]))
    inside = place if source in (".", file.filename) else "values"
    layout[...] = h5py.VirtualSource(source, inside, shape=shape)
    file.create_virtual_dataset(place, layout)
    return []


def double_name(file: h5py.File, rng: Rng) -> list[str]:
    """A second name for an object, as alike as names can be."""
    place = str(rng.choice(places_of(file, h5py.Dataset | h5py.Group)))
    above, _, name = place.rpartition("/")
    new = str(rng.choice([name + " ", "0" + name, name + "0", name.replace("_", "_0")]))
    if new not in file["/" + above]:
        file["/" + above][new] = file[place]
    return [f"{above}/{new}"]


def foreign_name(file: h5py.File, rng: Rng) -> list[str]:
    """A name that is not UTF-8, or of ten thousand letters."""
    groups = places_of(file, h5py.Group) or ["/"]
    group = file[str(rng.choice(groups))]
    name = [b"\xff\xfe", b"demo_\xe9", b"x" * 10_000, b" ", b"\n"][int(rng.integers(5))]
    h5py.h5g.create(group.id, name)
    return []


def _outside(file: h5py.File) -> Path:
    """A file outside the data's folder that this process may read."""
    path = Path(file.filename).parent.parent / OUTSIDE
    if not path.exists():
        with h5py.File(path, "w") as other:
            other["values"] = np.full((6, 3), 12345.0)
    return path


LINK_EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        soft_circle,
        hard_circle,
        soft_link,
        external_link,
        external_storage,
        virtual_dataset,
        double_name,
        foreign_name,
    )
}
