"""data.allow_external_links: who trains says whether files may lead to others, not the files."""

import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from policy_ft.data.opening import open_data
from policy_ft.errors import UserError


@pytest.fixture
def linked(run_config, tmp_path):
    """Settings of a run on demonstrations of which one's actions lie in another file."""

    def make(**data):
        config = run_config(data=data)
        with h5py.File(tmp_path / "demos.hdf5", "r+") as file:
            file.move("data/demo_1/actions", "kept")
            with h5py.File(tmp_path / "other.bin", "w") as other:
                file.copy("kept", other, "actions")
            file["data/demo_1/actions"] = h5py.ExternalLink("other.bin", "/actions")
        return config

    return make


def test_links_to_other_files_are_refused_unless_the_run_allows_them(linked, tmp_path):
    config = linked()
    with pytest.raises(UserError, match="a setting of policy-ft's data"):
        open_data(config.data, config.seed)
    allowed = config.data.model_copy(update={"allow_external_links": True})
    with h5py.File(tmp_path / "demos.hdf5") as file:
        np.testing.assert_array_equal(open_data(allowed, 0)[1].actions(), file["kept"][()])


def test_beside_a_mixture_it_is_refused_as_any_choice_is(run_config):
    mixture = {"a": {"path": "a.hdf5", "weight": 1, "allow_external_links": True}}
    found = run_config(data={"mixture": mixture, "path": [], "mixture_statistics": "shared"})
    assert found.data.mixture["a"].allow_external_links
    with pytest.raises(ValidationError, match=r"allow_external_links: found .* beside mixture"):
        run_config(data={"mixture": mixture, "path": [], "allow_external_links": True})
