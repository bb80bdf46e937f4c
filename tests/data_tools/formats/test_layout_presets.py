"""Every layout in its true shape: found as itself, refused until declared, read right."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.layouts.detect import detect
from data_tools.formats.layouts.layouts_page import page
from data_tools.formats.layouts.preset import OpenFile, presets, proof
from data_tools.formats.layouts.sidecar import FOLDER_SIDECAR
from data_tools.formats.reader import open_dataset
from data_tools.storage.files.paths import expand
from tests.data_tools.fixtures.contents import scene
from tests.data_tools.layout_cases import CASES, REFUSED, Case, written

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.layout)
needs_declaration = [case for case in CASES if case.declared]


def declare(case: Case, path) -> None:
    """The sidecars that say what the layout cannot."""
    if case.sidecar:
        (path.parent if path.is_file() else path).joinpath(FOLDER_SIDECAR).write_text(case.sidecar)


def opened(case: Case, folder):
    path = written(case, folder)
    declare(case, path)
    return open_dataset(path)


def test_every_preset_has_a_fixture():
    assert {case.layout for case in CASES} | set(REFUSED) == set(presets()) | {"native"}


@each_case
def test_a_fixture_is_found_as_itself_and_nothing_else(case, tmp_path):
    (first, *_) = expand([written(case, tmp_path)]).read
    with h5py.File(first) as file:
        assert detect(file, first).layout.name == case.layout
        look = OpenFile(file, first)
        shown = {n for n, p in presets().items() if all(proof(t, look) for t in p.evidence)}
    # More general layouts may be shown, too, and each is one that this layout says it is a case of.
    if case.layout != "native":
        assert shown - {case.layout} <= set(presets()[case.layout].special_case_of)
        assert case.layout in shown


@each_case
def test_episodes_numbers_and_words_come_back(case, tmp_path):
    dataset = opened(case, tmp_path)
    assert dataset.inspected.layouts == (case.layout,)
    assert dataset.conventions.control_hz == case.hz
    assert dataset.conventions.camera_names == case.cameras
    assert len(dataset) == 2
    for number in range(2):
        episode = dataset[number]
        assert episode.instruction == case.instruction
        assert episode.num_steps == len(case.frame_rows) == len(episode.starts())
        np.testing.assert_allclose(episode.state(), case.state(number), rtol=1e-6)
        np.testing.assert_allclose(episode.actions(), case.actions(number), rtol=1e-6)
        assert episode.state().shape[1] == len(dataset.conventions.state.names)
    names = dataset.conventions.state.names
    assert len(set(names)) == len(names)


@each_case
def test_frames_come_back_rgb_and_upright(case, tmp_path):
    dataset = opened(case, tmp_path)
    for number, camera in enumerate(case.cameras):
        for step, row in enumerate(case.frame_rows):
            frame, expected = dataset[1].image(camera, step), scene(row, number)
            assert frame.shape == expected.shape
            # A wrong channel order, orientation or row is off by 12 or more on average.
            off = np.abs(frame.astype(int) - expected).mean()
            assert off <= (3 if case.is_lossy else 0)


@pytest.mark.parametrize("case", needs_declaration, ids=lambda case: case.layout)
def test_what_structure_cannot_tell_is_refused_and_listed(case, tmp_path):
    path = written(case, tmp_path)
    with pytest.raises(UserError, match=r"Write into \S*conventions.yaml.*:\nlayout:"):
        open_dataset(path)
    inspected = open_dataset(path, allow_undeclared=True).inspected
    assert inspected.layouts == (case.layout,)
    (told,) = inspected.undeclared
    for key in case.declared:
        assert f"\n{key}" in told


@pytest.mark.parametrize("kind", REFUSED)
def test_a_demonstration_without_observations_says_how_to_render_it(kind, tmp_path):
    path = REFUSED[kind](tmp_path / "demo.hdf5")
    with pytest.raises(UserError, match=r"without observations.*then open what that writes"):
        open_dataset(path, allow_undeclared=True)


def test_a_file_with_the_marks_of_two_layouts_is_refused_with_both(tmp_path):
    (case,) = [case for case in CASES if case.layout == "mobile_aloha"]
    path = written(case, tmp_path)
    for file in path.iterdir():
        with h5py.File(file, "r+") as opened_file:
            del opened_file.attrs["sim"], opened_file.attrs["compress"]  # some recorders wrote none
    with pytest.raises(
        UserError, match=r"mobile_aloha, because it has .*; and rdt, because"
    ) as told:
        open_dataset(path)
    assert (
        "Write layout: mobile_aloha (or another) into episode_0.hdf5.conv" in told.value.faults[0]
    )
    file.with_name(FOLDER_SIDECAR).write_text(case.sidecar)
    assert open_dataset(path).inspected.layouts == ("mobile_aloha",)


def test_an_unknown_file_is_told_the_nearest_layout_and_what_is_missing(tmp_path):
    path = tmp_path / "odd.hdf5"
    with h5py.File(path, "w") as file:
        file["observations/qpos"] = np.zeros((4, 14))
        file["action"] = np.zeros((4, 14))
        file.attrs["sim"] = True
    with pytest.raises(
        UserError,
        match=r"aloha is nearest: the file has observations/qpos, .*but not array 'observations/im",
    ):
        open_dataset(path)


def test_the_page_of_layouts_is_what_the_presets_say():
    written_page = Path(__file__).parents[3] / "docs" / "data-layouts.md"
    told = "Run python -m data_tools.formats.layouts.layouts_page docs/data-layouts.md"
    assert written_page.read_text(encoding="utf-8") == page(), told


def test_every_layout_a_preset_goes_before_exists_and_goes_before_nothing_of_its_own():
    known = presets()
    for name, preset in known.items():
        for general in preset.special_case_of:
            assert name not in known[general].special_case_of
