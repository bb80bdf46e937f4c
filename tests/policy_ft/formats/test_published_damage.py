"""Damage, places where nothing can be written, interruptions: each is told, none passed on."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import policy_ft
from policy_ft.checkpoints.native import save_policy
from policy_ft.errors import UserError
from policy_ft.formats import hub
from policy_ft.formats.conversion.convert import convert

UP = "paligemma_with_expert.paligemma.model.language_model.layers.1.mlp.up_proj.weight"
DEAD = "paligemma_with_expert.gemma_expert.lm_head.weight"


@pytest.fixture
def native(lerobot_directory, tmp_path):
    """A directory of our own, with a dead head beside the weights."""
    convert(lerobot_directory(tmp_path / "published", "pi0"), "native", tmp_path / "native")
    return tmp_path / "native"


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def hashes(directory):
    provenance = json.loads((directory / "provenance.json").read_text(encoding="utf-8"))
    return provenance["weights_sha256"], provenance["unused_sha256"]


def test_both_hashes_are_the_same_however_the_files_are_cut(native, tmp_path):
    policy = policy_ft.load_policy(native)
    save_policy(policy, tmp_path / "cut", max_shard_bytes=100_000)
    convert(tmp_path / "cut", "native", tmp_path / "again")
    assert hashes(native) == hashes(tmp_path / "cut") == hashes(tmp_path / "again")


@pytest.mark.parametrize("to", ["native", "lerobot", "openpi"])
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("model.safetensors", "weights_sha256: found .*do not belong together"),
        ("unused_tensors.safetensors", "unused_sha256: found .*do not belong together"),
    ],
)
def test_a_changed_bit_is_not_converted(native, tmp_path, file, words, to):
    flip_a_bit(native / file)
    with pytest.raises(UserError, match=words):
        convert(native, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_bit_of_an_unused_tensor_is_not_saved_again(native, tmp_path):
    flip_a_bit(native / "unused_tensors.safetensors")
    policy = policy_ft.load_policy(native)
    with pytest.raises(UserError, match=r"unused_sha256: found .*do not belong together"):
        save_policy(policy, tmp_path / "out")
    save_policy(replace(policy, unused={}), tmp_path / "without")
    assert policy_ft.load_policy(tmp_path / "without").unused == {}


def test_unused_tensors_that_were_left_behind_are_missed(native):
    (native / "unused_tensors.safetensors").unlink()
    with pytest.raises(UserError, match=r"no unused_tensors.*Copy the whole directory again"):
        policy_ft.load_policy(native)


@pytest.mark.parametrize("to", ["native", "lerobot", "openpi"])
def test_weights_that_are_not_finite_are_not_converted(
    lerobot_directory, golden_weights, tmp_path, to
):
    tensors = golden_weights("pi0")
    tensors[UP][3, 4] = float("nan")
    first = lerobot_directory(tmp_path / "a", "pi0", tensors=tensors)
    with pytest.raises(UserError, match=r"1 of \d+ values that are not finite; .*earlier"):
        convert(first, to, tmp_path / "b")


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float64, torch.float16])
def test_floats_of_any_kind_are_kept(lerobot_directory, golden_weights, tmp_path, kind):
    tensors = golden_weights("pi0")
    tensors |= {UP: tensors[UP].to(kind), DEAD: tensors[DEAD].to(kind)}
    first = lerobot_directory(tmp_path / "a", "pi0", tensors=tensors)
    convert(first, "native", tmp_path / "b")
    convert(tmp_path / "b", "lerobot", tmp_path / "c")
    stored = load_file(tmp_path / "c/model.safetensors")
    for name in (UP, DEAD):
        found = stored[f"model.{name}"]
        assert found.dtype == kind
        assert torch.equal(found.view(torch.uint8), tensors[name].view(torch.uint8))


def test_a_published_checkpoint_of_other_sizes_is_told_of_its_own_files(
    lerobot_directory, golden_weights, tmp_path
):
    tensors = golden_weights("pi0")
    tensors[UP] = tensors[UP][:, :5].clone()
    with pytest.raises(UserError, match=r"settings \(model.json, config.json\) from one checkp"):
        policy_ft.load_policy(lerobot_directory(tmp_path / "a", "pi0", tensors=tensors))


@pytest.mark.parametrize("place", [".", "new", "tokenizer/new"])
def test_nothing_is_written_into_the_checkpoint_that_is_read(lerobot_directory, tmp_path, place):
    first = lerobot_directory(tmp_path / "a", "pi0")
    before = sorted(first.rglob("*"))
    with pytest.raises(UserError, match=r"a place in .*Choose another directory\.$"):
        convert(first, "native", first / place)
    assert sorted(first.rglob("*")) == before


def test_a_link_stands_for_the_directory_it_leads_to(lerobot_directory, tmp_path):
    first = lerobot_directory(tmp_path / "a", "pi0")
    (tmp_path / "empty").mkdir()
    for name, target in (("link", "empty"), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(tmp_path / target)
        convert(first, "native", tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert policy_ft.load_policy(tmp_path / target).config.family == "pi0"


def test_here_may_be_an_empty_directory(lerobot_directory, tmp_path, monkeypatch):
    first = lerobot_directory(tmp_path / "a", "pi0")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(first, "native", ".")
    assert (tmp_path / "here/model.json").is_file()


def test_below_a_file_there_is_no_place(lerobot_directory, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"no place for a directory .*Choose another directory"):
        convert(lerobot_directory(tmp_path / "a", "pi0"), "native", tmp_path / "file/b")


KILLED = """
import os, sys
from policy_ft.checkpoints import tensor_files
from policy_ft.formats.conversion import convert

class Dying(dict):
    def __getitem__(self, name):
        self.asked = getattr(self, "asked", 0) + 1
        if self.asked > 3 * len(self) // 2:  # every header, and half of the tensors
            os.kill(os.getpid(), 9)
        return super().__getitem__(name)

write = tensor_files._write_file
tensor_files._write_file = lambda path, names, tensors, seen: write(
    path, names, Dying(tensors), seen
)
convert.convert(*sys.argv[1:])
"""


@pytest.mark.parametrize("to", ["native", "lerobot"])
def test_a_killed_conversion_leaves_nothing_that_loads_or_is_recommended(
    lerobot_directory, tmp_path, to
):
    first = lerobot_directory(tmp_path / "a", "pi0")
    target = tmp_path / "out/b"
    words = [sys.executable, "-c", KILLED, str(first), to, str(target)]
    assert subprocess.run(words, check=False).returncode == -9
    rest = target.with_name(".b.unfinished")
    assert rest.is_dir()
    assert not target.exists()
    with pytest.raises(UserError):
        policy_ft.load_policy(rest)
    shutil.copy(first / "model.safetensors", rest / "model.safetensors")
    with pytest.raises(UserError, match="Copy the whole directory again"):
        policy_ft.load_policy(tmp_path / "out")
    convert(first, to, target)
    assert not rest.exists()
    assert policy_ft.load_policy(target).config.family == "pi0"


def test_an_interrupted_pull_leaves_no_half_of_a_checkpoint(tmp_path, monkeypatch):
    def download(_repo_id, *, local_dir, **_given):
        (local_dir / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, "snapshot_download", download)
    with pytest.raises(KeyboardInterrupt):
        hub.pull("owner/policy", tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "pwned.sh"])
def test_only_documents_are_written(native, tmp_path, name):
    source = json.loads((native / "source.json").read_text(encoding="utf-8"))
    source["documents"][name] = {}
    (native / "source.json").write_text(json.dumps(source), encoding="utf-8")
    with pytest.raises(UserError, match=r"of a .json or .safetensors file"):
        convert(native, "lerobot", tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe{}", "no text .*Copy it again"), (b"{}", "that is no tokenizer .*Copy it again")],
)
def test_a_damaged_tokenizer_is_told_by_its_path(lerobot_directory, tmp_path, content, words):
    first = lerobot_directory(tmp_path / "a", "pi0")
    (first / "tokenizer/tokenizer.json").write_bytes(content)
    for to in ("native", "lerobot", "openpi"):
        with pytest.raises(UserError, match=rf"a/tokenizer/tokenizer.json: found .*{words}"):
            convert(first, to, tmp_path / to)


def test_a_tensor_in_two_shards_or_none_is_told(native, tmp_path):
    save_policy(policy_ft.load_policy(native), tmp_path / "cut", max_shard_bytes=100_000)
    one, two, *_ = sorted((tmp_path / "cut").glob("model-*.safetensors"))
    tensors = load_file(two)
    save_file(tensors | dict([next(iter(load_file(one).items()))]), two)
    with pytest.raises(UserError, match=r"holds as well; expected each name in one file"):
        convert(tmp_path / "cut", "lerobot", tmp_path / "out")
    two.unlink()
    with pytest.raises(UserError, match=r"model-00002.*no such file"):
        convert(tmp_path / "cut", "lerobot", tmp_path / "out")
