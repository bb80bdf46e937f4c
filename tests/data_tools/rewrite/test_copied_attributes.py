"""What a copy of a file keeps of attributes of every type, and which references it refuses."""

import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.merge import merge
from data_tools.rewrite.repack import repack
from data_tools.rewrite.tree import copy_attributes

NUMBERS = h5py.vlen_dtype(np.int32)
PAIR = np.dtype([("label", h5py.string_dtype()), ("corner", "<f4", (2,)), ("ids", NUMBERS)])


def _as_stored(item, name):
    """Type and space of an attribute as HDF5 encodes them, and its value as numpy sees it."""
    stored = item.attrs.get_id(name)
    value = item.attrs[name]
    shape = (
        None if isinstance(value, h5py.Empty) else value.shape if hasattr(value, "shape") else ()
    )
    return stored.get_type().encode(), stored.get_space().encode(), shape, str(value)


def _make_attribute(item, name, kind, space, *, value=None, mtype=None):
    made = h5py.h5a.create(item.id, name.encode(), kind, space)
    if value is not None:
        made.write(value, mtype=mtype)


def _attributes_of_every_type(item):
    scalar = h5py.h5s.create(h5py.h5s.SCALAR)
    three = h5py.h5t.array_create(h5py.h5t.IEEE_F32BE, (3,))
    values = np.array([1, 2, 3], ">f4").view("V12").reshape(())
    _make_attribute(item, "one array", three, scalar, value=values, mtype=three)
    row = np.empty((), object)
    row[()] = np.array([4, 5, 6], np.int32)
    ids = h5py.h5t.py_create(NUMBERS, logical=True)
    _make_attribute(item, "one row of any length", ids, scalar, value=row)
    rows = np.empty(2, object)
    rows[:] = [np.array([1], np.int32), np.array([], np.int32)]
    item.attrs.create("rows of any length", rows, dtype=NUMBERS)
    pair = np.zeros(2, PAIR)
    pair["label"], pair["corner"] = ["left", "rechts \u00e4"], [[1, 2], [3, 4]]
    pair["ids"][:] = [np.array([7, 8], np.int32), np.array([], np.int32)]
    item.attrs.create("pairs", pair, dtype=PAIR)
    item.attrs["text"], item.attrs["bytes"] = "lift \u00e4", np.bytes_(b"lift\0\0")
    item.attrs["texts"] = ["a", "bcd"]
    item.attrs["nothing"], item.attrs["no rows"] = h5py.Empty("f4"), np.zeros((0, 3))
    item.attrs["yes"] = np.array([True, False])
    item.attrs["half"] = np.float16(0.1)
    item.attrs["choice"] = np.array(1, h5py.enum_dtype({"open": 0, "shut": 1}, "u1"))


@pytest.fixture
def rich(demos):
    """A dataset's file with attributes of every type on the root, a group and its numbers."""
    with h5py.File(demos, "r+") as file:
        for place in ("/", "data/demo_0", "data/demo_0/actions"):
            _attributes_of_every_type(file[place])
    return demos


@pytest.mark.parametrize("place", ["/", "data/demo_0", "data/demo_0/actions"])
def test_attributes_of_every_type_are_copied_bit_for_bit(rich, tmp_path, place):
    repack(rich, tmp_path / "new.hdf5")
    with h5py.File(rich) as old, h5py.File(tmp_path / "new.hdf5") as new:
        names = list(old[place].attrs)
        assert len(names) >= 12
        for name in names:
            assert _as_stored(new[place], name) == _as_stored(old[place], name), name


def test_a_merge_copies_attributes_of_every_type(rich, tmp_path):
    merge(open_dataset(rich), tmp_path / "new.hdf5")
    with h5py.File(rich) as old, h5py.File(tmp_path / "new.hdf5") as new:
        for name in ("one array", "one row of any length", "pairs"):
            ours, theirs = new["data/demo_0"], old["data/demo_0"]
            assert _as_stored(ours, name) == _as_stored(theirs, name), name


def test_an_attribute_of_a_named_type_does_not_need_its_file(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as old, h5py.File(tmp_path / "b.hdf5", "w") as new:
        old["corner"] = np.dtype([("x", "f4"), ("y", "f4")])
        old.attrs.create("at", np.array((1, 2), old["corner"].dtype), dtype=old["corner"])
        new.attrs["at"] = "something else"
        copy_attributes(old, new)
        assert new.attrs["at"].tolist() == (1.0, 2.0)
        assert not new.attrs.get_id("at").get_type().committed()


def _with_dimension_scales(file):
    file["data/demo_0/clock"] = np.arange(20.0)
    file["data/demo_0/clock"].make_scale("time")
    file["data/demo_0/actions"].dims[0].attach_scale(file["data/demo_0/clock"])


def _with_a_table_of_references(file):
    table = np.zeros(1, [("name", "S4"), ("at", h5py.ref_dtype)])
    table["at"] = file["data/demo_0"].ref
    file["table"] = table


def _with_rows_of_references(file):
    rows = file.create_dataset("rows", (1,), h5py.vlen_dtype(h5py.ref_dtype))
    rows[0] = np.array([file["data/demo_0"].ref], h5py.ref_dtype)


@pytest.mark.parametrize(
    ("add", "found"),
    [
        (
            _with_dimension_scales,
            r"(?s)actions, attribute 'DIMENSION_LIST': found references.*"
            r"clock, attribute 'REFERENCE_LIST': found references",
        ),
        (_with_a_table_of_references, "table: found references"),
        (_with_rows_of_references, "rows: found references"),
    ],
)
def test_references_inside_other_types_are_refused_as_bare_ones(demos, tmp_path, add, found):
    with h5py.File(demos, "r+") as file:
        add(file)
    with pytest.raises(UserError, match=found):
        repack(demos, tmp_path / "new.hdf5")
    assert not list(tmp_path.glob("new*"))
