"""Each number of a run's data is read once, on one process, and found the same on all."""

import json
import os
import pickle
import subprocess
from contextlib import ExitStack

import h5py
import numpy as np
import pytest

import data_tools.formats.reading.hdf5_store as store_module
from data_tools.episode import holding_numbers
from data_tools.formats.reader import open_dataset
from data_tools.storage.files.cache import LruCache
from policy_ft import assemble
from policy_ft.data.fitting import fit_transforms
from policy_ft.data.soundness import survey
from policy_ft.data.sources import fingerprints_by_source
from policy_ft.transforms import ModelShape
from tests.policy_ft.conftest import small_model_config
from tests.policy_ft.test_training_distributed import (
    launch_on_two_cpu_processes,
    records,
    torchrun,
)


@pytest.fixture
def reads(monkeypatch):
    """The arrays that were read from files, in order; the cache holds one episode's at a time."""
    monkeypatch.setattr(store_module, "ARRAY_CACHE_BYTES", 1)
    read, original = [], store_module.Store._read_low_dim

    def counted(self, record, source):
        read.append((record.name, source.parts[0].dataset.rpartition("/")[2]))
        return original(self, record, source)

    monkeypatch.setattr(store_module.Store, "_read_low_dim", counted)
    return read


def prepared(config, episodes, held, tokenizer_json):
    """Everything that a run wants to know of its data's numbers."""
    found = survey(config.data, config.seed, held, episodes)
    transforms = fit_transforms(
        config.policy.transforms,
        found.episodes,
        range(len(found.episodes)),
        shape=ModelShape.of(small_model_config()),
        tokenizer_json=tokenizer_json,
    )
    return found, transforms.statistics


def test_soundness_fingerprint_and_statistics_read_each_number_once(
    record, run_config, reads, tokenizer_json
):
    episodes = record()
    (path,) = episodes.inspected.files
    config = run_config(data={"path": path})
    with ExitStack() as held:
        found, statistics = prepared(config, None, held, tokenizer_json)
    assert found.faults == []
    assert sorted(reads) == sorted(
        (found.episodes[index].name, part) for index in range(4) for part in ("actions", "state")
    )
    # and what was found is what three passes find
    again = open_dataset(path)
    assert found.episodes.fingerprint == again.fingerprint
    assert statistics == prepared(config, again, ExitStack(), tokenizer_json)[1]


def test_without_room_every_pass_reads_anew(record, reads):
    """The count above would be no proof if the cache held these episodes anyway."""
    episodes = record()
    for _ in range(2):
        for index in range(4):
            episodes[index].state()
            episodes[index].actions()
    assert len(reads) == 16


def test_every_source_of_a_mixture_is_read_once(mixed, reads):
    config = mixed()
    with ExitStack() as held:
        found = survey(config.data, config.seed, held)
        fingerprints_by_source(found.episodes)
    assert len(reads) == len({*reads}) == 2 * len(found.episodes)


def test_what_is_held_is_let_go(record, monkeypatch):
    monkeypatch.setattr(store_module, "ARRAY_CACHE_BYTES", 1)
    episodes = record()
    cache = episodes._store._arrays
    with holding_numbers(episodes):
        for index in range(4):
            episodes[index].state()
        assert len(cache) == 4
    assert len(cache) == 1


def test_a_cache_that_holds_keeps_everything_and_then_the_last():
    left = []
    cache = LruCache(2, weigh=lambda value: 1, on_evict=left.append)
    with cache.holding():
        for value in range(5):
            cache.get_or_make(value, lambda value=value: value)
        assert (len(cache), left) == (5, [])
    assert (len(cache), left) == (2, [0, 1, 2])


def test_faults_and_sound_episodes_are_told_together(record, run_config):
    episodes = record()
    (path,) = episodes.inspected.files
    with h5py.File(path, "r+") as file:
        file["data/demo_1/actions"][1, 1] = np.nan
    config = run_config(data={"path": path})
    with ExitStack() as held:
        found = survey(config.data, config.seed, held)
        given = survey(config.data, config.seed, held, open_dataset(path))
    assert [fault for fault in found.faults if "[not_finite]" in fault]
    assert len(found.episodes) == 3
    assert given.faults == found.faults
    assert len(given.episodes) == 4


COUNTED = """
import sys
import data_tools.formats.reading.hdf5_store as store_module
from accelerate import PartialState
from policy_ft import assemble
from policy_ft.config.config_file import load_config
from policy_ft.training.trainer import Trainer

store_module.ARRAY_CACHE_BYTES = 1
read, original, run = [], store_module.Store._read_low_dim, Trainer.run

def counted(self, record, source):
    read.append((record.name, source))
    return original(self, record, source)

def told(self):
    rank = PartialState().process_index
    with open(f"{sys.argv[2]}/rank{rank}.txt", "w") as file:
        file.write(f"{len(read)} {len({*read})}")
    return run(self)

store_module.Store._read_low_dim, Trainer.run = counted, told
assemble.train(load_config(sys.argv[1]))
"""


@pytest.mark.slow
def test_before_the_first_step_one_of_two_processes_reads_each_number_once(
    record, run_config, tmp_path
):
    record()
    training = {"batch_size": 4, "log_every": 1}
    alone = assemble.train(run_config(training=training)).metrics
    config = run_config(training=training, output_dir=str(tmp_path / "two"))
    (tmp_path / "run.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    (tmp_path / "count.py").write_text(COUNTED)
    launch_on_two_cpu_processes(
        torchrun(str(tmp_path / "count.py"), str(tmp_path / "run.yaml"), str(tmp_path))
    )
    # state and actions of four episodes; the window of each instruction is looked at, too
    assert (tmp_path / "rank0.txt").read_text() == "8 8"
    num_reads = int((tmp_path / "rank1.txt").read_text().split()[0])
    assert num_reads <= 4
    rows = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    together = [json.loads(row) for row in rows]
    losses = [records(metrics, "train", "loss") for metrics in (alone, together)]
    assert losses[1] == [pytest.approx(loss, rel=1e-5) for loss in losses[0]]


@pytest.mark.slow
def test_a_fault_of_the_data_is_told_by_every_process(record, run_config, tmp_path):
    """The others would else wait for the first one."""
    (path,) = record().inspected.files
    with h5py.File(path, "r+") as file:
        file["data/demo_1/actions"][1, 1] = np.nan
    config = run_config(training={"batch_size": 4})
    (tmp_path / "run.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    command = torchrun("-m", "policy_ft", "train", str(tmp_path / "run.yaml"))
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert done.stderr.count("[not_finite]") == 2


def test_the_fingerprint_travels_with_the_data(record, run_config, reads):
    """Other processes get the dataset of the first, and compute nothing."""
    episodes = record()
    config = run_config(data={"path": list(episodes.inspected.files)})
    with ExitStack() as held:
        found = survey(config.data, config.seed, held)
    reads.clear()
    there = pickle.loads(pickle.dumps(found.episodes))
    assert there.fingerprint == episodes.fingerprint
    assert len(reads) == 8  # of `episodes`, which was opened anew
    assert json.dumps(there[2].state().tolist()) == json.dumps(episodes[2].state().tolist())
