"""bench: the numbers are about what was read, and the advice is given where it helps."""

import json

import h5py
import numpy as np
import pytest

from data_tools.doctor.bench import Sampling, bench, read_samples
from data_tools.formats.reader import open_dataset


@pytest.fixture
def gzipped(demos, tmp_path):
    """The demos with raw frames in gzipped chunks of many frames, split across the channels."""
    path = tmp_path / "slow.hdf5"
    path.write_bytes(demos.read_bytes())
    dataset = open_dataset(demos)
    with h5py.File(path, "r+") as file:
        for index in range(len(dataset)):
            episode = dataset[index]
            steps = range(episode.num_steps)
            frames = np.stack([episode.image("front", step) for step in steps])
            group = file[f"data/demo_{index}/obs"]
            del group["front_image"]
            group.create_dataset(
                "front_image", data=frames, chunks=(10, 16, 24, 1), compression="gzip"
            )
    return path


def test_samples_are_drawn_evenly_over_all_frames_and_again_for_the_same_seed(demos):
    class Spy:
        def __init__(self, dataset):
            self.dataset, self.seen = dataset, []

        def __len__(self):
            return len(self.dataset)

        def __getitem__(self, index):
            spy, episode = self, self.dataset[index]

            class Episode:
                num_steps = episode.num_steps

                def actions(self):
                    return episode.actions()

                def observation(self, step, cameras):
                    spy.seen.append((index, step))

            return Episode()

    runs = []
    for _ in range(2):
        spy = Spy(open_dataset(demos))
        samples = read_samples(spy, Sampling(("front",), seed=3))
        for _ in range(3000):
            next(samples)
        runs.append(spy.seen)
    assert runs[0] == runs[1]
    # 306 frames, 3000 draws: every one is missed with a chance of 306 * (305/306)**3000 = 2 %
    assert len(set(runs[0])) >= 304


def test_bytes_and_chunks_of_a_frame_are_those_in_the_file(demos, gzipped):
    sampling = Sampling(("front", "wrist"), horizon=8, seconds=0.1)
    fast = bench(open_dataset(demos), sampling)
    with h5py.File(demos) as file:
        widths = {
            name: file[f"data/demo_0/obs/{name}_image"].shape[1] for name in ("front", "wrist")
        }
    assert {cost.camera: cost.bytes_read for cost in fast.cameras} == widths
    assert fast.bytes_per_sample == sum(widths.values()) + 4 * (3 + 8 * 3)
    assert [cost.encoding for cost in fast.cameras] == ["jpeg", "jpeg"]
    assert fast.cameras[0].storage == "1 chunk a frame"
    assert 0 < fast.images_share < 1
    slow = bench(open_dataset(gzipped), sampling).cameras[0]
    # 2 x 2 x 3 chunks of 10 frames lie across one frame
    assert slow.storage == "12 chunks of 10 frames, gzip"
    assert slow.bytes_unpacked == 12 * 10 * 16 * 24
    assert slow.encoding == "raw"


def test_repack_is_advised_where_a_frame_drags_others_along_and_nowhere_else(demos, gzipped):
    sampling = Sampling(("front",), seconds=0.1)
    (advice,) = bench(open_dataset(gzipped), sampling).advice
    assert "front: one frame of 5 kB unpacks 46 kB, 10 times its size" in advice
    assert "robot-data repack" in advice
    assert bench(open_dataset(demos), sampling).advice == ()


def test_two_processes_are_measured_together_and_one_alone(robot_data, demos):
    code, out, _ = robot_data("bench", demos, "--workers", 2, "--seconds", 0.2, "--json")
    told = json.loads(out)
    assert code == 0
    assert set(told["samples_per_s"]) == {"1", "2"}
    assert all(rate > 0 for rate in told["samples_per_s"].values())


def test_the_table_names_cameras_and_the_command_refuses_unknown_ones(robot_data, demos):
    code, out, _ = robot_data("bench", demos, "--seconds", 0.1, "--cameras", "wrist")
    assert code == 0
    assert "wrist" in out
    assert "front" not in out
    code, _, err = robot_data("bench", demos, "--cameras", "wirst")
    assert code == 2
    assert "did you mean 'wrist'" in err
