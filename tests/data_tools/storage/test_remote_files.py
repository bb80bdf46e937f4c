"""The laws of files behind URLs: they read as local ones, in blocks, and say what is wrong."""

import errno
import functools
import http.server
import multiprocessing
import pickle
import re
import shutil
import sys
import threading
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.storage.files.remote import RemotePath, path_of
from data_tools.writer import EpisodeWriter
from tests.data_tools.fixtures import aloha
from tests.data_tools.layout_cases import CASES

(CUPS,) = (case.sidecar for case in CASES if case.layout == "aloha")


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and the ranges of them that are asked for; counts both."""

    requests: list[tuple[str, int]]

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not path.is_file() or asked is None:
            return super().do_GET()
        content = path.read_bytes()
        start, stop = int(asked[1]), min(int(asked[2]) + 1, len(content))
        self.requests.append((path.name, stop - start))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(content[start:stop])
        return None

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *args):
        """Keep the tests' output clean."""


@pytest.fixture
def web(tmp_path):
    """(URL of the folder, requests so far) of a web server over tmp_path."""
    requests: list[tuple[str, int]] = []
    kind = type("Handler", (RangeHandler,), {"requests": requests})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(kind, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", requests
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def memory(demos):
    """The demonstrations in fsspec's memory, in a folder of two files."""
    system = fsspec.filesystem("memory")
    for number in (1, 10):
        system.pipe(f"/lab/demos/part_{number}.hdf5", demos.read_bytes())
    yield "memory://lab/demos"
    system.rm("/lab", recursive=True)


def assert_same_data(remote, local):
    assert remote.fingerprint == local.fingerprint
    for index in (0, len(local) - 1):
        np.testing.assert_array_equal(
            remote[index].image("wrist", 3), local[index].image("wrist", 3)
        )


def test_a_file_behind_a_url_reads_as_the_file(demos, web):
    url, _ = web
    remote = open_dataset(f"{url}/{demos.name}")
    assert_same_data(remote, open_dataset(demos))
    assert remote[2].name == f"{url}/{demos.name}:data/demo_2"
    # as a command line gives it, which takes paths
    assert_same_data(open_dataset(Path(f"{url}/{demos.name}")), open_dataset(demos))


def test_a_signed_url_is_asked_for_as_it_is(demos, web, tmp_path):
    """Longer than a file's name may be; the sidecar is asked for with the same signature."""
    url, _ = web
    signature = f"X-Amz-Credential=a%2Fb/s3&X-Amz-Signature={'0' * 300}"
    remote = open_dataset(f"{url}/{demos.name}?{signature}")
    assert_same_data(remote, open_dataset(demos))
    path = path_of(f"{url}/{demos.name}?{signature}")
    assert (path.name, path.suffix, path.stem) == ("push.hdf5", ".hdf5", "push")
    assert str(path) == f"{url}/{demos.name}?{signature}".replace("/s3", "%2Fs3")
    assert str(pickle.loads(pickle.dumps(path))) == str(path)
    assert str(path.with_name("a.yaml")) == str(path).replace(path.name, "a.yaml")
    assert path_of(f"https://host/a.hdf5?{'0' * 5000}").name == "a.hdf5"
    aloha.write(tmp_path / "cups", episodes=1)
    (tmp_path / "cups/episode_0.hdf5.conventions.yaml").write_text(CUPS)
    dataset = open_dataset(f"{url}/cups/episode_0.hdf5?sas=x")
    assert dataset[0].instruction == "do it"
    shutil.copy(demos, tmp_path / "download")  # a link without a suffix
    assert len(open_dataset(f"{url}/download?id=7")) == 12
    assert path_of("s3://bucket/demo_?.hdf5").is_pattern
    assert not path.is_pattern


def test_only_the_blocks_that_are_needed_are_fetched(tmp_path, web, conventions, make_episode):
    url, requests = web
    frames = np.random.default_rng(0).integers(0, 256, (400, 32, 48, 3), dtype=np.uint8)
    with EpisodeWriter(tmp_path / "long.hdf5", conventions) as writer:
        for seed in range(5):
            images = {"front": frames, "wrist": frames[:, :24, :24]}
            writer.add(**make_episode(seed, num_steps=400, images=images))
    size = (tmp_path / "long.hdf5").stat().st_size
    dataset = open_dataset(f"{url}/long.hdf5")
    dataset[2].observation(17, ["front"])
    fetched = sum(num_bytes for _, num_bytes in requests)
    assert 0 < fetched < size / 2
    before = len(requests)
    dataset[2].observation(17, ["front"])
    assert len(requests) == before


def test_a_folder_and_a_glob_of_a_store_give_its_files_in_natural_order(memory, demos):
    names = [f"{memory}/part_1.hdf5:data/demo_0", f"{memory}/part_10.hdf5:data/demo_0"]
    for place in (memory, f"{memory}/part_*.hdf5"):
        dataset = open_dataset(place)
        assert [dataset[0].name, dataset[12].name] == names
        assert len(dataset) == 24
    with pytest.raises(UserError, match=r"memory://lab/nothing: found no matching file"):
        open_dataset("memory://lab/nothing")


def test_sidecars_lie_beside_the_remote_file(tmp_path, web):
    aloha.write(tmp_path / "cups", episodes=1)
    url = f"{web[0]}/cups/episode_0.hdf5"
    with pytest.raises(UserError, match="a declaration of each"):
        open_dataset(url)
    (tmp_path / "cups/conventions.yaml").write_text(CUPS)
    dataset = open_dataset(url)
    assert dataset[0].instruction == "do it"


def test_a_file_url_is_the_local_file(demos):
    assert path_of(f"file://{demos}") == demos
    assert_same_data(open_dataset(f"file://{demos}"), open_dataset(demos))


def _read(dataset, results):
    results.put(dataset[3].image("front", 2).sum())


def test_a_remote_dataset_is_picklable_and_read_by_other_processes(demos, web):
    url, _ = web
    dataset = open_dataset(f"{url}/{demos.name}")
    expected = dataset[3].image("front", 2).sum()
    assert pickle.loads(pickle.dumps(dataset))[3].image("front", 2).sum() == expected
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=_read, args=(dataset, results))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert results.get() == expected


def test_a_url_keeps_its_form_as_a_path():
    path = path_of("s3://bucket/demos/pick.hdf5")
    assert isinstance(path, RemotePath)
    assert str(path) == "s3://bucket/demos/pick.hdf5"
    assert str(path.with_name("conventions.yaml")) == "s3://bucket/demos/conventions.yaml"
    assert str(path.parent / "b.hdf5") == "s3://bucket/demos/b.hdf5"
    assert str(pickle.loads(pickle.dumps(path))) == str(path)
    assert str(path_of(Path("s3://bucket/demos/pick.hdf5"))) == str(path)


@pytest.mark.parametrize("url", ["s3://bucket/a.hdf5", "s3://bucket/demos"])
def test_a_missing_package_is_named(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r'pip install "policy_ft\[s3\]"'):
        open_dataset(url)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(UserError, match=r"(?i)gopher.*Use s3://, https://"):
        open_dataset("gopher://host/a.hdf5")


def test_what_a_server_gives_instead_of_the_file_is_told(tmp_path, web, demos):
    url, _ = web
    with pytest.raises(UserError, match=r"nothing.hdf5.*FileNotFoundError.*Correct the URL"):
        open_dataset(f"{url}/nothing.hdf5")
    (tmp_path / "page.hdf5").write_text("<!DOCTYPE html><title>log in</title>")
    with pytest.raises(UserError, match=r"a web page.*direct link"):
        open_dataset(f"{url}/page.hdf5")
    (tmp_path / "short.hdf5").write_bytes(demos.read_bytes()[:20_000])
    with pytest.raises(UserError, match=r"cut short or damaged.*Upload it again"):
        open_dataset(f"{url}/short.hdf5")


def test_a_remote_lerobot_folder_is_refused(tmp_path, web):
    (tmp_path / "robot/meta").mkdir(parents=True)
    (tmp_path / "robot/meta/info.json").write_text("{}")
    url, _ = web
    with pytest.raises(UserError, match="Download it, with its videos"):
        open_dataset(f"{url}/robot")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADFD, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_network_file_system_without_locks_is_read_without(demos, monkeypatch, number):
    """NFS without a lock daemon answers 37 (ENOLCK) or 77 (EBADFD)."""
    asked = []

    class WithoutLocks(h5py.File):
        def __init__(self, path, mode, locking=None, **options):
            asked.append(locking)
            if locking is not False:
                raise OSError(number, "unable to lock file")
            super().__init__(path, mode, locking=False, **options)

    monkeypatch.setattr(h5py, "File", WithoutLocks)
    dataset = open_dataset(demos)
    assert dataset[0].image("front", 0).shape == (32, 48, 3)
    assert asked == ["best-effort", False] * 2


def test_a_read_only_folder_is_read(demos, tmp_path):
    folder = tmp_path / "read_only"
    folder.mkdir()
    shutil.copy(demos, folder)
    (folder / demos.name).chmod(0o444)
    folder.chmod(0o555)
    try:
        assert len(open_dataset(folder)) == 12
        assert [path.name for path in folder.iterdir()] == [demos.name]
    finally:
        folder.chmod(0o755)
