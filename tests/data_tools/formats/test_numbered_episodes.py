"""Episodes that lie side by side in a file, a number in the names of their datasets."""

import h5py
import numpy as np
import pytest

from data_tools.cli import main
from data_tools.errors import UserError
from data_tools.formats.drafts.draft import draft_for
from data_tools.formats.reader import open_dataset
from tests.data_tools.fixtures import unknown
from tests.data_tools.fixtures.unknown import filled


def declare(path):
    """Write the sidecar of a file from its draft."""
    path.with_name(f"{path.name}.conventions.yaml").write_text(filled(draft_for([str(path)]).text))


def test_the_numbers_that_are_read_are_those_of_the_file(tmp_path):
    unknown.flat_pairs(tmp_path / "data.h5")
    declare(tmp_path / "data.h5")
    dataset = open_dataset(tmp_path / "data.h5")
    with h5py.File(tmp_path / "data.h5") as file:
        for number, episode in enumerate(dataset[i] for i in range(12)):
            assert episode.name == f"{tmp_path / 'data.h5'}:number {number}"
            np.testing.assert_array_equal(
                episode.actions(), file[f"actions_{number}"][()].astype("f4")
            )
            np.testing.assert_array_equal(
                episode.state(), file[f"states_{number}"][()].astype("f4")
            )
    assert dataset.conventions.state.names == tuple(f"states_{i}" for i in range(5))


def test_columns_are_named_alike_in_every_episode_of_a_tree_by_kind(tmp_path):
    unknown.tree_by_kind(tmp_path / "data.h5")
    declare(tmp_path / "data.h5")
    conventions = open_dataset(tmp_path / "data.h5").conventions
    assert conventions.action.names == tuple(f"actions_{i}" for i in range(7))
    assert conventions.state.names == tuple(f"qpos_{i}" for i in range(7))


def test_a_pair_that_is_there_twice_is_repaired_into_a_file_of_ours(monkeypatch, tmp_path):
    unknown.flat_pairs(tmp_path / "data.h5")
    declare(tmp_path / "data.h5")
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["states_99"], file["actions_99"] = file["states_3"][()], file["actions_3"][()]
    new = tmp_path / "new.hdf5"
    arguments = ["robot-data", "validate", str(tmp_path / "data.h5"), "--fix", str(new)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, len(open_dataset(new))) == (1, 12)


def test_a_pair_without_its_other_half_is_told(tmp_path):
    unknown.flat_pairs(tmp_path / "data.h5")
    declare(tmp_path / "data.h5")
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        del file["actions_7"]
    with pytest.raises(UserError, match=r"data\.h5:number 7: .*a dataset 'actions_7'"):
        open_dataset(tmp_path / "data.h5")


def test_a_path_without_the_number_is_refused_where_episodes_are_numbers(tmp_path):
    unknown.flat_pairs(tmp_path / "data.h5")
    (tmp_path / "data.h5.conventions.yaml").write_text(
        'layout: {episodes: numbers, root: "", actions: actions_0, state: "states_{number}"}\n'
    )
    with pytest.raises(UserError, match=r"layout: found \['actions_0'\] with episodes: numbers"):
        open_dataset(tmp_path / "data.h5")
