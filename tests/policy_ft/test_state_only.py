"""A policy without images: from data without a camera to an evaluated checkpoint."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from data_tools.conventions import CameraSpec
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter
from eval_envs.contract import check_env
from eval_envs.making import make_env
from policy_ft import assemble
from policy_ft.cli import app
from policy_ft.config.model import ModelConfig
from policy_ft.config.resize import ModelResize
from policy_ft.config.run import RunConfig
from policy_ft.data.opening import open_data
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.models.build import build_model
from policy_ft.models.solvers import SampleRequest
from tests.policy_ft import point_world

RECIPE = Path(__file__).parents[2] / "configs/state_only.yaml"
STATES_ALONE = r"Without images a policy of its own can be trained on states alone: policy.kind new"


@pytest.fixture
def point_run(tmp_path) -> Callable[..., RunConfig]:
    """The shipped recipe, smaller and on the demonstrations of the point; blocks change it."""
    data = point_world.write_d4rl(tmp_path / "point.hdf5")

    def make(model=None, policy=None, **changes) -> RunConfig:
        values = yaml.safe_load(RECIPE.read_text())
        sizes = {"state_dim": 4, "action_dim": 2, "action_horizon": 4}
        values["policy"] |= policy or {}
        values["policy"]["model"] |= {**sizes, **(model or {})}
        values |= {"output_dir": str(tmp_path / "run"), "validation": {"every": 4}}
        values["data"] = {"path": str(data), "num_workers": 0, "validation_fraction": 0.2}
        values["optimizer"] |= {"warmup_steps": 2}
        training = {"steps": 4, "batch_size": 8, "deterministic": True, "num_threads": 1}
        values["training"] = {**training, "precision": "fp32", "save_every": 2, "keep": 5}
        for block, value in changes.items():
            is_merged = isinstance(value, dict) and isinstance(values.get(block), dict)
            values[block] = {**values[block], **value} if is_merged else value
        return RunConfig.model_validate(values)

    return make


def shown_hash(path: Path) -> str:
    return CliRunner().invoke(app, ["show", "--hash", str(path)]).stdout


def test_data_without_a_camera_trains_and_the_checkpoint_is_the_policy(point_run):
    config = point_run()
    assert assemble.check(config) == []
    last = assemble.train(config).last_checkpoint
    policy = load_policy(last)
    seen = open_dataset(config.data.path[0])[0].observation(0, policy.conventions.camera_names)
    assert seen.images == {}
    (chunk,) = policy.act([seen], SampleRequest(torch.zeros(1, 4, 2)))
    assert chunk.shape == (4, 2)
    result = CliRunner().invoke(app, ["show", str(last)])
    assert result.exit_code == 0
    assert "vision." not in result.stdout
    assert "kind: none" in result.stdout


def test_a_resumed_run_without_images_ends_in_the_same_bits(point_run, tmp_path):
    whole = shown_hash(assemble.train(point_run()).last_checkpoint)
    config = point_run(output_dir=str(tmp_path / "killed"))
    assemble.train(config)
    shutil.rmtree(Path(config.output_dir) / "checkpoints/step_00000004")
    again = assemble.train(config, resume=True).last_checkpoint
    assert again.name == "step_00000004"
    assert shown_hash(again) == whole


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"activation_checkpointing": True, "noise_draws": 2}},
        {"training": {"accumulation_steps": 2}},
        {"model": {"expert": {"width": 32, "mlp_width": 64, "state_token": "prefix"}}},
        {"model": {"expert": {"width": 32, "mlp_width": 64, "time": "concat"}}},
    ],
    ids=["checkpointing", "accumulation", "state in the prefix", "as in pi0"],
)
def test_what_a_model_can_do_with_images_it_can_do_without(changes, point_run):
    assert assemble.train(point_run(**changes)).last_checkpoint.is_dir()


def test_what_a_frozen_decoder_computes_is_kept(point_run, tmp_path):
    base = assemble.train(point_run()).last_checkpoint
    config = point_run(output_dir=str(tmp_path / "tuned")).model_dump(mode="json")
    config["policy"] = {"kind": "pretrained", "path": str(base)}
    config["training"]["feature_cache_gb"] = 1.0
    with pytest.raises(UserError, match="without vision a frozen decoder"):
        assemble.train(RunConfig.model_validate(config))
    config["tuning"]["groups"] = [{"pattern": "language", "frozen": True}]
    plain = json.loads(json.dumps(config))
    plain["training"]["feature_cache_gb"] = 0.0
    plain["output_dir"] = str(tmp_path / "plain")
    kept, computed = (assemble.train(RunConfig.model_validate(e)).metrics for e in (config, plain))
    assert kept[-1]["loss"] == pytest.approx(computed[-1]["loss"], rel=1e-4)


def test_the_state_decides_what_a_policy_without_images_does(point_run):
    policy = assemble.build_policy(point_run(), open_dataset(point_run().data.path[0]))
    episode = open_dataset(point_run().data.path[0])[0]
    noise = torch.zeros(2, 4, 2)
    first, last = policy.act([episode.observation(s, ()) for s in (0, 20)], SampleRequest(noise))
    assert not np.array_equal(first, last)


def test_a_minari_file_without_images_trains(point_run, tmp_path):
    path = point_world.write_minari(tmp_path)
    dataset = open_dataset(path)
    assert (dataset.conventions.cameras, dataset.inspected.undeclared) == ((), ())
    config = point_run(data={"path": str(path)})
    assert assemble.check(config) == []
    assert assemble.train(config).last_checkpoint.is_dir()


def test_the_point_keeps_the_contract_of_environments():
    check_env(make_env(point_world.ENV, {}))


def test_a_policy_without_images_is_rolled_out_in_training_and_by_eval(point_run, tmp_path):
    rollouts = {"env": point_world.ENV, "episodes": 4, "replan_steps": 2, "every": 2}
    config = point_run(evaluation=rollouts)
    assert assemble.check(config) == []
    result = assemble.train(config)
    assert [row for row in result.metrics if row["kind"] == "rollout"]
    words = ["eval", str(result.best_checkpoint), "--env", point_world.ENV, "-n", "3"]
    done = CliRunner().invoke(app, [*words, "--json", str(tmp_path / "e.json")])
    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "e.json").read_text())["evaluation"]["episodes"]) == 3
    filmed = CliRunner().invoke(app, [*words, "--video", str(tmp_path / "films")])
    assert filmed.exit_code == 2
    assert "found no camera; expected one to film. Leave --video out" in filmed.output


@pytest.mark.slow
def test_a_policy_without_images_learns_to_reach_the_goal(point_run, tmp_path):
    point_world.write_d4rl(tmp_path / "point.hdf5", num_episodes=60)
    config = point_run(
        training={"steps": 400, "batch_size": 64, "save_every": 400},
        validation={"every": 400},
        optimizer={"warmup_steps": 20, "decay_steps": 400},
        evaluation={"env": point_world.ENV, "episodes": 20, "replan_steps": 2, "every": 400},
    )
    rollouts = [row for row in assemble.train(config).metrics if row["kind"] == "rollout"]
    assert rollouts[-1]["success_rate"] >= 0.8


def test_images_that_a_policy_does_not_see_are_not_decoded(run_config, point_run, monkeypatch):
    """Demonstrations with cameras, for a baseline: frames cost nothing."""
    config = point_run(
        data={"path": run_config().data.path[0]}, model={"state_dim": 4, "action_dim": 3}
    )
    assert assemble.check(config) == []
    episodes = open_data(config.data, config.seed)
    policy = assemble.build_policy(config, episodes)
    monkeypatch.setattr("data_tools.formats.reading.hdf5_store.decode_frame", None)
    assemble.build_trainer(config, policy, episodes).run()


@pytest.mark.parametrize("first", ["seen", "unseen"])
def test_a_mixture_of_data_with_and_without_a_camera_trains_without_images(
    first, point_run, tmp_path
):
    camera = CameraSpec(name="top", height=16, width=16)
    seen = point_world.CONVENTIONS.model_copy(update={"cameras": (camera,)})
    with EpisodeWriter(tmp_path / "seen.hdf5", seen) as writer:
        for states, actions in point_world.demonstrations(4):
            writer.add(
                images={"top": np.zeros((len(states), 16, 16, 3), np.uint8)},
                state=states,
                actions=actions,
                instruction=point_world.SENTENCE,
                success=True,
                attributes={},
            )
    paths = {"seen": tmp_path / "seen.hdf5", "unseen": Path(point_run().data.path[0])}
    names = sorted(paths, key=lambda name: name != first)
    mixture = {name: {"path": str(paths[name]), "weight": 1} for name in names}
    config = point_run(data={"path": [], "mixture": mixture, "mixture_statistics": "shared"})
    assert assemble.check(config) == []
    assert assemble.train(config).last_checkpoint.is_dir()


def refused(config: RunConfig) -> list[str]:
    with pytest.raises(UserError) as told:
        assemble.train(config)
    return [*told.value.faults]


def test_cameras_that_the_data_has_not_are_refused_at_once_with_the_way_out(point_run, run_config):
    config = run_config(data=point_run().data.model_dump(mode="json"))
    (fault,) = refused(config)
    assert "found no camera at all; expected the cameras ['front', 'wrist']" in fault
    assert "transforms.cameras [] and model.vision {kind: none}, as in configs/state_only" in fault
    assert [each for each in assemble.check(config) if "camera" in each] == [fault]


@pytest.mark.parametrize("statistics", ["checkpoint", "data"])
def test_a_checkpoint_that_sees_images_refuses_data_without(statistics, point_run, run_config):
    base = assemble.train(run_config(training={"steps": 1})).last_checkpoint
    values = point_run(output_dir="elsewhere").model_dump(mode="json")
    values["policy"] = {"kind": "pretrained", "path": str(base), "statistics": statistics}
    config = RunConfig.model_validate(values)
    (fault,) = refused(config)
    assert f"data.path: found no camera at all; expected images, for {base} sees" in fault
    assert [each for each in assemble.check(config) if "camera" in each] == [fault]


@pytest.mark.parametrize(
    ("model", "transforms", "words"),
    [
        ({}, {"cameras": ["front"]}, r"found \['front'\] with model.vision.kind 'none'; expected"),
        ({}, {"cameras": [None]}, r"Name one for a slot, or write \[\] for a policy without"),
        ({}, {"resize": "pil_bilinear_center_pad"}, "resize: found .* Leave it out: there are"),
        ({"num_cameras": 2}, {}, "num_cameras: found .* expected none of them. Leave them out"),
        ({"image_height": 32}, {}, "image_height: found .* with vision.kind 'none'"),
        ({"connector": {"pixel_shuffle": 2}}, {}, "connector: found .* with vision.kind 'none'"),
        (
            {"expert": {"width": 32, "mlp_width": 64, "state_token": "none"}},
            {},
            "such a policy would see nothing but its instruction",
        ),
    ],
)
def test_settings_that_contradict_a_policy_without_images_are_refused(
    model, transforms, words, point_run
):
    policy = {"transforms": {"cameras": [], **transforms}}
    with pytest.raises(ValidationError, match=words):
        point_run(model=model, policy=policy)


def test_a_tower_needs_cameras_and_sizes(run_config, small_model):
    with pytest.raises(ValidationError, match=r"Set model.vision to \{kind: none\}, or change"):
        run_config(policy={"transforms": {"cameras": []}})
    with pytest.raises(ValidationError, match=r"num_cameras: found .* expected at least 1. Set"):
        ModelConfig.model_validate(small_model(num_cameras=0))


def test_a_checkpoint_without_images_gets_no_camera_slots(point_run, tmp_path):
    base = assemble.train(point_run()).last_checkpoint
    with pytest.raises(UserError, match=r"num_cameras: found 2; expected none.* Leave it out"):
        load_policy(base, resize=ModelResize(num_cameras=2))


def test_a_model_without_images_has_no_part_that_would_see_them(point_run):
    model = build_model(point_run().policy.model)
    assert {leaf.split(".")[0] for leaf in model.groups()} == {"language", "heads", "expert"}
    with pytest.raises(UserError, match=r"tuning\.groups"):
        assemble.train(point_run(tuning={"groups": [{"pattern": "vision", "frozen": True}]}))
