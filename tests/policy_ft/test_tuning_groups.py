"""Named groups: first match wins, every parameter is covered, nothing is matched in vain."""

import pytest
import torch
from torch import nn

from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.config.tuning import GroupRule
from policy_ft.errors import UserError
from policy_ft.tuning.groups import depths, plan_groups

OPTIMIZER = OptimizerConfig(lr=1e-3, weight_decay=0.1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout(0.5)


class TwoTowers(nn.Module):
    """Two vision blocks, a language block one of whose biases no loss reaches, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.ModuleList([Block(), Block()])
        self.language = Block()
        self.head = nn.Linear(3, 2)

    def groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name, _ in self.named_parameters():
            parts = name.split(".")
            leaf = f"vision.layers.{parts[1]}" if parts[0] == "vision" else parts[0]
            groups.setdefault(leaf, []).append(name)
        return groups

    def no_weight_decay(self) -> set[str]:
        return {name for name, parameter in self.named_parameters() if parameter.ndim < 2}

    def held(self) -> dict[str, bool]:
        return {}


def reached(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()} - {"language.linear.bias"}


def plan_of(*rules: GroupRule):
    model = TwoTowers()
    return model, plan_groups(model, rules, OPTIMIZER, reached(model))


def by_name(plan):
    return {a.parameter: a for a in plan.assignments}


def test_every_parameter_is_in_exactly_one_row():
    model, plan = plan_of(
        GroupRule(pattern="vision.layers.0", lr_scale=0.1),
        GroupRule(pattern="*.bias", lr_scale=2.0),
    )
    assert sum(row.tensors for row in plan.table()) == len(list(model.parameters()))
    assert sum(row.parameters for row in plan.table()) == sum(p.numel() for p in model.parameters())


def test_the_first_matching_rule_decides():
    _, plan = plan_of(
        GroupRule(pattern="vision.layers.0", lr_scale=0.1),
        GroupRule(pattern="vision", lr_scale=0.5),
    )
    decided = by_name(plan)
    assert decided["vision.0.linear.weight"].lr_scale == 0.1
    assert decided["vision.1.linear.weight"].lr_scale == 0.5
    assert decided["head.weight"].lr_scale == 1.0


@pytest.mark.parametrize("pattern", ["vision", "vision.layers", "vision.layers.*", "vision.*"])
def test_a_group_name_or_pattern_covers_every_leaf_below_it(pattern):
    _, plan = plan_of(GroupRule(pattern=pattern, frozen=True))
    frozen = {name for name, a in by_name(plan).items() if a.state == "frozen"}
    assert frozen == {name for name in by_name(plan) if name.startswith("vision.")}


def test_a_parameter_pattern_reaches_single_tensors():
    _, plan = plan_of(GroupRule(pattern="*.linear.bias", frozen=True))
    frozen = {name for name, a in by_name(plan).items() if a.state == "frozen"}
    assert frozen == {"vision.0.linear.bias", "vision.1.linear.bias", "language.linear.bias"}


def test_norms_and_biases_do_not_decay_and_a_rule_may_set_its_own_decay():
    _, plan = plan_of(GroupRule(pattern="head", weight_decay=0.5))
    decided = by_name(plan)
    assert decided["vision.0.linear.weight"].weight_decay == 0.1
    assert decided["vision.0.norm.weight"].weight_decay == 0.0
    assert decided["head.weight"].weight_decay == 0.5
    assert decided["head.bias"].weight_decay == 0.5, "the rule says so, and it alone would spare it"
    row = next(row for row in plan.table() if row.group == "vision")
    assert (row.weight_decay, row.decayed_tensors, row.tensors) == (0.1, 2, 8)


def test_dormant_parameters_are_listed_and_not_optimised():
    model, plan = plan_of()
    plan.apply(model)
    assert not model.language.linear.bias.requires_grad
    assert [(r.group, r.tensors) for r in plan.table() if r.state == "dormant"] == [("language", 1)]


def test_frozen_modules_do_not_drop_out_and_keep_their_batch_statistics():
    model, plan = plan_of(GroupRule(pattern="vision", frozen=True))
    plan.apply(model)
    assert not any(module.training for module in model.vision.modules())
    assert model.language.training
    assert model.language.dropout.training
    assert model.head.training


def test_batch_statistics_are_never_those_of_a_batch():
    model, plan = plan_of()
    plan.apply(model)
    assert [
        module.training for module in model.modules() if isinstance(module, nn.BatchNorm1d)
    ] == [False] * 3
    means = model.language.norm.running_mean.clone()
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    whole = model.language.norm(rows)
    torch.testing.assert_close(
        torch.cat([model.language.norm(each) for each in rows.split(2)]), whole
    )
    assert torch.equal(model.language.norm.running_mean, means)


def test_a_partly_frozen_block_still_trains_as_a_block():
    model, plan = plan_of(GroupRule(pattern="vision.0.linear.*", frozen=True))
    plan.apply(model)
    assert model.vision[0].training
    assert not model.vision[0].linear.training
    assert model.vision[0].dropout.training


@pytest.mark.parametrize(
    ("rules", "remedy"),
    [
        (
            [GroupRule(pattern="vison", frozen=True)],
            r"found 'vison', which matches no group.*[Dd]id you mean 'vision'",
        ),
        ([GroupRule(pattern="head.wieght", lr_scale=2)], r"[Dd]id you mean 'head.weight'"),
        (
            [GroupRule(pattern="vision"), GroupRule(pattern="vision.layers.0")],
            r"Move the narrower rule before",
        ),
        ([GroupRule(pattern="*", frozen=True)], r"Remove a frozen rule"),
        (
            [GroupRule(pattern="language.linear.bias", lr_scale=2)],
            r"1 tensors that no loss reaches, e.g. 'language.linear.bias'.*Remove the rule",
        ),
    ],
)
def test_rules_that_cannot_be_honoured_are_refused(rules, remedy):
    with pytest.raises(UserError, match=remedy):
        plan_of(*rules)


def test_all_patterns_in_vain_are_named_at_once():
    with pytest.raises(UserError) as caught:
        plan_of(GroupRule(pattern="a"), GroupRule(pattern="b"))
    assert len(caught.value.faults) == 2


def test_freezing_everything_but_dormant_parameters_is_refused():
    rules = [
        GroupRule(pattern="vision", frozen=True),
        GroupRule(pattern="language.*.weight", frozen=True),
    ]
    rules += [
        GroupRule(pattern="language.norm.bias", frozen=True),
        GroupRule(pattern="head", frozen=True),
    ]
    with pytest.raises(UserError, match="at least one tensor that learns"):
        plan_of(*rules)


def test_a_model_whose_groups_leave_a_parameter_out_is_refused():
    class Leaky(TwoTowers):
        def groups(self):
            return {leaf: names for leaf, names in super().groups().items() if leaf != "head"}

    with pytest.raises(ValueError, match=r"leaves out \['head.bias', 'head.weight'\]"):
        plan_groups(Leaky(), [], OPTIMIZER, reached(Leaky()))


def test_leaves_know_their_depth_from_the_input_on():
    assert depths(["vision.stem", "vision.layers.0", "head", "vision.layers.1"]) == {
        "vision.stem": 0,
        "vision.layers.0": 1,
        "head": 0,
        "vision.layers.1": 2,
    }
    _, plan = plan_of()
    found = {a.leaf: a.depth for a in plan.assignments}
    assert found == {"vision.layers.0": 0, "vision.layers.1": 1, "language": 0, "head": 0}
