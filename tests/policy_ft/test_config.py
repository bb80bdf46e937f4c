"""The laws of the settings: complete, frozen, strict, and every value's origin known."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from policy_ft.config.config_file import (
    dump_config,
    load_config,
    read_config,
    resolved_with_origin,
    validate_config,
)
from policy_ft.config.run import RunConfig
from policy_ft.config.starting_policy import NewPolicy, TrainedTokenizer
from policy_ft.config.tuning import EmaConfig
from policy_ft.errors import UserError

RUN = """\
output_dir: runs/x
policy:
  kind: new
  tokenizer: {train: 300}
  transforms: {cameras: [front, wrist]}
  model:
    image_height: 64
    image_width: 64
    num_cameras: 2
    max_prompt_tokens: 16
    state_dim: 4
    action_dim: 4
    action_horizon: 8
    vision: {kind: timm, tower: resnetv2_18, feature_level: 3}
    language: {family: llama, vocab_size: 300, width: 32, depth: 2, mlp_width: 64,
               num_heads: 4, num_kv_heads: 4, head_dim: 8}
    expert: {width: 32, mlp_width: 64}
data: {path: demos.hdf5}
tuning:
  groups:
    - {pattern: vision, frozen: true}
    - {pattern: "*.bias", lr_scale: 0.5}
  ema: off
optimizer: {lr: 1e-4, warmup_steps: 10, decay_steps: 100, final_lr: 0}
training: {steps: 100, batch_size: 8}
"""


def line_of(text: str) -> int:
    """The line of the example that holds this text, counted from 1."""
    return next(n for n, line in enumerate(RUN.splitlines(), start=1) if text in line)


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return path


def test_a_file_becomes_a_run(run_file):
    config = load_config(run_file)
    assert isinstance(config.policy, NewPolicy)
    assert config.policy.model.action_horizon == 8
    assert config.policy.tokenizer == TrainedTokenizer(train=300)
    assert config.data.path == ("demos.hdf5",)
    assert config.tuning.groups[0].frozen
    assert config.tuning.groups[1].weight_decay == "optimizer"
    assert config.evaluation == "off"


def test_the_word_off_is_a_word_and_not_a_boolean(run_file):
    assert load_config(run_file).tuning.ema == "off"


def test_a_number_like_1e_4_is_a_number(run_file):
    assert load_config(run_file).optimizer.lr == 1e-4
    assert load_config(run_file, ["optimizer.lr=5e-5"]).optimizer.lr == 5e-5


def test_overrides_win_over_the_file_and_walk_into_lists(run_file):
    config = load_config(
        run_file,
        [
            "training.steps=7",
            "tuning.groups.1.lr_scale=0.25",
            "tuning.ema={decay: 0.9}",
            "data.path=[a.hdf5, b.hdf5]",
            "validation.every=3",
        ],
    )
    assert config.training.steps == 7
    assert config.tuning.groups[1].lr_scale == 0.25
    assert config.tuning.ema == EmaConfig(decay=0.9)
    assert config.data.path == ("a.hdf5", "b.hdf5")
    assert config.validation.every == 3


def test_a_dumped_run_loads_to_an_equal_one(run_file, tmp_path):
    config = load_config(run_file, ["evaluation={replan_steps: 4, every: 50}"])
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_every_value_has_its_origin(run_file):
    overrides = ["training.steps=7", "tuning.groups.1.lr_scale=0.25"]
    source = read_config(run_file, overrides)
    rows = {key: (v, o) for key, v, o in resolved_with_origin(validate_config(source), source)}
    assert rows["training.steps"] == (7, "--set")
    assert rows["training.batch_size"] == (8, f"{run_file}:{line_of('batch_size')}")
    assert rows["training.keep"] == (2, "default")
    assert rows["tuning.groups.0.frozen"] == (True, f"{run_file}:{line_of('frozen')}")
    assert rows["tuning.groups.1.lr_scale"] == (0.25, "--set")
    assert rows["tuning.groups.1.frozen"] == (False, "default")
    assert rows["data.path"] == (["demos.hdf5"], f"{run_file}:{line_of('demos')}")
    assert rows["optimizer.betas"] == ([0.9, 0.95], "default")
    assert rows["validation.every"][1] == "default"


def test_all_faults_come_at_once_with_their_lines(run_file):
    run_file.write_text(
        RUN.replace("lr: 1e-4", "learning_rate: 1e-4")
        .replace("steps: 100, batch", "steps: true, batch")
        .replace("feature_level", "feature_lvl")
    )
    with pytest.raises(UserError) as caught:
        load_config(run_file, ["data.num_workers=-1"])
    assert len(caught.value.faults) == 5
    places = [fault.split(": found")[0] for fault in caught.value.faults]
    assert f"{run_file}:{line_of('feature_level')}, policy.model.vision.feature_lvl" in places
    assert f"{run_file}:{line_of('lr: 1e-4')}, optimizer.learning_rate" in places
    assert f"{run_file}:{line_of('batch_size')}, training.steps" in places
    assert "--set data.num_workers" in places


def test_a_block_that_only_an_override_makes_is_told_as_that_override(run_file):
    with pytest.raises(UserError) as caught:
        load_config(run_file, ["trainer.steps=5", "training.stepz=5"])
    places = {fault.split(": found")[0] for fault in caught.value.faults}
    assert places == {"--set trainer.steps", "--set training.stepz"}


def test_settings_cannot_be_assigned(run_file):
    with pytest.raises(ValidationError, match="frozen"):
        load_config(run_file).training.steps = 5  # type: ignore[misc]


@pytest.mark.parametrize("update", [{"stepz": 5}, {"steps": "many"}, {"steps": True}])
def test_a_copy_is_validated_like_any_other(update, run_file):
    training = load_config(run_file).training
    with pytest.raises(ValidationError):
        training.model_copy(update=update)
    assert training.model_copy(update={"steps": 5}).steps == 5


def test_a_validated_copy_keeps_nested_blocks(run_file):
    config = load_config(run_file)
    copy = config.model_copy(update={"output_dir": "elsewhere"})
    assert copy.policy == config.policy
    assert copy.tuning == config.tuning


def models_below(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        for part in classes_in(field.annotation):
            found |= models_below(part)
    return found


def classes_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [c for part in getattr(annotation, "__args__", ()) for c in classes_in(part)]


def test_every_setting_has_a_sentence_and_every_block_refuses_the_unknown():
    blocks = models_below(RunConfig)
    assert len(blocks) >= 17
    for block in blocks:
        assert block.model_config["extra"] == "forbid", block
        assert block.model_config["frozen"], block
        for name, field in block.model_fields.items():
            if name != "kind":
                assert field.description, f"{block.__name__}.{name}"
                assert field.description.rstrip().endswith((".", ")")), f"{block.__name__}.{name}"


def test_the_example_of_these_tests_is_plain_yaml():
    assert yaml.safe_load(RUN)["training"]["steps"] == 100
