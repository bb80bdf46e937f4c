"""Files in the way of robomimic that a repair must leave alone, and how to compare them."""

import h5py
import numpy as np
import yaml

from tests.data_tools.fixtures import robomimic

SIDECAR = {
    "cameras": [{"name": "*", "orientation": "flipped_vertical"}],
    "layout": {"preset": "robomimic", "instruction": {"attribute": "told"}},
}
QUAT = "obs/robot0_eef_quat"


def write_lift(folder):
    """Four episodes as robomimic keeps them: raw frames, rewards, depth, states, masks."""
    path = robomimic.write(folder / "lift.hdf5", episodes=4, steps=12)
    turns = np.random.default_rng(0).normal(size=(4, 4))
    with h5py.File(path, "r+") as file:
        for number in range(4):
            demo = file[f"data/demo_{number}"]
            demo.attrs["told"] = "lift the cube"
            angle = np.linspace(0, 0.5, 12)[:, None]
            turned = turns[number] + angle * np.array([0.1, 0.2, -0.1, 0.3])
            demo[QUAT][...] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
    (folder / "conventions.yaml").write_text(yaml.safe_dump(SIDECAR))
    return path


def contents(path, *besides):
    """Every attribute and every dataset's type, chunks, filters and bytes, by place."""
    found = {}

    def look(name, item):
        found[name] = {key: np.asarray(value).tolist() for key, value in item.attrs.items()}
        if isinstance(item, h5py.Dataset):
            stored = item[()]
            value = stored.tolist() if item.dtype.kind == "O" else np.asarray(stored).tobytes()
            found[name, "data"] = (
                str(item.dtype),
                item.shape,
                item.chunks,
                item.compression,
                value,
            )

    with h5py.File(path) as file:
        look("/", file)
        file.visititems(look)
    found["/"].pop("provenance", None)
    return {key: value for key, value in found.items() if key not in besides}


def slow(path, **filters):
    with h5py.File(path, "r+") as file:
        for number in range(4):
            for group in ("obs", "next_obs"):
                place = f"data/demo_{number}/{group}/agentview_image"
                frames = file[place][()]
                del file[place]
                file.create_dataset(place, data=frames, chunks=(6, *frames.shape[1:]), **filters)
                file[place].attrs["exposure_ms"] = 8
