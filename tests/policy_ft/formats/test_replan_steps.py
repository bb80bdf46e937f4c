"""How many actions are executed at a time is not passed on to a robot of another rate."""

from dataclasses import replace

import numpy as np
import pytest

from data_tools.conventions import Conventions
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter
from policy_ft import assemble
from policy_ft.checkpoints.native import save_policy
from policy_ft.config.run import RunConfig
from policy_ft.errors import UserError
from policy_ft.execution.chunks import recorded_replan_steps
from policy_ft.formats.load import load_policy


@pytest.fixture
def run_from(run_config, policy, record, tmp_path):
    """run_from(hz, steps, **block): a run on a robot of that rate, from a base trained at 10 Hz."""

    def make(hz: float, steps: int = 2, **block: object) -> RunConfig:
        values = run_config(training={"steps": 1}).model_dump(mode="json")
        data = tmp_path / "other.hdf5"
        at_rate(open_dataset(tmp_path / "demos.hdf5"), data, hz)
        based = replace(policy, provenance={"replan_steps": steps})
        save_policy(based, tmp_path / "base")
        block = {"path": str(tmp_path / "base"), "statistics": "data", **block}
        return RunConfig.model_validate(
            {
                **values,
                "policy": {"kind": "pretrained", **block},
                "data": {**values["data"], "path": [str(data)]},
            }
        )

    return make


def at_rate(episodes, path, hz: float) -> None:
    declared = Conventions.model_validate({**dict(episodes.conventions), "control_hz": hz})
    with EpisodeWriter(path, declared) as writer:
        for index in range(len(episodes)):
            each = episodes[index]
            steps = range(each.num_steps)
            writer.add(
                images={
                    n: np.stack([each.image(n, k) for k in steps]) for n in declared.camera_names
                },
                state=each.state(),
                actions=each.actions(),
                instruction="open the drawer",
                success=True,
                attributes={},
            )


def told_by(config: RunConfig) -> str:
    told: list[str] = []
    assert assemble.check(config, tell=told.append) == []
    return "\n".join(told)


def test_a_robot_of_the_same_rate_takes_over_the_number(run_from):
    config = run_from(10)
    assert "replan_steps" not in told_by(config)
    trained = load_policy(assemble.train(config).last_checkpoint)
    assert recorded_replan_steps(trained.provenance) == 2


def test_a_robot_of_another_rate_does_not_and_is_told_what_to_write(run_from):
    config = run_from(20)
    told = told_by(config)
    assert "replan_steps 2 of the checkpoint is not taken over: it is for 10 Hz" in told
    assert "Set evaluation.replan_steps, and --replan-steps of `policy-ft eval`" in told
    assert "e.g. 4: 0.2 s, where it was 0.2 s" in told
    trained = load_policy(assemble.train(config).last_checkpoint)
    assert trained.conventions.control_hz == 20
    with pytest.raises(UserError, match="Give --replan-steps"):
        recorded_replan_steps(trained.provenance)


def test_shorter_chunks_do_not_take_over_more_actions_than_they_have(run_from):
    told = told_by(run_from(10, steps=4, resize={"action_horizon": 3}))
    assert "replan_steps 4 of the checkpoint is not taken over" in told
    assert "here are 10 Hz and chunks of 3 actions" in told


def test_a_published_number_is_of_a_rate_that_nobody_says(
    lerobot_directory, tmp_path, fitted, episodes
):
    directory = lerobot_directory(tmp_path / "published", "pi0")
    assert load_policy(directory).provenance["replan_steps"] == 20

    def fit(settings, shape, tokenizer_json):
        return fitted(shape, resize="pil_bilinear_center_pad")

    policy = load_policy(directory, fit=fit)
    assert "replan_steps" not in policy.provenance
    (note,) = (each for each in policy.load_report.notes if "replan_steps" in each)
    assert "it is for a control rate that nobody says" in note
    assert "here are 10 Hz and chunks of 50 actions" in note
