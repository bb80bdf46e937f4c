"""plant: one known fault in a copy, which is found where it was planted; nothing else changes."""

import json
import stat

import h5py
import numpy as np
import pytest

from data_tools.doctor.checks.catalogue import RULES
from data_tools.doctor.examination import validate
from data_tools.doctor.planting.plant import FAULTS, NOT_PLANTED, plant
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from tests.data_tools.doctor.checks.clean_files import clean_file
from tests.data_tools.doctor.checks.conftest import record
from tests.data_tools.doctor.checks.lifts import contents, write_lift
from tests.data_tools.doctor.checks.recorded import write
from tests.data_tools.fixtures import d4rl
from tests.data_tools.formats.test_layout_presets import declare
from tests.data_tools.layout_cases import CASES, written

KINDS = ("delta_ee", "joints", "joint_velocity")
# Faults of files, of which each kind of robot has as many.
ONE_OF_A_KIND = ("not_finite", "black_frame", "instruction", "duplicate_episode", "time_jitter")


# These need a folder, or what our own layout has not, or films of hands at work: see below.
NEED_MORE = ("missing_ends", "shifted_observations", "hidden_files", "stale_statistics")

ON_FILM = {
    "blurred_camera": ("spacemouse at 10 Hz", 2.0),
    "foreign_sentence": ("two tasks in turns", None),
    "shaky_episode": ("wiping to and fro", 20.0),
}


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """A file of each kind of robot: 12 episodes of two tasks."""
    folder = tmp_path_factory.mktemp("recorded")
    made = {kind: record(kind, episodes=24) for kind in KINDS}
    return {kind: write(each, folder / f"{kind}.hdf5") for kind, each in made.items()}


def rules_of(path, **settings):
    return {each.rule: each for each in validate(open_dataset(path), **settings)}


def first_fit(rule, recorded, out, **settings):
    """The first kind of robot whose recordings have a place for a fault, and what was planted."""
    for kind, source in recorded.items():
        try:
            return kind, plant(rule, source, out, **settings)
        except UserError as error:
            if "expected a place for" not in str(error):
                raise
    return "", []


def test_every_rule_has_a_fault_or_a_reason_why_not():
    """A new rule needs a fault in data_tools/doctor/planting, or a line in NOT_PLANTED."""
    assert {*RULES} - {*FAULTS} - {*NOT_PLANTED} == set()
    assert {*FAULTS} & {*NOT_PLANTED} == set()
    assert {*NOT_PLANTED} - {*RULES} == set()


@pytest.mark.parametrize("rule", ONE_OF_A_KIND)
def test_what_is_planted_is_found_and_told_of_its_episode(recorded, tmp_path, rule):
    assert rules_of(recorded["delta_ee"]) == {}
    (planted,) = plant(rule, recorded["delta_ee"], tmp_path / "out.hdf5")
    found = rules_of(tmp_path / "out.hdf5")
    assert list(found) == [rule]
    assert found[rule].where == planted.episode


@pytest.mark.slow
@pytest.mark.parametrize("rule", sorted({*FAULTS} & {*RULES} - {*ON_FILM}))
def test_every_fault_that_can_be_planted_is_found(recorded, tmp_path, rule):
    """In one of three copies: some episodes start in a rotation of their own, and the like."""
    fault, told = FAULTS[rule], set()
    for seed in range(3):
        out = tmp_path / f"{seed}.hdf5"
        kind, planted = first_fit(rule, recorded, out, seed=seed)
        if rule in NEED_MORE:
            assert not kind
            return
        found = rules_of(out, deep=fault.is_deep)
        assert {*found} <= {rule, *fault.also}
        told |= {found[rule].where} if rule in found else set()
        if told:
            break
    assert told <= {each.episode for each in planted} | {"dataset", str(out)} or (
        fault.scope != "one"
    )
    assert told


@pytest.mark.slow
@pytest.mark.parametrize("rule", ON_FILM)
def test_faults_of_lenses_tasks_and_hands_are_found_on_film(tmp_path, rule):
    name, strength = ON_FILM[rule]
    (planted,) = plant(rule, clean_file(name), tmp_path / "out.hdf5", strength=strength)
    found = rules_of(tmp_path / "out.hdf5")
    assert {*found} <= {rule, *FAULTS[rule].also}
    assert found[rule].where == planted.episode


def test_marks_files_and_simulated_states_are_planted_where_layouts_have_them(tmp_path):
    (tmp_path / "d4rl").mkdir()
    d4rl.write(tmp_path / "d4rl/maze.hdf5")
    declare(next(case for case in CASES if case.layout == "d4rl"), tmp_path / "d4rl")
    plant("missing_ends", tmp_path / "d4rl", tmp_path / "endless")
    assert "missing_ends" in rules_of(tmp_path / "endless")
    plant("hidden_files", tmp_path / "d4rl", tmp_path / "copied")
    assert "hidden_files" in rules_of(tmp_path / "copied")
    plant("stale_statistics", tmp_path / "d4rl", tmp_path / "stale", strength=2)
    assert "stale_statistics" in rules_of(tmp_path / "stale")
    lift = write_lift(tmp_path)
    with h5py.File(lift, "r+") as file:
        for demo in file["data"].values():
            demo["states"][:, :3] = demo["obs/robot0_eef_pos"][()]
    assert "shifted_observations" not in rules_of(lift)
    plant("shifted_observations", lift, tmp_path / "shifted.hdf5")
    assert "shifted_observations" in rules_of(tmp_path / "shifted.hdf5")


def test_the_source_keeps_every_bit_and_the_copy_differs_in_one_place(tmp_path):
    lift = write_lift(tmp_path)
    lift.chmod(stat.S_IRUSR)
    before = lift.read_bytes()
    out = tmp_path / "out.hdf5"
    (planted,) = plant("not_finite", lift, out, seed=3, strength=2)
    assert lift.read_bytes() == before
    ours, theirs = contents(out), contents(lift)
    assert ours.keys() == theirs.keys()
    (changed,) = [place for place in ours if ours[place] != theirs[place]]
    episode = planted.episode.rpartition(":")[2]
    assert changed[0].startswith(episode)
    with h5py.File(out) as file, h5py.File(lift) as old:
        is_new = np.not_equal(file[changed[0]][()], old[changed[0]][()])
        assert np.isnan(file[changed[0]][()][is_new]).all()
        assert is_new.sum() == 2
        (made,) = json.loads(file.attrs["provenance"])
    assert (made["command"], made["settings"]["rule"]) == ("plant", "not_finite")


def test_the_same_seed_plants_the_same_and_another_one_something_else(recorded, tmp_path):
    told = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("d", 3)):
        (planted,) = plant("joint_jump", recorded["joints"], tmp_path / f"{name}.hdf5", seed=seed)
        told.append(planted.change)
    assert told[0] == told[1]
    assert len({*told}) > 1
    assert contents(tmp_path / "a.hdf5") == contents(tmp_path / "b.hdf5")


def test_a_fault_goes_where_it_is_told_to_and_is_as_strong(recorded, tmp_path):
    source = recorded["delta_ee"]
    out = tmp_path / "out.hdf5"
    (planted,) = plant("dropped_steps", source, out, episode="demo_5", strength=3.0)
    assert planted.episode == f"{out}:data/demo_5"
    times = open_dataset(out)[5].times()
    assert np.diff(times).max() == pytest.approx(3.05, abs=0.02)
    moved = plant("moved_camera", source, tmp_path / "moved.hdf5", episode="20")
    assert [each.episode[-7:] for each in moved] == [f"demo_{n}" for n in (20, 21, 22, 23)]


LAYOUT_FAULTS = ("zero_state", "black_frame", "near_constant_column", "same_pictures")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.layout)
def test_faults_are_planted_in_every_layout_and_read_back(case, tmp_path):
    source = written(case, tmp_path / "in")
    declare(case, source)
    fits = []
    for rule in LAYOUT_FAULTS:
        out = tmp_path / rule / source.name
        try:
            plant(rule, source, out)
        except UserError as error:
            if "expected a place for" not in str(error):
                raise
            continue
        fits.append(rule)
        if case.declared and source.is_file():
            (out.parent / "conventions.yaml").unlink(missing_ok=True)
        if rule in ("zero_state", "black_frame"):
            assert rule in rules_of(out)
    has_frames = case.layout not in ("d4rl", "droid", "agibot")
    assert fits == [
        rule for rule in LAYOUT_FAULTS if has_frames or "state" in rule or "col" in rule
    ]


def test_a_mistake_is_told_with_what_to_do(recorded, robot_data, tmp_path):
    source, out = recorded["delta_ee"], tmp_path / "out.hdf5"

    def refused(*arguments):
        code, _, told = robot_data("plant", *arguments)
        assert code == 2
        assert not out.exists()
        return told

    assert "expected FAULT, IN and OUT. Name all three" in refused("not_finite", source)
    assert "did you mean 'not_finite'?" in refused("not_finit", source, out)
    assert "Leave --strength out" in refused("zero_state", source, out, "--strength", 2)
    assert "3 is plain" in refused("not_finite", source, out, "--strength", -1)
    assert "above 0, up to 1. 0.2 is plain" in refused(
        "clipped_state", source, out, "--strength", 3
    )
    assert "from 1 on. 3 is plain" in refused("not_finite", source, out, "--strength", 0.5)
    assert "found no state column of a joint in rad" in refused("joint_jump", source, out)
    assert "did you mean 'demo_3'?" in refused("zero_state", source, out, "--episode", "demo_33")
    assert "Leave --episode out" in refused("no_ops", source, out, "--episode", 1)
    assert "expected data to copy" in refused("no_ops", tmp_path / "nothing.hdf5", out)
    assert "Choose a place outside of it" in refused("no_ops", tmp_path, tmp_path / "in/out")
    out.write_text("mine")
    assert robot_data("plant", "zero_state", source, out)[0] == 2
    assert out.read_text() == "mine"


def test_a_sentence_that_all_episodes_share_is_no_place_for_a_fault_of_one(tmp_path):
    lift = write_lift(tmp_path)
    with h5py.File(lift, "r+") as file:
        for demo in file["data"].values():
            del demo.attrs["told"]
        file["data"].attrs["told"] = "lift the cube"
    with pytest.raises(UserError, match="stored together with other episodes'"):
        plant("instruction", lift, tmp_path / "out.hdf5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conventions.yaml", "lift.hdf5"]


def test_the_list_names_every_fault_and_the_program_says_what_to_do_next(
    recorded, robot_data, tmp_path
):
    code, told, _ = robot_data("plant", "--list")
    assert (code, len(told.splitlines())) == (0, len(FAULTS))
    assert "not_finite (one episode): A state column is NaN for some steps. --strength 3: " in told
    out = tmp_path / "out.hdf5"
    code, told, _ = robot_data("plant", "repeated_frames", recorded["joints"], out)
    assert code == 0
    assert told.startswith(f"planted [repeated_frames] {out}:data/demo_")
    assert told.endswith(f"see what is found: robot-data validate {out} --deep\n")
