"""repack of every layout: the repacked files are found as what they were and hold the same."""

import shutil
import sys

import pytest

from data_tools.cli import main
from data_tools.formats.layouts.sidecar import FOLDER_SIDECAR
from data_tools.formats.reader import open_dataset
from tests.data_tools.layout_cases import CASES, written


@pytest.fixture
def slow(tmp_path):
    """Writes a case into a folder of its own, with what its layout does not say."""

    def make(case):
        path = written(case, tmp_path / "slow")
        if case.sidecar:
            folder = path.parent if path.is_file() else path
            folder.joinpath(FOLDER_SIDECAR).write_text(case.sidecar)
        return path

    return make


# RoboTwin is known by its byte strings: with pixels in their place a sidecar must name the layout.
PAIRS = [
    (case, images)
    for case in CASES
    for images in ("jpeg", "png", "raw")
    if (case.layout, images) != ("robotwin", "raw")
]


@pytest.mark.parametrize(
    ("case", "images"), PAIRS, ids=lambda value: getattr(value, "layout", value)
)
def test_a_repacked_layout_is_read_as_it_was(slow, tmp_path, monkeypatch, capsys, case, images):
    path = slow(case)
    monkeypatch.setattr("data_tools.rewrite.repack.MEASURE_S", 0.0)
    fast = tmp_path / "fast"
    target = fast / path.name if path.is_file() else fast
    if path.is_file():
        shutil.copytree(path.parent, fast, ignore=shutil.ignore_patterns(path.name))
    arguments = ["robot-data", "repack", str(path), str(target), "--images", images]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code, capsys.readouterr().err
    old, new = open_dataset(path), open_dataset(target)
    assert new.inspected.layouts == old.inspected.layouts
    assert new.conventions == old.conventions
    assert new.fingerprint == old.fingerprint
    for camera in case.cameras:
        last = old[1].num_steps - 1
        error = new[1].image(camera, last).astype(int) - old[1].image(camera, last)
        assert abs(error).mean() <= (4 if images == "jpeg" else 0)
