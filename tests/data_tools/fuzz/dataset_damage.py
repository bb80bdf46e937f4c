"""Damage to datasets: other types, shapes and storage, and frames that are none."""

import io
import zlib
from collections.abc import Callable

import h5py
import numpy as np
from PIL import Image

from tests.data_tools.fuzz.byte_damage import Rng

Edit = Callable[[h5py.File, Rng], list[str]]


def places_of(file: h5py.File, kind: type) -> list[str]:
    """Paths of the groups or datasets of the file."""
    found: list[str] = []
    file.visititems(lambda n, item: found.append(n) if isinstance(item, kind) else None)
    return sorted(found)


def _pick(file: h5py.File, rng: Rng) -> str:
    return str(rng.choice(places_of(file, h5py.Dataset)))


def _picture(file: h5py.File, rng: Rng) -> str:
    places = places_of(file, h5py.Dataset)
    pictures = [p for p in places if any(w in p.lower() for w in ("image", "rgb", "cam", "color"))]
    return str(rng.choice(pictures or places))


def _replace(file: h5py.File, place: str, data: object, **options: object) -> list[str]:
    attributes = dict(file[place].attrs)
    del file[place]
    made = file.create_dataset(place, data=data, **options)
    for name, value in attributes.items():
        made.attrs[name] = value
    return [place]


def remove(file: h5py.File, rng: Rng) -> list[str]:
    place = str(rng.choice(places_of(file, h5py.Dataset | h5py.Group)))
    del file[place]
    return [place]


def rename(file: h5py.File, rng: Rng) -> list[str]:
    """Another name: longer, foreign, of spaces, or one that differs in case only."""
    place = str(rng.choice(places_of(file, h5py.Dataset | h5py.Group)))
    above, _, name = place.rpartition("/")
    new = str(
        rng.choice([name + "_2", name.upper(), "\u00e9\u4e2d " + name, name * 40, "%s{0}" + name])
    )
    file.move(place, f"{above}/{new}")
    return [place, f"{above}/{new}"]


def other_type(file: h5py.File, rng: Rng) -> list[str]:
    place = _pick(file, rng)
    kinds = ["i1", "u2", "f2", ">f4", ">i8", "S3", "?", "c16", "V5", "f8", "S1"]
    kind = np.dtype(str(rng.choice(kinds)))
    shape = file[place].shape or ()
    if kind.kind in "SV":
        return _replace(file, place, np.full(shape, b"ab", kind))
    values = file[place][()]
    if values.dtype.kind not in "fiub":
        values = np.ones(shape)
    with np.errstate(all="ignore"):
        return _replace(file, place, np.asarray(values).astype(kind))


def strange_type(file: h5py.File, rng: Rng) -> list[str]:
    """Compounds, references, enumerations, arrays, sequences and texts of any length, opaque."""
    place = _pick(file, rng)
    shape = file[place].shape or (3,)
    del file[place]
    kind = {
        "compound": np.dtype([("a", "f4"), ("b", "S4")]),
        "reference": h5py.ref_dtype,
        "region": h5py.regionref_dtype,
        "enum": h5py.enum_dtype({"RED": 0, "BLUE": 1}, basetype="i4"),
        "array": np.dtype("(3,)f8"),
        "vlen": h5py.vlen_dtype(np.float64),
        "vlen_bytes": h5py.vlen_dtype(np.uint8),
        "text": h5py.string_dtype(),
        "fixed_text": h5py.string_dtype("utf-8", 5),
    }
    chosen = str(rng.choice(list(kind)))
    made = file.create_dataset(place, shape[:1], dtype=kind[chosen])
    if chosen == "reference":
        made[0] = file.ref
    if chosen == "text":
        made[0] = "\u00e4" * 1000
    return [place]


def other_shape(file: h5py.File, rng: Rng) -> list[str]:
    place = _pick(file, rng)
    values = np.asarray(file[place][()])
    if not values.ndim:
        return _replace(file, place, np.array([values.item()] * 2))
    changed = [
        values[:-1],
        values[1:],
        np.concatenate([values, values[-1:]]),
        values[:0],
        values[None],
        values[..., None],
        values.T,
        values.ravel(),
        values[:1],
        values[..., :-1],
        values[0],
    ]
    which = changed[int(rng.integers(len(changed)))]
    kind = h5py.check_string_dtype(file[place].dtype) or h5py.check_vlen_dtype(file[place].dtype)
    options = {"dtype": file[place].dtype} if kind is not None else {}
    return _replace(file, place, which, **options)


def scalar_or_empty(file: h5py.File, rng: Rng) -> list[str]:
    place = _pick(file, rng)
    choices = [1.5, b"abc", h5py.Empty("f4"), np.nan, "text"]
    return _replace(file, place, choices[int(rng.integers(len(choices)))])


def huge_shape(file: h5py.File, rng: Rng) -> list[str]:
    """A declared size far beyond what is stored."""
    place = _pick(file, rng)
    old = file[place]
    kind = old.dtype if old.dtype.kind in "fiu" else np.dtype("f8")
    rest = old.shape[1:] if old.shape else ()
    rows = int(2 ** rng.integers(12, 44))
    del file[place]
    how = int(rng.integers(4))
    if how == 0:
        file.create_dataset(place, (rows, *rest), kind, chunks=(64, *rest) if rest else (64,))
    elif how == 1:
        made = file.create_dataset(place, (6, *rest), kind, maxshape=(None, *rest), chunks=True)
        made[...] = 1
        made.resize(rows, axis=0)
    elif how == 2:
        file.create_dataset(place, (6, 1 << 40), kind, chunks=(1, 1 << 20))
    else:
        file.create_dataset(place, (rows, *rest), kind)  # nothing allocated, nothing written
    return [place]


def missing_chunks(file: h5py.File, rng: Rng) -> list[str]:
    """Rows that were never written: HDF5 gives zeros for them."""
    place = _pick(file, rng)
    old = file[place]
    if not old.shape or old.dtype.kind not in "fiu" or old.shape[0] < 2:
        return remove(file, rng)
    values = old[()]
    attributes = dict(old.attrs)
    del file[place]
    made = file.create_dataset(place, values.shape, values.dtype, chunks=(1, *values.shape[1:]))
    for name, value in attributes.items():
        made.attrs[name] = value
    gap = int(rng.integers(len(values)))
    for row in range(len(values)):
        if row != gap:
            made[row] = values[row]
    # Not allowed to come back: nobody ever wrote this row.
    return []


def broken_chunk(file: h5py.File, rng: Rng) -> list[str]:
    """A compressed chunk that does not decompress, or of another length."""
    place = _pick(file, rng)
    old = file[place]
    if not old.shape or old.dtype.kind not in "fiu" or 0 in old.shape:
        return remove(file, rng)
    values = old[()]
    _replace(file, place, values, compression="gzip", chunks=(1, *values.shape[1:]))
    row = int(rng.integers(len(values)))
    start = (row,) + (0,) * (values.ndim - 1)
    data = rng.bytes(int(rng.integers(1, 100)))
    file[place].id.write_direct_chunk(start, data, filter_mask=int(rng.integers(2)))
    return [place]


def odd_chunk(file: h5py.File, rng: Rng) -> list[str]:
    """A chunk without filters that is shorter or longer than its row."""
    place = _pick(file, rng)
    old = file[place]
    if not old.shape or old.dtype.kind not in "fiu" or 0 in old.shape:
        return remove(file, rng)
    values = old[()]
    _replace(file, place, values, chunks=(1, *values.shape[1:]))
    row = int(rng.integers(len(values)))
    data = rng.bytes(int(rng.integers(1, 3 * max(values[0].nbytes, 1))))
    file[place].id.write_direct_chunk((row,) + (0,) * (values.ndim - 1), data)
    return [place]


def unknown_filter(file: h5py.File, rng: Rng) -> list[str]:
    """Chunks that passed a filter nobody here has."""
    place = _pick(file, rng)
    shape = file[place].shape or (2,)
    del file[place]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(tuple(max(n, 1) for n in shape))
    plan.set_filter(int(rng.integers(40_000, 60_000)), h5py.h5z.FLAG_OPTIONAL, (1, 2))
    space = h5py.h5s.create_simple(shape)
    above = file.require_group("/" + place.rpartition("/")[0])
    name = place.rpartition("/")[2].encode()
    h5py.h5d.create(above.id, name, h5py.h5t.IEEE_F32LE, space, plan)
    return [place]


def not_finite(file: h5py.File, rng: Rng) -> list[str]:
    place = _pick(file, rng)
    if file[place].dtype.kind != "f" or not file[place].size:
        return remove(file, rng)
    values = np.atleast_1d(file[place][()])
    with np.errstate(over="ignore"):
        values.flat[int(rng.integers(values.size))] = rng.choice([np.nan, np.inf, -np.inf, 1e300])
    return _replace(file, place, values)


def shuffled_rows(file: h5py.File, rng: Rng) -> list[str]:
    """Row numbers, marks and frames of another episode or order."""
    place = _pick(file, rng)
    if not file[place].shape:
        return remove(file, rng)
    values = file[place][()]
    return _replace(file, place, values[rng.permutation(len(values))], dtype=file[place].dtype)


def strange_pictures(file: h5py.File, rng: Rng) -> list[str]:
    """Encoded frames that are huge, of other modes, cut short, or no pictures."""
    place = _picture(file, rng)
    rows = (file[place].shape or (6,))[0] if file[place].shape != () else 6
    choices = [
        _bomb_png(60_000, 60_000),
        _bomb_jpeg(65_000, 65_000),
        _encoded("RGBA", "PNG"),
        _encoded("LA", "PNG"),
        _encoded("P", "PNG"),
        _encoded("I;16", "PNG"),
        _encoded("L", "JPEG"),
        _encoded("CMYK", "JPEG"),
        _encoded("RGB", "JPEG")[:200],
        _encoded("RGB", "PNG")[:60],
        _encoded("RGB", "GIF"),
        b"\x80\x04\x95cos\nsystem\n(S'id'\ntR.",
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
    ]
    data = choices[int(rng.integers(len(choices)))]
    form = int(rng.integers(3))
    if form == 0:
        row = np.frombuffer(data.ljust(8, b"\0"), np.uint8)
        return _replace(file, place, np.tile(row, (rows, 1)))
    if form == 1:
        del file[place]
        made = file.create_dataset(place, (rows,), h5py.vlen_dtype(np.uint8))
        for i in range(rows):
            made[i] = np.frombuffer(data, np.uint8)
        return [place]
    return _replace(file, place, np.array([data.ljust(1, b"x")] * rows))


def _encoded(mode: str, form: str) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (32, 24), 100 if mode in ("L", "P", "I;16") else None).save(stream, form)
    return stream.getvalue()


def _bomb_png(width: int, height: int) -> bytes:
    small = bytearray(_encoded("RGB", "PNG"))
    small[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    small[29:33] = zlib.crc32(bytes(small[12:29])).to_bytes(4, "big")
    return bytes(small)


def _bomb_jpeg(width: int, height: int) -> bytes:
    small = bytearray(_encoded("RGB", "JPEG"))
    start = small.index(b"\xff\xc0") + 5
    small[start : start + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(small)


DATASET_EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        remove,
        rename,
        other_type,
        strange_type,
        other_shape,
        scalar_or_empty,
        huge_shape,
        missing_chunks,
        broken_chunk,
        odd_chunk,
        unknown_filter,
        not_finite,
        shuffled_rows,
        strange_pictures,
    )
}
