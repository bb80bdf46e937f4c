"""Phases: which parameters learn when, at which rate, and what the optimizer hears of it."""

import pytest
import torch

from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.config.tuning import GroupRule
from policy_ft.errors import UserError
from policy_ft.tuning.plan import Phase, TuningPlan, plan_tuning
from tests.policy_ft.test_tuning_groups import TwoTowers, reached

OPTIMIZER = OptimizerConfig(
    lr=1e-3, weight_decay=0.1, warmup_steps=0, decay_steps=10, schedule="constant"
)


def frozen(*patterns: str) -> tuple[GroupRule, ...]:
    return tuple(GroupRule(pattern=pattern, frozen=True) for pattern in patterns)


def planned(*phases: Phase) -> tuple[TwoTowers, TuningPlan]:
    model = TwoTowers()
    return model, plan_tuning(model, phases, OPTIMIZER, reached(model))


def test_the_optimizer_gets_each_trained_tensor_once_at_its_rate():
    rules = (*frozen("vision"), GroupRule(pattern="head", lr_scale=0.1))
    model, plan = planned(Phase(0, rules))
    plan.at(0).apply(model)
    groups = plan.parameter_groups(model)
    members = [parameter for group in groups for parameter in group["params"]]
    assert {id(p) for p in members} == {id(p) for p in model.parameters() if p.requires_grad}
    assert len({id(p) for p in members}) == len(members)
    assert sorted({group["lr"] for group in groups}) == [1e-4, 1e-3]


def test_a_phase_begins_at_its_step_and_lasts_until_the_next():
    _, plan = planned(
        Phase(0, frozen("vision", "language")), Phase(3, frozen("vision")), Phase(7, ())
    )
    assert [plan.index_at(step) for step in range(9)] == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert set(plan.at(2).trained) == {"head.weight", "head.bias"}
    assert set(plan.trained) == set(plan.at(8).trained)


def test_a_group_has_the_rate_of_its_phase_and_none_before():
    slow = (GroupRule(pattern="vision", lr_scale=0.1), *frozen("head"))
    _, plan = planned(Phase(0, frozen("vision")), Phase(4, slow))
    rates = {group.names[0]: [plan.lr_at(step, group) for step in (3, 4)] for group in plan.groups}
    assert rates["vision.0.linear.weight"] == [0.0, 1e-4]
    assert rates["language.linear.weight"] == [1e-3, 1e-3]
    assert rates["head.weight"] == [1e-3, 0.0]


def test_what_a_phase_freezes_does_not_move_and_what_it_frees_does():
    model, plan = planned(Phase(0, frozen("vision", "language")), Phase(1, frozen("head")))
    optimizer = torch.optim.AdamW(plan.parameter_groups(model), lr=1.0)
    moved = []
    for step in range(2):
        plan.at(step).apply(model)
        plan.set_rates(optimizer, step)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
        optimizer.step()
        moved.append({n for n, p in model.named_parameters() if not torch.equal(p, before[n])})
    assert moved == [set(plan.at(0).trained), set(plan.at(1).trained)]
    assert not moved[0] & moved[1]


def test_every_rate_can_be_scaled_and_decay_follows_the_phase():
    heavy = (GroupRule(pattern="head.weight", weight_decay=0.5),)
    model, plan = planned(Phase(0, heavy), Phase(2, ()))
    optimizer = torch.optim.AdamW(plan.parameter_groups(model), lr=1.0)
    place = next(i for i, group in enumerate(plan.groups) if group.names == ("head.weight",))
    found = []
    for step, factor in ((1, 1.0), (2, 0.5)):
        plan.set_rates(optimizer, step, factor)
        found.append(tuple(optimizer.param_groups[place][key] for key in ("lr", "weight_decay")))
    assert found == [(1e-3, 0.5), (5e-4, 0.1)]


def test_faults_of_all_phases_are_told_at_once_with_their_places():
    with pytest.raises(UserError) as caught:
        planned(Phase(0, frozen("vison")), Phase(3, ()), Phase(5, frozen("haed")))
    places = [fault.split(":")[0] for fault in caught.value.faults]
    assert places == ["tuning.groups[0].pattern", "tuning.phases[1].groups[0].pattern"]


def test_what_begins_to_learn_in_a_phase_warms_up_and_the_rest_goes_on():
    model = TwoTowers()
    phases = [Phase(0, frozen("vision")), Phase(4, (), warmup_steps=3)]
    plan = plan_tuning(model, phases, OPTIMIZER, reached(model))
    rates = {
        group.names[0]: [plan.lr_at(step, group) for step in (3, 4, 5, 6, 7, 8)]
        for group in plan.groups
    }
    warming = [0.0, 2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3]
    assert rates["vision.0.linear.weight"] == pytest.approx(warming)
    assert rates["language.linear.weight"] == [1e-3] * 6


def test_a_phase_that_waits_begins_when_it_is_told_to_and_holds_up_those_behind_it():
    model = TwoTowers()
    phases = [Phase(0, frozen("vision", "language"))]
    phases += [Phase(None, frozen("vision")), Phase(None, ())]
    plan = plan_tuning(model, phases, OPTIMIZER, reached(model))
    assert plan.index_at(100) == 0
    plan.began[1] = 5
    assert [plan.index_at(step) for step in (4, 5, 100)] == [0, 1, 1]
    plan.began[2] = 7
    assert [plan.index_at(step) for step in (6, 7)] == [1, 2]


def test_layers_have_rates_that_fall_towards_the_input():
    """lr * decay^(layers above), as timm's layer decay counts; no decay where there is no tower."""
    model = TwoTowers()
    rules = (GroupRule(pattern="vision", lr_decay=0.5), GroupRule(pattern="head", lr_decay=0.5))
    plan = plan_tuning(model, [Phase(0, rules)], OPTIMIZER, reached(model))
    rates = {name: plan.lr_at(0, group) for group in plan.groups for name in group.names}
    depths_of = {a.parameter: a.depth for a in plan.at(0).assignments if a.leaf[:6] == "vision"}
    last = max(depths_of.values())
    assert last > 0
    for name, depth in depths_of.items():
        assert rates[name] == pytest.approx(1e-3 * 0.5 ** (last - depth))
    assert rates["head.weight"] == 1e-3
