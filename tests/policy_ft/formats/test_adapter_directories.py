"""Adapters alone: small, bound to their base, whole again to the bit, many on one base."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from policy_ft.checkpoints.edited import edited
from policy_ft.checkpoints.native import save_policy
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.cli import app
from policy_ft.config.edits import Lora
from policy_ft.errors import UserError
from policy_ft.formats.conversion.convert import convert
from policy_ft.formats.conversion.cut import cut_adapter
from policy_ft.formats.load import load_policy
from policy_ft.models.leaves import is_of_adapter
from policy_ft.models.solvers import SampleRequest
from policy_ft.quickstart import BASE

LORA = Lora(kind="lora", target=["language", "expert"], rank=4)


def tuned(base: Path, directory: Path, seed: int, *, head: bool = False) -> Path:
    """A policy whose adapters have moved, and its action head where asked for."""
    policy = edited(load_policy(base, dtype="stored"), [LORA])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if is_of_adapter(name) or (head and "action_out" in name):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    parent = {"path": str(base), "weights_sha256": policy.provenance["weights_sha256"]}
    save_policy(replace(policy, provenance={"parent": parent}), directory)
    return directory


@pytest.fixture
def base(policy, tmp_path) -> Path:
    save_policy(policy, tmp_path / "base")
    return tmp_path / "base"


def act(policy, episodes) -> np.ndarray:
    noise = np.random.default_rng(3).standard_normal((1, *policy.chunk_shape)).astype(np.float32)
    return policy.act([episodes[0].observation(0, ["front", "wrist"])], SampleRequest(noise))[0]


@pytest.mark.parametrize("head", [False, True])
def test_an_adapter_on_its_base_is_the_whole_policy_to_the_bit(base, episodes, tmp_path, head):
    whole = load_policy(tuned(base, tmp_path / "whole", 1, head=head))
    cut = cut_adapter(tmp_path / "whole", tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    again = load_policy(tmp_path / "adapter")
    assert again.config == whole.config
    assert weights_hash(again.model) == weights_hash(whole.model)
    assert np.array_equal(act(again, episodes), act(whole, episodes))
    adapters = sum(is_of_adapter(name) for name, _ in whole.model.named_parameters())
    assert cut.num_tensors == adapters + 2 * head
    convert(tmp_path / "adapter", "native", tmp_path / "made")
    made = load_policy(tmp_path / "made")
    assert weights_hash(made.model) == weights_hash(whole.model)
    assert made.provenance["parent"] == whole.provenance["parent"]


def test_adapters_of_the_shipped_base_take_less_than_a_twentieth(tmp_path):
    tuned(BASE, tmp_path / "whole", 1)
    cut = cut_adapter(tmp_path / "whole", tmp_path / "adapter")
    sizes = [(tmp_path / n).stat().st_size for n in ("adapter/adapter.safetensors",)]
    assert sizes[0] < 0.05 * (BASE / "model.safetensors").stat().st_size
    assert cut.share < 0.05


def test_many_adapters_share_one_base_and_act_side_by_side(base, episodes, tmp_path):
    shared = load_policy(base)
    before = act(shared, episodes)
    policies, wanted = {"base": shared}, {"base": before}
    for seed, name in enumerate(("one", "two")):
        whole = load_policy(tuned(base, tmp_path / name, seed, head=True))
        cut_adapter(tmp_path / name, tmp_path / f"{name}_adapter")
        policies[name] = load_policy(tmp_path / f"{name}_adapter", base=shared)
        wanted[name] = act(whole, episodes)
    places = [
        {p.data_ptr() for n, p in each.model.named_parameters() if not is_of_adapter(n)}
        for each in policies.values()
    ]
    assert len(places[0] & places[1] & places[2]) > 0.9 * len(places[0])
    found: dict[str, list[np.ndarray]] = {name: [] for name in policies}

    def run(name: str) -> None:
        for _ in range(20):
            found[name].append(act(policies[name], episodes))

    threads = [threading.Thread(target=run, args=(name,)) for name in policies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, chunks in found.items():
        assert len(chunks) == 20
        assert all(np.array_equal(chunk, wanted[name]) for chunk in chunks), name


def test_another_base_is_refused_and_so_is_a_missing_one(base, policy, tmp_path):
    tuned(base, tmp_path / "whole", 1)
    cut_adapter(tmp_path / "whole", tmp_path / "adapter")
    with torch.no_grad():
        policy.model.expert.action_out_proj.weight.add_(1.0)
    save_policy(policy, tmp_path / "other")
    with pytest.raises(UserError, match=r"adapter, base: found weights .*on which this adapter"):
        load_policy(tmp_path / "adapter", base=tmp_path / "other")
    base.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"adapter, base .*base: .*no such directory"):
        load_policy(tmp_path / "adapter")
    load_policy(tmp_path / "adapter", base=tmp_path / "moved")


def test_a_damaged_adapter_is_refused(base, tmp_path):
    tuned(base, tmp_path / "whole", 1)
    cut_adapter(tmp_path / "whole", tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"found other bytes; expected those that base.json"):
        load_policy(tmp_path / "adapter")


def test_what_cannot_be_cut_or_is_no_adapter_is_refused(base, policy, tmp_path):
    with pytest.raises(UserError, match=r"no note of a checkpoint .* --base DIR"):
        cut_adapter(base, tmp_path / "adapter")
    with pytest.raises(UserError, match="found a base beside a whole checkpoint"):
        load_policy(base, base=base)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.1)
    save_policy(policy, tmp_path / "full")
    with pytest.raises(UserError, match="found no tensor that is bit-equal"):
        cut_adapter(tmp_path / "full", tmp_path / "adapter", base)
    assert not (tmp_path / "adapter").exists()
    tuned(base, tmp_path / "whole", 1)
    cut_adapter(tmp_path / "whole", tmp_path / "adapter")
    with pytest.raises(UserError, match="Make it whole first"):
        convert(tmp_path / "adapter", "native", tmp_path / "merged", merge=True)


def test_the_command_cuts_and_makes_whole(base, tmp_path):
    tuned(base, tmp_path / "whole", 1)
    call = CliRunner().invoke
    cut = call(
        app, ["convert", str(tmp_path / "whole"), str(tmp_path / "adapter"), "--to", "adapter"]
    )
    assert cut.exit_code == 0, cut.output
    assert "% of the whole" in cut.output
    base.rename(tmp_path / "moved")
    made = call(
        app,
        [
            "convert",
            str(tmp_path / "adapter"),
            str(tmp_path / "made"),
            *("--to", "native", "--base", str(tmp_path / "moved")),
        ],
    )
    assert made.exit_code == 0, made.output
    assert weights_hash(load_policy(tmp_path / "made").model) in made.output
