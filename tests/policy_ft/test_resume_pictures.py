"""A run goes on only with the pictures it began with: the same pixels may be turned otherwise."""

import h5py
import pytest
import yaml

from data_tools.formats.reader import open_dataset
from policy_ft import assemble
from policy_ft.errors import UserError


@pytest.mark.parametrize("said", [{"color_order": "bgr"}, {"orientation": "rotated_180"}])
def test_frames_that_are_turned_otherwise_are_other_data(run_config, tmp_path, said):
    config = run_config(training={"steps": 1})
    path = tmp_path / "demos.hdf5"
    declared = open_dataset(path).conventions.model_dump(mode="json")
    with h5py.File(path, "r+") as file:
        del file["data"].attrs["conventions"]
        for episode in file["data"].values():
            for camera in ("front", "wrist"):
                attributes = episode[f"obs/{camera}_image"].attrs
                del attributes["color_order"], attributes["orientation"]
    sidecar = tmp_path / "demos.hdf5.conventions.yaml"
    sidecar.write_text(yaml.safe_dump(declared))
    assemble.train(config)
    declared["cameras"][1] |= said
    sidecar.write_text(yaml.safe_dump(declared))
    with pytest.raises(UserError, match=r"data: found fingerprint.*Set it back"):
        assemble.train(run_config(training={"steps": 2}), resume=True)
    declared["cameras"][1] |= {"color_order": "rgb", "orientation": "upright"}
    sidecar.write_text(yaml.safe_dump(declared))
    resumed = assemble.train(run_config(training={"steps": 2}), resume=True)
    assert resumed.last_checkpoint.name == "step_00000002"
