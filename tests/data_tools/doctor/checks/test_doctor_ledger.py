"""The ledger: what validate did not look at, and why, so that its silence is no all-clear."""

import json
from dataclasses import replace

import numpy as np

from data_tools.doctor.checks.timing import DROPPED_STEPS, TIME_JITTER
from data_tools.doctor.examination import examine
from data_tools.doctor.report import Ledger
from data_tools.finding import DATASET, not_checked


def whys(dataset, **settings) -> dict[str, list[tuple[str, int]]]:
    """Rule -> why it was not looked at, and in how many places; 0 for the dataset as a whole."""
    found: dict[str, list[tuple[str, int]]] = {}
    for line in examine(dataset, **settings).ledger:
        count = 0 if line.places == (DATASET,) else len(line.places)
        for rule in line.rules:
            found.setdefault(rule, []).append((line.why, count))
    return found


def test_a_clean_recording_read_whole_leaves_out_only_what_it_cannot_have(robot):
    left_out = whys(robot("joints"), deep=True)
    assert left_out["shifted_observations"] == [("no states of a simulator were kept", 8)]
    assert not {"time_jitter", "dropped_steps", "repeated_frames"} & set(left_out)


def test_of_frames_that_were_not_decoded_it_is_told(robot):
    ((why, count),) = whys(robot("joints"))["repeated_frames"]
    assert count == 8
    assert "only a few frames were decoded" in why
    assert "--deep decodes all" in why


def test_a_clock_on_an_exact_grid_says_nothing_of_jitter_and_gaps(robot):
    dataset = robot("joints")
    counted = dataset
    for index, episode in enumerate(dataset.episodes[:4]):
        clock = (np.arange(episode.num_steps) / dataset.conventions.control_hz).astype(np.float32)
        counted = counted.change(index, clock=clock.astype(np.float64))
    (told,) = whys(counted)["time_jitter"]
    assert told == ("the clock lies on an exact grid: it was counted, not measured", 4)
    assert told in whys(counted)["dropped_steps"]
    ((why, count),) = whys(dataset.change_all(clock=None))["time_jitter"]
    assert (why, count) == ("no clock is recorded", 8)


def test_without_pairs_or_a_rate_the_checks_that_need_them_are_named(robot):
    dataset = robot("joints")
    names = tuple(f"c{i}" for i in range(len(dataset.conventions.action.names)))
    # grippers are declared by the names of their columns
    unpaired = whys(dataset.declare("action", names=names, grippers=()))
    assert "which state column" in unpaired["actions_after_motion"][0][0]
    assert "declared as a displacement" in whys(dataset)["looks_absolute"][0][0]
    assert "declared as a target" in whys(robot("delta_ee"))["action_is_state"][0][0]
    unrated = replace(
        dataset, conventions=dataset.conventions.model_copy(update={"control_hz": None})
    )
    for rule in ("control_rate", "frozen_state", "frozen_camera"):
        assert ("nobody declares control_hz", 8) in whys(unrated)[rule]


def test_numbers_that_are_not_finite_keep_other_checks_from_their_episode(robot):
    left_out = whys(robot("joints").set("commands", 3, 5, 0, np.nan))
    for rule in ("joint_jump", "actions_after_motion", "outlier"):
        assert ("its numbers are not finite", 1) in left_out[rule]


def test_what_is_not_declared_or_recorded_is_told_once_for_the_dataset(robot):
    left_out = whys(robot("joints"))
    assert left_out["position_jump"] == [("no state column is declared in m", 0)]
    assert left_out["quaternion_norm"] == [("no four columns are named as a quaternion", 0)]
    assert left_out["success_without_reward"][0][1] == 0
    assert "--validation" in left_out["split_overlap"][0][0]
    assert not {"joint_jump", "degrees", "no_success", "exchanged_cameras"} & set(left_out)
    ee = whys(robot("delta_ee"))
    assert ee["joint_jump"] == [("no state column is declared as a joint in rad", 0)]
    assert "position_jump" not in ee


def test_too_few_episodes_to_compare_are_told(robot):
    dataset = robot("joints")
    few = whys(replace(dataset, episodes=dataset.episodes[:4]))
    assert ("fewer than 5 episodes have pictures to compare", 0) in few["exchanged_cameras"]
    assert few["length_outlier"] == [("fewer than 10 episodes have its sentence", 4)]
    nobody = whys(dataset.change_all(is_success=None))
    assert nobody["no_success"] == [("no episode says whether it succeeded", 0)]


def test_a_sample_of_the_steps_is_told_as_one(robot, monkeypatch):
    monkeypatch.setattr("data_tools.doctor.examination.MAX_SAMPLED_STEPS", 400)
    assert ("400 steps of evenly spread episodes stand for all", 0) in whys(robot("joints"))[
        "actions_after_motion"
    ]


def test_a_dataset_without_a_camera_has_no_look_at_pictures(robot):
    dataset = robot("joints")
    blind = replace(dataset, conventions=dataset.conventions.model_copy(update={"cameras": ()}))
    assert whys(blind)["frozen_camera"] == [("no camera is declared", 0)]


def test_an_ignored_rule_is_in_no_line(robot):
    assert "repeated_frames" not in whys(robot("joints"), ignore=["repeated_frames"])


def test_rules_with_one_reason_at_the_same_places_are_one_line():
    ledger = Ledger()
    for name in ("a", "b"):
        ledger.note(not_checked(name, "no clock", DROPPED_STEPS, TIME_JITTER))
    ledger.note(not_checked("c", "no clock", TIME_JITTER))
    ledger.note(not_checked(DATASET, "no rate", TIME_JITTER))
    assert [str(line) for line in ledger.lines()] == [
        "dropped_steps: no clock (2 episodes, first a)",
        "time_jitter: no clock (3 episodes, first a)",
        "time_jitter: no rate",
    ]


def test_a_line_on_a_terminal_names_six_rules_at_most(robot):
    spoiled = robot("joints").set("commands", 3, 5, 0, np.nan)
    (line,) = [x for x in examine(spoiled).ledger if x.why == "its numbers are not finite"]
    told = str(line).partition(":")[0]
    assert told.count(",") == 5
    assert told.endswith(f" and {len(line.rules) - 6} more")
    assert line.as_json()["rules"] == list(line.rules)


def test_the_ledger_is_on_the_terminal_and_in_the_json(robot_data, demos):
    code, out, _ = robot_data("validate", demos)
    assert code == 0
    assert "not checked, or not everywhere:" in out
    assert "shifted_observations: no states of a simulator were kept (12 episodes, first" in out
    code, out, _ = robot_data("validate", demos, "--json")
    (line,) = [x for x in json.loads(out)["ledger"] if "shifted_observations" in x["rules"]]
    assert line == {
        "rules": ["shifted_observations"],
        "why": "no states of a simulator were kept",
        "count": 12,
        "first": f"{demos}:data/demo_0",
    }
