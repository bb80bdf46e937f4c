"""Attributes taken out of object headers are those that h5py reads; the rest is left to HDF5."""

import h5py
import numpy as np
import pytest

from data_tools.formats.layouts.texts import attribute
from data_tools.storage.hdf5.header_attributes import plain_attribute
from data_tools.storage.hdf5.soundness import MAX_TEXT_BYTES

PLAIN = {
    **{code: np.array(7, code)[()] for code in "bBhHiIqQefd"},
    "text": "\u00f6ffne die Schublade",
    "ascii": np.array("open", h5py.string_dtype("ascii")),
    "long": "x" * 60_000,
    "not a number": np.float64("nan"),
}
TRUTHS = {"yes": True, "no": np.bool_(False)}  # in new files of another form, left to HDF5
LEFT_TO_HDF5 = {
    "array": [1.0, 2.0],
    "one": [7],
    "texts": ["a", "b"],
    "nothing": "",
    "empty": h5py.Empty("f8"),
    "fixed": np.bytes_("fixed"),
    "big endian": np.array(7, ">i4"),
    "choice": np.array(1, h5py.enum_dtype({"a": 0, "b": 1})),
}


@pytest.fixture(params=["earliest", "latest"])
def written(request, tmp_path):
    """A file with each attribute on a group of its own, and all of one kind on one."""
    with h5py.File(tmp_path / "a.hdf5", "w", libver=request.param, userblock_size=512) as file:
        for name, value in {**PLAIN, **TRUTHS, **LEFT_TO_HDF5}.items():
            file.create_group(name).attrs[name] = value
            file.require_group("all").attrs[name] = value
    return tmp_path / "a.hdf5"


def test_single_numbers_and_texts_are_read_without_hdf5(written):
    with h5py.File(written) as file:
        for name, value in PLAIN.items():
            found = plain_attribute(file[name], name)
            expected = str(np.asarray(value)[()]) if isinstance(found, bytes) else value
            found = found.decode() if isinstance(found, bytes) else found
            np.testing.assert_array_equal(found, expected, err_msg=name)


def test_other_kinds_and_files_that_may_change_are_left_to_hdf5(written):
    with h5py.File(written) as file:
        assert [n for n in LEFT_TO_HDF5 if plain_attribute(file[n], n) is not None] == []
        assert plain_attribute(file["text"], "absent") is None
        assert attribute(file["text"], "absent") is None
    with h5py.File(written, "r+") as file:
        assert plain_attribute(file["text"], "text") is None
        file["text"].attrs["text"] = "another"
        assert attribute(file["text"], "text") == "another"


def test_an_attribute_is_what_h5py_reads_wherever_it_is_stored(written):
    with h5py.File(written) as file:
        for name in {**PLAIN, **TRUTHS}:
            for group in (file["all"], file[name]):
                expected = group.attrs[name]
                np.testing.assert_array_equal(attribute(group, name), expected, err_msg=name)
        assert attribute(file["yes"], "yes") is True
        assert attribute(file["all"], "fixed") == "fixed"
        assert attribute(file["all"], "array") == [1.0, 2.0]
        assert attribute(file["all"], "nothing") == ""


def test_a_file_written_anew_under_the_same_name_is_read_anew(tmp_path):
    for text in ("first", "other"):
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            file.attrs["task"] = text
        with h5py.File(tmp_path / "a.hdf5") as file:
            assert attribute(file["/"], "task") == text


def test_a_text_of_megabytes_is_left_to_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.attrs["model"] = "x" * (MAX_TEXT_BYTES + 1)
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert plain_attribute(file["/"], "model") is None
        assert len(str(attribute(file["/"], "model"))) == MAX_TEXT_BYTES + 1
