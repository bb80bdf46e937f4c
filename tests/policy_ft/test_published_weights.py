"""Weights under other names: ties, tensors of no use, and what is kept of them in every save."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from policy_ft.checkpoints.native import save_policy, weights_hash
from policy_ft.checkpoints.tensor_files import locate_tensors
from policy_ft.checkpoints.weights import read_weights
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.models.build import build_model
from policy_ft.policy import PublishedRecord

EMBEDDING = "backbone.language.embed_tokens.weight"


class Published:
    """A policy's weights under other names, with a tied twin and a head of no use."""

    twins = ("lm_head.weight", "language.embed_tokens.weight")

    def __init__(self, model, directory):
        self.file = directory / "published.safetensors"
        self.tensors = {
            self.stored(name): tensor.detach().clone()
            for name, tensor in model.state_dict().items()
        }
        self.tensors[self.twins[0]] = self.tensors[self.twins[1]].clone()
        self.tensors["dead.weight"] = torch.randn(3, 5).bfloat16()
        self.tensors["dead.bias"] = torch.randn(5)

    def live(self, name):
        if name.startswith("dead."):
            return None
        if name == self.twins[0]:
            return EMBEDDING
        return name if name.startswith("expert.") else f"backbone.{name}"

    def stored(self, live):
        return live.removeprefix("backbone.")

    def write(self):
        save_file(self.tensors, self.file)

    def read(self, model):
        self.write()
        return read_weights([self.file], model, rename=self.live, stored_name=self.stored)


@pytest.fixture
def published(policy, tmp_path):
    return Published(policy.model, tmp_path)


def test_published_names_a_tied_twin_and_a_dead_head_are_all_accounted_for(published, policy):
    model = build_model(policy.config)
    report = published.read(model)
    assert set(report.loaded) == set(model.state_dict())
    assert report.tied in (published.twins[:1], published.twins[1:])
    assert set(report.dropped) == {"dead.weight", "dead.bias"}
    assert weights_hash(model) == weights_hash(policy.model)
    assert report.weights_sha256 == weights_hash(policy.model), "hashed under the model's names"


@pytest.mark.parametrize("left", Published.twins)
def test_either_name_of_a_tied_tensor_is_enough(published, policy, left):
    for name in published.twins:
        if name != left:
            del published.tensors[name]
    model = build_model(policy.config)
    assert published.read(model).tied == ()
    assert weights_hash(model) == weights_hash(policy.model)


def test_tied_names_with_other_values_are_refused_and_nothing_is_read(published, policy):
    published.tensors[published.twins[0]][5, 3] += 1e-3
    model = build_model(policy.config)
    before = weights_hash(model)
    with pytest.raises(UserError, match=rf"other values than in .*both are {EMBEDDING}.*Remove"):
        published.read(model)
    assert weights_hash(model) == before


def test_tied_names_in_other_types_are_refused(published, policy):
    name = published.twins[0]
    published.tensors[name] = published.tensors[name].bfloat16()
    with pytest.raises(UserError, match="other values than in"):
        published.read(build_model(policy.config))


def test_faults_name_a_tensor_as_the_file_and_as_the_model_does(published, policy):
    norm = published.tensors.pop("language.norm.weight")
    published.tensors["language.nrm.weight"] = norm
    with pytest.raises(UserError) as caught:
        published.read(build_model(policy.config))
    missing, unexpected = caught.value.faults
    assert "language.norm.weight (backbone.language.norm.weight in the model)" in missing
    assert "did you mean 'language.nrm.weight'?" in missing
    assert "language.nrm.weight (backbone.language.nrm.weight in the model)" in unexpected
    assert "did you mean 'language.norm.weight'?" in unexpected


@pytest.fixture
def with_unused(published, policy):
    report = published.read(build_model(policy.config))
    return replace(
        policy,
        load_report=report,
        source=PublishedRecord(
            format="openpi",
            documents={"assets/arm/norm_stats.json": {"mean": [0.1, float("nan")], "q01": None}},
            prefix="model.",
        ),
        unused=locate_tensors([published.file], report.dropped),
    )


def test_unused_tensors_survive_saving_and_loading_bit_for_bit(with_unused, published, tmp_path):
    save_policy(with_unused, tmp_path / "first")
    save_policy(load_policy(tmp_path / "first"), tmp_path / "second")
    for name in ("first", "second"):
        kept = load_file(tmp_path / name / "unused_tensors.safetensors")
        assert set(kept) == {"dead.weight", "dead.bias"}
        for each, tensor in kept.items():
            assert tensor.dtype == published.tensors[each].dtype
            assert torch.equal(tensor, published.tensors[each])
    loaded = load_policy(tmp_path / "second")
    assert set(loaded.unused) == {"dead.weight", "dead.bias"}


def test_the_source_record_survives_saving_and_loading(with_unused, tmp_path):
    save_policy(with_unused, tmp_path / "first")
    loaded = load_policy(tmp_path / "first").source
    assert loaded.model_dump_json() == with_unused.source.model_dump_json()
    assert "NaN" in loaded.model_dump_json()


def test_a_policy_of_our_own_has_neither_source_nor_unused_tensors(policy, tmp_path):
    save_policy(policy, tmp_path / "own")
    assert not (tmp_path / "own/unused_tensors.safetensors").exists()
    assert not (tmp_path / "own/source.json").exists()
    loaded = load_policy(tmp_path / "own")
    assert loaded.source is None
    assert loaded.unused == {}


def test_saving_says_so_when_the_file_of_unused_tensors_is_gone(with_unused, published, tmp_path):
    published.file.unlink()
    with pytest.raises(UserError, match=r"published.safetensors: found no such file.*Put the file"):
        save_policy(with_unused, tmp_path / "first")
    assert not (tmp_path / "first").exists()
    save_policy(replace(with_unused, unused={}), tmp_path / "first")


def test_saving_says_so_when_an_unused_tensor_is_gone(with_unused, published, tmp_path):
    del published.tensors["dead.bias"]
    published.write()
    with pytest.raises(UserError, match=r"dead.bias: found no such tensor.*Put the file back"):
        save_policy(with_unused, tmp_path / "first")


def test_the_report_is_kept_beside_the_weights(with_unused, tmp_path):
    save_policy(with_unused, tmp_path / "first")
    kept = json.loads((tmp_path / "first/load_report.json").read_text())
    assert kept["dropped"] == list(with_unused.load_report.dropped)
    assert kept["tied"] == list(with_unused.load_report.tied)
    assert len(kept["loaded"]) == len(with_unused.model.state_dict())


def test_the_report_counts_in_one_line_and_names_below(with_unused):
    report = with_unused.load_report
    assert report.summary() == (
        f"{len(report.loaded)} tensors loaded, 0 missing, 0 unexpected, 1 tied, 0 reshaped, "
        "2 dropped"
    )
    assert report.lines()[0] == report.summary()
    assert "  dropped: dead.weight" in report.lines()
    many = replace(report, dropped=tuple(f"head.{index}" for index in range(14)))
    assert many.lines()[-2:] == ["  dropped: head.9", "  dropped: ... and 4 more"]
