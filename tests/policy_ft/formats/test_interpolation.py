"""Policies between policies: ends are bit-equal, the middle is rounded once, strangers refused."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from policy_ft.checkpoints.native import save_policy
from policy_ft.cli import app
from policy_ft.errors import UserError
from policy_ft.formats.conversion.interpolation import merge
from policy_ft.formats.load import load_policy


def moved(policy, seed: int):
    """The policy with other weights, as a run would leave it."""
    other = replace(policy, model=deepcopy(policy.model))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return other


@pytest.fixture
def ends(policy, tmp_path) -> list[Path]:
    """A base, two policies tuned from it."""
    paths = []
    for name, each in {"base": policy, "one": moved(policy, 1), "two": moved(policy, 2)}.items():
        provenance = {**each.provenance, "instructions": [f"do {name}"]}
        save_policy(replace(each, provenance=provenance), tmp_path / name)
        paths.append(tmp_path / name)
    return paths


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_policy(path).model.named_parameters())


@pytest.mark.parametrize(("alpha", "place"), [(0.0, 0), (1.0, 1)])
def test_ends_are_bit_equal(ends, tmp_path, alpha, place):
    merge(ends[:2], tmp_path / "out", {"*": alpha})
    for name, value in weights(tmp_path / "out").items():
        assert torch.equal(value, weights(ends[place])[name])


def test_the_middle_is_that_of_float64_rounded_once_group_by_group(ends, tmp_path):
    merge(ends[:2], tmp_path / "out", {"language": 0.2, "expert.layers.0": 1.0, "*": 0.75})
    first, second = weights(ends[0]), weights(ends[1])
    for name, value in weights(tmp_path / "out").items():
        alpha = 0.75
        if name.startswith("backbone.language"):
            alpha = 0.2
        elif name.startswith("expert.layers.0."):
            alpha = 1.0
        exact = (1 - alpha) * first[name].double() + alpha * second[name].double()
        assert torch.equal(value, exact.float()), name


def test_what_no_pattern_names_lies_in_the_middle(ends, tmp_path):
    merge(ends[:2], tmp_path / "out", {"language": 0.0})
    name = "expert.action_out_proj.weight"
    exact = (weights(ends[0])[name].double() + weights(ends[1])[name].double()) / 2
    assert torch.equal(weights(tmp_path / "out")[name], exact.float())


def test_a_soup_is_the_mean_and_knows_all_sentences(ends, tmp_path):
    merge(ends, tmp_path / "out")
    soup = load_policy(tmp_path / "out")
    assert soup.provenance["instructions"] == ["do base", "do one", "do two"]
    assert len(soup.provenance["merged"]["of"]) == 3
    for name, value in soup.model.named_parameters():
        mean = sum(weights(path)[name].double() for path in ends) / 3
        torch.testing.assert_close(value.double(), mean, rtol=0, atol=1e-7)


def test_the_command_writes_what_the_function_writes(ends, tmp_path):
    arguments = [str(ends[0]), str(ends[1]), "--output", str(tmp_path / "out")]
    shares = ["--alpha", "0.5", "--alpha", "language=0.3"]
    result = CliRunner().invoke(app, ["merge", *arguments, *shares])
    assert result.exit_code == 0, result.output
    merge(ends[:2], tmp_path / "again", {"language": 0.3, "*": 0.5})
    provenances = [
        json.loads((tmp_path / name / "provenance.json").read_text()) for name in ("out", "again")
    ]
    assert provenances[0] == provenances[1]


@pytest.mark.parametrize(
    ("alphas", "faults"),
    [
        ({"lang": 0.3, "*": 0.5}, ["--alpha lang: found a pattern that names nothing", "language"]),
        ({"language": 1.5, "*": -1.0}, ["--alpha language: found 1.5", r"--alpha \*: found -1.0"]),
    ],
)
def test_shares_that_cannot_be_are_refused_and_nothing_is_written(ends, tmp_path, alphas, faults):
    with pytest.raises(UserError) as refused:
        merge(ends[:2], tmp_path / "out", alphas)
    for fault in faults:
        assert fault.replace("\\", "") in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_policies_of_other_statistics_are_refused(ends, policy, fitted, tmp_path):
    other = replace(policy, transforms=fitted(action_normalization="min_max"))
    save_policy(other, tmp_path / "other")
    with pytest.raises(UserError, match=r"other, transforms: found another; .*base"):
        merge([ends[0], tmp_path / "other"], tmp_path / "out", {"*": 0.5})


def test_one_checkpoint_is_no_merge_and_three_have_no_alpha(ends, tmp_path):
    with pytest.raises(UserError, match="found 1 checkpoints; expected at least two"):
        merge(ends[:1], tmp_path / "out")
    with pytest.raises(UserError, match="--alpha for 3 checkpoints; expected two"):
        merge(ends, tmp_path / "out", {"*": 0.5})
