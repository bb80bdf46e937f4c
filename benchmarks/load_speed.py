"""How fast, and in how much memory, a checkpoint of pi0's real size loads.

Makes a safetensors file with the names and shapes of pi0 and random bfloat16 values (7 GB, deleted
at the end), loads it in fresh processes and, beside each load, reads it plainly: once into a small
buffer, which is the disk's speed, and once into fresh memory of the size of the weights, which no
loader can avoid. Cold: the file's pages are dropped from the page cache first. Of several rounds
the fastest counts, and the largest peak. Prints one table and writes one JSON file.

    python benchmarks/load_speed.py --directory /tmp

RssAnon is the memory of a process that no file backs: the weights, the interpreter with its
libraries, and whatever loading needs beside them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pi0_sizes import pi0_config
from rich.console import Console
from rich.table import Table

from policy_ft.checkpoints.stored_model import read_model
from policy_ft.models.build import build_model

PI0 = pi0_config()
SPARE_BYTES = 3 * 2**30
"""Left to others on the machine."""
SAMPLE_S = 0.005
PIECE = 2**22
WORK = ("disk", "memory", "load")


def main() -> None:
    """Make the file, measure every case in a process of its own, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=Path, help="for the file; the system's if not given")
    parser.add_argument("--json", type=Path, default=Path("runs/load_speed.json"))
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the fastest counts")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        print(json.dumps(_measured(options.measure, options.directory)))
        return
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        file = Path(directory) / "model.safetensors"
        _write_random(file)
        rows = [row for dtype in ("bfloat16", "float32") for row in _rows(file, dtype, options)]
    _report(rows, options.json)


def _rows(file: Path, dtype: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The cold and the warm load in one type; none where the memory does not suffice."""
    size = _weight_bytes(dtype)
    if size + SPARE_BYTES > _available_bytes():
        print(f"{dtype}: left out, {_available_bytes() / 1e9:.1f} GB of memory available")
        return []
    rows: list[dict[str, Any]] = []
    for cache in ("cold", "warm"):
        rounds = [
            _round(file, dtype, options, is_cold=cache == "cold") for _ in range(options.repeats)
        ]
        seconds = {work: [each[work]["seconds"] for each in rounds] for work in WORK}
        rows.append(
            {
                "dtype": dtype,
                "cache": cache,
                "file_bytes": file.stat().st_size,
                "weight_bytes": size,
                "read_s": min(seconds["disk"]),
                "read_into_fresh_memory_s": min(seconds["memory"]),
                "load_s": min(seconds["load"]),
                "load_cpu_s": min(each["load"]["cpu_seconds"] for each in rounds),
                "peak_rss_anon": max(each["load"]["peak_rss_anon"] for each in rounds),
                "seconds": seconds,
            }
        )
    return rows


def _round(
    file: Path, dtype: str, options: argparse.Namespace, *, is_cold: bool
) -> dict[str, dict[str, float]]:
    """Each kind of work once, one after the other."""
    found = {}
    for work in WORK:
        if is_cold:
            _drop_from_cache(file)
        found[work] = _child(f"{work}:{dtype}", file, options)
    return found


def _child(what: str, file: Path, options: argparse.Namespace) -> dict[str, float]:
    arguments = ["--measure", what, "--directory", str(file), "--threads", str(options.threads)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measured(what: str, file: Path) -> dict[str, float]:
    """Seconds, and RssAnon in bytes at most, of one piece of work in this process."""
    kind, _, dtype = what.partition(":")
    work: dict[str, Callable[[], object]] = {
        "disk": lambda: _read(file, memory=None),
        "memory": lambda: _read(file, memory=np.empty(_weight_bytes(dtype), np.uint8)),
        "load": lambda: read_model(PI0, [file], dtype=dtype),
    }
    peak = 0
    is_over = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not is_over.wait(SAMPLE_S):
            peak = max(peak, _rss_anon())

    sampler = threading.Thread(target=sample)
    sampler.start()
    start, cpu_start = time.perf_counter(), time.process_time()
    result = work[kind]()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = max(peak, _rss_anon())
    is_over.set()
    sampler.join()
    del result
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_rss_anon": peak,
    }


def _read(file: Path, memory: np.ndarray | None) -> np.ndarray | None:
    """Reads the whole file a piece at a time, each piece into a part of the memory of its own."""
    buffer = np.empty(PIECE, np.uint8)
    parts = -(-file.stat().st_size // PIECE)
    with file.open("rb", buffering=0) as opened:
        for index in range(parts):
            opened.readinto(buffer.data)
            if memory is not None:
                begin, end = (len(memory) * i // parts for i in (index, index + 1))
                for start in range(begin, end, PIECE):
                    memory[start : min(start + PIECE, end)] = buffer[: end - start]
    return memory


def _write_random(file: Path) -> None:
    """pi0's tensors in bfloat16, the same random block over and over, written as it goes."""
    with torch.device("meta"):
        tensors = build_model(PI0).state_dict()
    header, end = {}, 0
    for name, tensor in sorted(tensors.items()):
        begin, end = end, end + 2 * tensor.numel()
        shape = list(tensor.shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    values = torch.from_numpy(np.random.default_rng(0).normal(0, 0.02, 2**24)).bfloat16()
    block = values.view(torch.uint8).numpy().tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for left in range(end, 0, -len(block)):
            opened.write(block[:left])
        opened.flush()
        os.fsync(opened.fileno())


def _weight_bytes(dtype: str) -> int:
    """Of a model in memory: some weights stay float32 in every type."""
    with torch.device("meta"):
        model = build_model(PI0)
    kept = model.float32_names() if dtype == "bfloat16" else set(model.state_dict())
    return sum(t.numel() * (4 if n in kept else 2) for n, t in model.state_dict().items())


def _drop_from_cache(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _rss_anon() -> int:
    return _kilobytes(Path("/proc/self/status"), "RssAnon") * 1024


def _available_bytes() -> int:
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable") * 1024


def _kilobytes(path: Path, key: str) -> int:
    lines = path.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _report(rows: list[dict[str, Any]], json_file: Path) -> None:
    columns = ("weights", "cache", "read s", "into memory s", "load s", "GB/s", "peak GB", "ratio")
    table = Table(*columns, title="peak: of RssAnon; ratio: peak to weights", title_justify="left")
    for row in rows:
        load_s, peak, size = (float(row[n]) for n in ("load_s", "peak_rss_anon", "weight_bytes"))
        table.add_row(
            f"{row['dtype']}, {size / 1e9:.2f} GB",
            str(row["cache"]),
            f"{row['read_s']:.2f}",
            f"{row['read_into_fresh_memory_s']:.2f}",
            f"{load_s:.2f}",
            f"{float(row['file_bytes']) / load_s / 1e9:.2f}",
            f"{peak / 1e9:.2f}",
            f"{peak / size:.3f}",
        )
    Console().print(table)
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="ascii")
    print(f"wrote {json_file}")


if __name__ == "__main__":
    main()
