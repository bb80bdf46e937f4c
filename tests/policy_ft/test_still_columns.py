"""A joint that never moves is left alone: in training, at run time, and wherever it comes from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from data_tools.conventions import Conventions
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter
from policy_ft import assemble
from policy_ft.checkpoints.native import save_policy
from policy_ft.cli import app
from policy_ft.config.config_file import dump_config
from policy_ft.config.run import RunConfig
from policy_ft.data.opening import in_one_convention, open_data
from policy_ft.data.sources import training_and_validation
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.models.solvers import SampleRequest
from policy_ft.training.step import to_device
from policy_ft.transforms import stacked

CONSTANT = 0.437
KINDS = ("identity", "mean_std", "quantiles", "min_max")


def write_arm(
    path: Path,
    conventions: Conventions,
    *,
    locked: bool,
    constant: float = CONSTANT,
    reads_off: float = 0.0,
    is_frozen: bool = False,
) -> None:
    """Random walks in x; y is locked, but for its encoder's 1e-6, or moves like x.

    Args:
        path: of the file.
        conventions: of the robot.
        locked: whether y is.
        constant: where.
        reads_off: how far from there the state reads it.
        is_frozen: whether no command changes at all.
    """
    rng = np.random.default_rng(5)
    with EpisodeWriter(path, conventions, overwrite=True) as writer:
        for length in (9, 7, 8, 6):
            walk = rng.normal(0.0, 0.1, (length, 4)).cumsum(0)
            targets = walk[:, :2] + rng.normal(0.0, 0.05, (length, 2))
            if locked:
                walk[:, 1] = constant + reads_off + 1e-6 * rng.normal(size=length)
                targets[:, 1] = constant + 1e-6 * rng.normal(size=length)
            gripper = np.where(np.arange(length) < 4, -1.0, 1.0)
            actions = np.column_stack([targets, gripper])
            writer.add(
                images={
                    name: rng.integers(0, 256, (length, 32, 32, 3), dtype=np.uint8)
                    for name in ("front", "wrist")
                },
                state=walk.astype(np.float32),
                actions=(np.full_like(actions, 0.5) if is_frozen else actions).astype(np.float32),
                instruction="push the red block",
                success=True,
                attributes={},
            )


@pytest.fixture
def locked_run(run_config, conventions, tmp_path) -> Callable[..., RunConfig]:
    """Settings of a short run on demonstrations in which y never moves."""
    write_arm(tmp_path / "locked.hdf5", conventions, locked=True)

    def make(transforms=None, **changes) -> RunConfig:
        chosen = {"cameras": ["front", "wrist"], **(transforms or {})}
        data = {"path": str(tmp_path / "locked.hdf5"), **changes.pop("data", {})}
        return run_config(policy={"transforms": chosen}, data=data, **changes)

    return make


def commands(policy, path: Path, offset: float = 0.0) -> np.ndarray:
    """float[b, h, a] for the first observation of each episode, y of the state read elsewhere."""
    dataset = open_dataset(path)
    seen = [dataset[i].observation(0, ["front", "wrist"]) for i in range(len(dataset))]
    seen = [replace(each, state=each.state + np.float32([0, offset, 0, 0])) for each in seen]
    noise = torch.randn(4, 4, 4, generator=torch.manual_seed(0))
    return np.stack(policy.act(seen, SampleRequest(noise)))


def tuned(config: RunConfig, base: Path, **policy) -> RunConfig:
    """The run, from a checkpoint."""
    start = {"kind": "pretrained", "path": str(base), **policy}
    return RunConfig.model_validate(
        {
            **config.model_dump(mode="json"),
            "policy": start,
            "output_dir": f"{config.output_dir}_tuned",
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_policy_leaves_a_locked_joint_alone(kind, locked_run, tmp_path):
    settings = {"action_normalization": kind, "state_normalization": kind}
    result = assemble.train(locked_run(settings))
    policy = load_policy(result.last_checkpoint)
    chunks = commands(policy, tmp_path / "locked.hdf5")
    assert np.abs(chunks[..., 1] - CONSTANT).max() < 5e-6
    assert np.ptp(chunks[..., 0]) > 0.05, "the others move"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_of_a_locked_joint_changes_no_other_command(kind, locked_run, tmp_path):
    """Another home pose, half a radian off: the model has seen one value and learned nothing."""
    settings = {"action_normalization": kind, "state_normalization": kind}
    config = locked_run(settings)
    policy = assemble.build_policy(config, open_data(config.data, config.seed))
    path = tmp_path / "locked.hdf5"
    np.testing.assert_array_equal(commands(policy, path), commands(policy, path, offset=0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_a_locked_delta_action_stays_where_the_robot_is(kind, locked_run, tmp_path):
    config = locked_run({"action_normalization": kind, "delta_actions": ["x", "y"]})
    policy = assemble.build_policy(config, open_data(config.data, config.seed))
    for offset in (0.0, 0.5):
        chunks = commands(policy, tmp_path / "locked.hdf5", offset)
        assert np.abs(chunks[..., 1] - CONSTANT - offset).max() < 1e-5


def test_a_locked_column_carries_no_loss(locked_run):
    config = locked_run()
    episodes = open_data(config.data, config.seed)
    transforms = assemble.build_policy(config, episodes).transforms
    windows, _ = training_and_validation(episodes, transforms, config.data, config.seed)
    noise, time = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1)
    samples = {**stacked([windows[0]]), "epoch": torch.zeros(1), "noise": noise, "time": time}
    valid = to_device(samples, transforms, torch.device("cpu")).valid
    assert valid[0, 0].tolist() == [[True, False, True, False]] * 4


def test_demonstrations_in_which_nothing_moves_are_refused(run_config, conventions, tmp_path):
    write_arm(tmp_path / "none.hdf5", conventions, locked=True, is_frozen=True)
    config = run_config(data={"path": str(tmp_path / "none.hdf5")})
    found = r"action columns: found none that moves among \['x', 'y', 'gripper'\]"
    with pytest.raises(UserError, match=f"{found}; expected one to learn. Record demonstrations"):
        assemble.train(config)
    assert any("in which the robot moves" in fault for fault in assemble.check(config))


TOLD = "action columns that never move: y (0.437); held there and left out of the loss"
STATE_TOLD = "state columns that never move: y (0.437); 0 to the model whatever the robot reads"


def test_check_train_and_show_tell_it_once_and_what_changes_it(locked_run, tmp_path):
    config = locked_run(training={"steps": 1})
    (tmp_path / "run.yaml").write_text(dump_config(config))
    for command in ("check", "train"):
        result = CliRunner().invoke(app, [command, str(tmp_path / "run.yaml")])
        assert result.exit_code == 0
        said = result.stdout
        assert (said.count(TOLD), said.count(STATE_TOLD), said.count("divide treats")) == (1, 1, 1)
    last = str(Path(config.output_dir) / "checkpoints/last")
    shown = " ".join(CliRunner().invoke(app, ["show", last]).stdout.split())
    assert TOLD.replace("'", "''") in shown


def test_nothing_is_told_where_everything_moves(run_config):
    said: list[str] = []
    assert assemble.check(run_config(), tell=said.append) == []
    assert not any("never move" in line for line in said)


def test_the_setting_that_the_note_names_lets_the_column_through(locked_run, tmp_path):
    config = locked_run({"still_columns": "divide"})
    policy = assemble.build_policy(config, open_data(config.data, config.seed))
    assert policy.transforms.action_dim_mask.tolist() == [True, True, True, False]
    base = assemble.train(locked_run(training={"steps": 1})).last_checkpoint
    for statistics in ("checkpoint", "data"):
        divided = tuned(config, base, statistics=statistics, still_columns="divide")
        policy = assemble.build_policy(divided, open_data(config.data, config.seed))
        assert policy.transforms.config.still_columns == "divide"
    (note,) = [n for n in policy.transforms.still_notes if n.startswith("action")]
    assert "commanded within their noise" in note


def test_a_held_joint_that_the_new_data_moves_is_refused(
    locked_run, run_config, conventions, tmp_path
):
    base = assemble.train(locked_run(training={"steps": 1})).last_checkpoint
    write_arm(tmp_path / "demos.hdf5", conventions, locked=False)
    config = tuned(run_config(training={"steps": 1}), base)
    with pytest.raises(
        UserError, match=r"'y': found values from -\S+ to \S+ as the policy"
    ) as told:
        assemble.train(config)
    assert "expected 0.437, where the policy holds it" in str(told.value)
    assert [fault for fault in assemble.check(config) if "'y'" in fault] == [*told.value.faults]
    remedied = tuned(run_config(training={"steps": 1}), base, statistics="data")
    policy = load_policy(assemble.train(remedied).last_checkpoint)
    assert policy.transforms.still_notes == ()


def test_a_joint_that_is_locked_elsewhere_is_refused_and_noise_is_not(
    locked_run, conventions, tmp_path
):
    base = assemble.train(locked_run(training={"steps": 1})).last_checkpoint
    path = tmp_path / "other.hdf5"
    for constant, is_refused in ((CONSTANT + 2e-4, False), (CONSTANT + 0.3, True)):
        write_arm(path, conventions, locked=True, constant=constant)
        config = tuned(locked_run(data={"path": str(path)}), base)
        faults = assemble.check(config)
        assert any("where the policy holds it" in fault for fault in faults) == is_refused


def test_a_joint_that_only_the_checkpoint_moves_is_told(
    locked_run, run_config, conventions, tmp_path
):
    write_arm(tmp_path / "demos.hdf5", conventions, locked=False)
    base = assemble.train(run_config(training={"steps": 1})).last_checkpoint
    said: list[str] = []
    assert assemble.check(tuned(locked_run(), base), tell=said.append) == []
    (note,) = [line for line in said if "never move here" in line]
    assert "data.path: the action columns ['y'] never move here" in note
    assert "policy.statistics data holds them" in note


def test_a_state_that_the_policy_reads_as_zero_and_the_data_moves_is_told(
    locked_run, conventions, tmp_path
):
    base = assemble.train(locked_run(training={"steps": 1})).last_checkpoint
    path = tmp_path / "other.hdf5"
    write_arm(path, conventions, locked=True, reads_off=0.2)
    said: list[str] = []
    assert assemble.check(tuned(locked_run(data={"path": str(path)}), base), tell=said.append) == []
    assert any("the state columns ['y'] are 0 to the policy" in line for line in said)


@pytest.mark.parametrize("first", ["moving", "locked"])
def test_in_a_mixture_with_own_statistics_each_source_teaches_what_moves_in_it(
    first, run_config, conventions, tmp_path
):
    """What is locked in the policy's own source is held; what is locked in another, not taught."""
    for name in ("moving", "locked"):
        write_arm(tmp_path / f"{name}.hdf5", conventions, locked=name == "locked")
    names = sorted(("moving", "locked"), key=lambda name: name != first)
    mixture = {name: {"path": str(tmp_path / f"{name}.hdf5"), "weight": 1} for name in names}
    config = run_config(
        data={"path": [], "mixture": mixture, "mixture_statistics": "own"}, training={"steps": 1}
    )
    said: list[str] = []
    assert assemble.check(config, tell=said.append) == []
    assert any("data.mixture.moving: the action columns ['y'] move" in line for line in said) == (
        first == "locked"
    )
    episodes = in_one_convention(open_data(config.data, config.seed))
    transforms = assemble.build_policy(config, episodes).transforms
    windows, _ = training_and_validation(episodes, transforms, config.data, config.seed)
    taught = {}
    for name, part in zip(names, windows.parts, strict=True):
        drawn = {"epoch": torch.zeros(1), "noise": torch.zeros(1, 1, 4, 4), "time": torch.zeros(1)}
        samples = {**stacked([part[0]]), **drawn}
        taught[name] = to_device(samples, transforms, torch.device("cpu")).valid[0, 0, 0].tolist()
    assert taught["locked"] == [True, False, True, False]
    assert taught["moving"] == [True, first == "moving", True, False]
    assemble.train(config)


def test_with_shared_statistics_a_joint_locked_at_two_places_is_learned(
    run_config, conventions, tmp_path
):
    mixture = {}
    for name, constant in (("a", CONSTANT), ("b", 0.1)):
        write_arm(tmp_path / f"{name}.hdf5", conventions, locked=True, constant=constant)
        mixture[name] = {"path": str(tmp_path / f"{name}.hdf5"), "weight": 1}
    data = {"path": [], "mixture": mixture, "mixture_statistics": "shared"}
    config = run_config(data=data)
    policy = assemble.build_policy(config, open_data(config.data, config.seed))
    assert policy.transforms.still_notes == ()


def test_checkpoints_made_before_hold_too(locked_run, tmp_path):
    """Their transforms say 'center', under which a locked joint was driven."""
    config = locked_run({"still_columns": "center"})
    policy = assemble.build_policy(config, open_data(config.data, config.seed))
    save_policy(policy, tmp_path / "old")
    chunks = commands(load_policy(tmp_path / "old"), tmp_path / "locked.hdf5")
    assert np.abs(chunks[..., 1] - CONSTANT).max() < 5e-6


@pytest.mark.parametrize("rule", ["center", "divide"])
def test_a_locked_joint_that_identity_passes_on_is_told(rule, locked_run):
    kinds = {"action_normalization": "identity", "state_normalization": "identity"}
    config = locked_run({"still_columns": rule, **kinds})
    policy = assemble.build_policy(config, open_data(config.data, config.seed))
    action, state, way_out = policy.transforms.still_notes
    assert "never move: y (0.437)" in action
    assert way_out.startswith(f"still_columns is {rule}; hold treats")
    assert "commanded within the policy's error, for their normalization is identity" in action
    assert "told to the model as they are" in state


def test_a_run_that_began_before_a_setting_existed_goes_on(locked_run):
    base = assemble.train(locked_run(training={"steps": 1}))
    config = tuned(locked_run(training={"steps": 1}), base.last_checkpoint)
    last = assemble.train(config).last_checkpoint
    path = last / "training_state/state.json"
    state = json.loads(path.read_text())
    assert state["config"]["policy"].pop("still_columns") == "auto"
    path.write_text(json.dumps(state))
    longer = config.model_copy(update={"training": config.training.model_copy(update={"steps": 2})})
    assert assemble.train(longer, resume=True).last_checkpoint.name == "step_00000002"
