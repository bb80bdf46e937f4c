"""Broken labels, doubles, failures and splits: each breaks one rule, and clean data none."""

from dataclasses import replace

import numpy as np
import pytest

from data_tools.doctor.checks.collection import check_size
from data_tools.doctor.examination import validate, validate_split
from data_tools.episode import Inspected
from data_tools.errors import UserError, describe
from data_tools.finding import Finding


def again(dataset, **changes):
    """The dataset with its second episode once more, under another name."""
    name = "arm.hdf5:data/demo_99"
    return replace(
        dataset,
        episodes=[*dataset.episodes, replace(dataset.episodes[1], name=name, **changes)],
    )


def told(dataset, *texts):
    for index, text in enumerate(texts):
        dataset = dataset.change(index, instruction=text)
    return dataset


def waiting(share):
    """Joints that move in the first steps only."""

    def change(array):
        array = array.copy()
        start = int((1 - share) * len(array))
        array[start:] = array[start] + 1e-5 * np.sin(np.arange(len(array) - start))[:, None]
        array[start:, 6] = array[start, 6]
        return array

    return change


def quiet(dataset):
    """Without the pictures, which would rest, too."""
    return replace(dataset, conventions=dataset.conventions.model_copy(update={"cameras": ()}))


def many(robot, steps):
    """Twelve episodes, one of them of `steps`."""
    dataset = robot("delta_ee", episodes=12, seconds=4.0)
    cut = {key: (lambda array: array[:steps]) for key in ("states", "commands", "clock")}
    return dataset.change(7, **cut)


def in_split(dataset, index, split, **more):
    return dataset.change(index, attributes={"split": split, **more})


BROKEN = [
    ("instruction", lambda d: told(d, "Test.")),
    ("instruction", lambda d: told(d, "ab")),
    ("instruction", lambda d: told(d, "go " * 80)),
    ("instruction", lambda d: told(d, "episode_12")),
    ("instruction_is_file_name", lambda d: told(d, "put_cup_on_plate")),
    ("instruction_is_file_name", lambda d: told(d, "arm")),
    ("instruction_spaces", lambda d: told(d, "lift  the cup\n")),
    ("instruction_not_ascii", lambda d: told(d, "lift the \u201ccup\u201d")),
    ("instruction_variants", lambda d: told(d, "Put the red cup on the plate.")),
    ("duplicate_episode", again),
    ("failed_episodes", lambda d: d.change(1, is_success=False)),
    ("no_success", lambda d: d.change_all(is_success=False)),
    (
        "no_ops",
        lambda d: quiet(d).change_all(states=waiting(0.4), commands=waiting(0.4)),
    ),
    (
        "idle_episode",
        lambda d: quiet(d).change(3, states=waiting(0.95), commands=waiting(0.95)),
    ),
    (
        "undeclared",
        lambda d: d.declare("action", references=("unknown",) * 6 + ("absolute",)),
    ),
    (
        "split_leakage",
        lambda d: in_split(
            in_split(d, 0, "train", source_demo="demo_7"), 1, "valid", source_demo="demo_7"
        ),
    ),
]


@pytest.mark.parametrize(("rule", "broken"), BROKEN)
def test_broken_labels_break_exactly_one_rule(robot, rules, rule, broken):
    assert rules(robot("joints")) == []
    assert rules(broken(robot("joints"))) == [rule]


def test_an_episode_of_another_length_is_found_among_ten_of_its_task(robot, rules):
    assert rules(many(robot, 200)) == []
    assert rules(many(robot, 12)) == ["length_outlier"]
    assert rules(told(many(robot, 12), *(f"task number {i}" for i in range(12)))) == []


def test_an_episode_in_two_splits_is_found(robot, rules):
    twice = again(in_split(robot("joints"), 1, "train"), attributes={"split": "valid"})
    assert rules(twice) == ["duplicate_episode", "split_overlap"]
    apart = in_split(in_split(robot("joints"), 0, "train"), 1, "valid")
    assert rules(apart) == []


def test_two_datasets_share_episodes_or_children_of_one_demonstration(robot):
    dataset = robot("joints")
    some = replace(dataset, episodes=dataset.episodes[:3])
    others = replace(dataset, episodes=dataset.episodes[3:])
    assert validate_split(some, others) == []
    (finding,) = validate_split(some, replace(dataset, episodes=dataset.episodes[2:]))
    assert (finding.rule, finding.where) == ("split_overlap", dataset.episodes[2].name)
    child = {"source_demo": "demo_4"}
    (finding,) = validate_split(
        some.change(0, attributes=child), others.change(1, attributes=child)
    )
    assert finding.rule == "split_leakage"
    assert "children of demo_4: 1 in training, 1 in validation" in finding.value


def test_one_finding_a_sentence_counts_its_episodes(robot):
    (finding,) = validate(robot("joints").change_all(instruction="todo"))
    assert finding.value == "'todo' (4 characters), in 8 episodes"


def test_what_the_reader_warned_of_comes_first_and_what_it_misses_is_told(robot):
    warned = Finding(
        rule="stale_total", severity="warning", where="a", value="b", threshold="c", remedy="d"
    )
    inspected = Inspected(("memory",), (), (warned,), undeclared=("no control rate",))
    findings = validate(replace(robot("joints"), inspected=inspected))
    assert [finding.rule for finding in findings] == ["stale_total", "undeclared"]
    assert findings[1].value == "no control rate"


def test_what_a_layout_leaves_to_a_person_is_told_as_the_reader_says_it(robot):
    lines = "Write into a.yaml:\nlayout:\n  instruction: {text: <the task>}"
    gap = describe("a.hdf5", "nothing that tells layout.instruction", "a declaration of it", lines)
    inspected = Inspected(("memory",), (), (), undeclared=(gap,))
    (finding,) = validate(replace(robot("joints"), inspected=inspected))
    assert str(finding) == f"warning [undeclared] {gap}"
    assert (finding.where, finding.remedy) == ("a.hdf5", lines)


def test_ignored_rules_are_left_out_and_unknown_ones_refused(robot):
    dataset = robot("joints").change_all(is_success=False)
    assert validate(dataset, ignore=["no_success"]) == []
    with pytest.raises(UserError, match="did you mean 'no_success'"):
        validate(dataset, ignore=["no_sucess"])


def test_files_larger_than_the_memory_are_found():
    assert [*check_size(2**30, 2**31)] == []
    (finding,) = check_size(3 * 2**30, 2**31)
    assert finding.value == "3.0 GiB of files and 2.0 GiB of memory"


def test_progress_counts_every_episode(robot):
    told_of = []
    validate(robot("joints"), progress=told_of.append)
    assert told_of == list(range(1, 9))
