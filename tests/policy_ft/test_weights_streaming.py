"""Reading weights: one pass, no second copy, every tensor of every file accounted for."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from policy_ft.checkpoints.native import save_policy, weight_files, weights_hash
from policy_ft.checkpoints.stored_model import read_model
from policy_ft.checkpoints.tensor_files import TensorFiles, write_tensors
from policy_ft.checkpoints.weights import read_weights, write_weights
from policy_ft.config.model import ModelConfig, SiglipVisionConfig
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.models.build import build_model

SIGLIP = SiglipVisionConfig(
    kind="siglip", patch_size=8, width=24, depth=2, num_heads=2, mlp_width=40
)


@pytest.fixture
def siglip_config(small_model):
    return ModelConfig.model_validate(small_model(vision=SIGLIP))


def randomized(config, dtype=torch.float32):
    torch.manual_seed(3)
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter).to(dtype)
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_without_random_weights_equals_one_that_had_them(siglip_config, tmp_path, dtype):
    stored = randomized(siglip_config)
    write_weights(tmp_path / "w.safetensors", stored, {})
    loaded, _ = read_model(siglip_config, [tmp_path / "w.safetensors"], dtype=dtype)
    filled = build_model(siglip_config)
    read_weights([tmp_path / "w.safetensors"], filled)
    types = set()
    for name, parameter in loaded.named_parameters():
        assert parameter.requires_grad
        assert parameter.device.type == "cpu"
        types.add(parameter.dtype)
        assert torch.equal(parameter, filled.get_parameter(name).to(parameter.dtype))
    small = {getattr(torch, dtype)}
    assert types == small | {torch.float32}
    assert not loaded.training


def test_the_report_hashes_what_is_stored_and_not_what_it_becomes(siglip_config, tmp_path):
    model = randomized(siglip_config, torch.bfloat16)
    digest = write_weights(tmp_path / "w.safetensors", model, {})
    for dtype in ("float32", "bfloat16"):
        _, report = read_model(siglip_config, [tmp_path / "w.safetensors"], dtype=dtype)
        assert report.weights_sha256 == digest == weights_hash(model)


def test_the_hash_is_the_documented_one(tmp_path):
    """The formula written out a second time."""
    tensors = {"b": torch.arange(3, dtype=torch.int64), "a": torch.tensor(1.5)}
    expected = hashlib.sha256()
    expected.update(b"a torch.float32 []\n" + tensors["a"].numpy().tobytes())
    expected.update(b"b torch.int64 [3]\n" + tensors["b"].numpy().tobytes())
    assert weights_hash(tensors) == expected.hexdigest()


MEASURE = """
import sys, threading
import torch
from pathlib import Path
from policy_ft.checkpoints.weights import read_weights
torch.set_num_threads(1)

def rss_anon():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

dtype = getattr(torch, sys.argv[2])
with torch.device("meta"):
    layers = [torch.nn.Linear(4096, 4096, bias=False, dtype=dtype) for _ in range(9)]
model = torch.nn.Sequential(*layers)
size = sum(p.numel() * p.element_size() for p in model.parameters())
start, peak, over = rss_anon(), 0, threading.Event()

def sample():
    global peak
    while not over.wait(0.002):
        peak = max(peak, rss_anon())

thread = threading.Thread(target=sample)
thread.start()
model = model.to_empty(device="cpu")
read_weights([Path(sys.argv[1])], model)
peak = max(peak, rss_anon())
over.set()
thread.join()
print((peak - start) / size)
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reading_takes_the_memory_of_the_weights_and_hardly_more(tmp_path, dtype):
    """302 MB in bfloat16; a copy of even one tensor of nine would show as 0.11."""
    tensors = {f"{index}.weight": torch.full((4096, 4096), index / 8) for index in range(9)}
    tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "w.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "w.safetensors"), dtype],
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "w.safetensors").unlink()
    assert 0.95 < float(done.stdout) < 1.08


def test_shards_hold_what_one_file_holds_and_load_alike(policy, tmp_path):
    save_policy(policy, tmp_path / "one")
    save_policy(policy, tmp_path / "many", max_shard_bytes=50_000)
    shards = weight_files(tmp_path / "many")
    assert len(shards) > 2
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    whole = load_file(tmp_path / "one/model.safetensors")
    assert index["metadata"]["total_size"] == sum(each.nbytes for each in whole.values())
    for name, tensor in whole.items():
        assert torch.equal(load_file(tmp_path / "many" / index["weight_map"][name])[name], tensor)
    for shard in shards:
        tensors = load_file(shard)
        assert sum(each.nbytes for each in tensors.values()) <= 50_000 or len(tensors) == 1
    loaded = load_policy(tmp_path / "many")
    assert weights_hash(loaded.model) == weights_hash(policy.model)
    assert loaded.load_report == load_policy(tmp_path / "one").load_report


def two_shards(directory: Path, first: dict, second: dict) -> list[Path]:
    files = [directory / f"model-0000{index}-of-00002.safetensors" for index in (1, 2)]
    for file, tensors in zip(files, (first, second), strict=True):
        save_file(tensors, file)
    return files


def test_a_name_in_two_shards_is_refused(tmp_path):
    files = two_shards(tmp_path, {"weight": torch.zeros(2)}, {"weight": torch.zeros(2)})
    with pytest.raises(UserError, match=r"weight: found a tensor that .*00001.* left over"):
        TensorFiles(files)


def test_an_index_and_a_whole_file_are_refused(policy, tmp_path):
    save_policy(policy, tmp_path / "many", max_shard_bytes=50_000)
    save_file({"x": torch.zeros(1)}, tmp_path / "many/model.safetensors")
    with pytest.raises(UserError, match=r"beside model.safetensors.index.json.*Remove the one"):
        load_policy(tmp_path / "many")


def test_an_index_that_leads_out_of_its_directory_is_refused(policy, tmp_path):
    save_policy(policy, tmp_path / "many", max_shard_bytes=50_000)
    index = tmp_path / "many/model.safetensors.index.json"
    for bad in ("../stolen.safetensors", "/etc/passwd", ".."):
        index.write_text(json.dumps({"weight_map": {"a": bad}}))
        with pytest.raises(UserError, match=r"files in the same directory. Download"):
            load_policy(tmp_path / "many")


def test_a_damaged_index_is_refused(policy, tmp_path):
    save_policy(policy, tmp_path / "many", max_shard_bytes=50_000)
    index = tmp_path / "many/model.safetensors.index.json"
    for content in ("[]", "{}", '{"weight_map": {}}', '{"weight_map": ["a"]}'):
        index.write_text(content)
        with pytest.raises(UserError, match=r"weight_map: found .*Download the checkpoint again"):
            load_policy(tmp_path / "many")


def test_a_shard_that_is_gone_is_named(policy, tmp_path):
    save_policy(policy, tmp_path / "many", max_shard_bytes=50_000)
    shard = weight_files(tmp_path / "many")[1]
    shard.unlink()
    with pytest.raises(UserError, match=rf"{shard.name}: found no such file.*Copy the whole"):
        load_policy(tmp_path / "many")


def test_one_infinite_value_among_many_is_found_in_every_type(tmp_path):
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e5m2):
        for value in (float("inf"), float("-inf"), float("nan")):
            model = torch.nn.Linear(1100, 1000, bias=False)
            tensor = torch.ones(1000, 1100, dtype=dtype)
            tensor[999, 7] = value
            save_file({"weight": tensor}, tmp_path / "w.safetensors")
            with pytest.raises(UserError, match=r"weight: found 1 of 1100000 values that are not"):
                read_weights([tmp_path / "w.safetensors"], model)


def test_large_finite_values_are_no_fault(tmp_path):
    """Their sum is not finite."""
    model = torch.nn.Linear(1000, 1000, bias=False)
    save_file({"weight": torch.full((1000, 1000), 3e38)}, tmp_path / "w.safetensors")
    read_weights([tmp_path / "w.safetensors"], model)
    assert (model.weight == 3e38).all()


def test_tensors_go_from_file_to_file_with_their_types_and_bits(tmp_path):
    tensors = {"a": torch.randn(7, 3).bfloat16(), "b": torch.randint(9, (4,))}
    save_file(tensors, tmp_path / "one.safetensors")
    with TensorFiles([tmp_path / "one.safetensors"]) as stored:
        views = {name: stored.tensor(name) for name in stored.headers}
        write_tensors(tmp_path / "two.safetensors", views)
    for name, tensor in load_file(tmp_path / "two.safetensors").items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(tensor, tensors[name])
