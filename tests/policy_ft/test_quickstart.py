"""The quickstart, whole, with a tiny untrained base in place of the shipped one."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from data_tools.formats.reader import open_dataset
from policy_ft import assemble, quickstart
from policy_ft.checkpoints.native import save_policy, weights_hash
from policy_ft.config.config_file import load_config
from policy_ft.config.model import DecoderConfig, ExpertConfig, ModelConfig, TimmVisionConfig
from policy_ft.config.starting_policy import NewPolicy, PretrainedPolicy, TrainedTokenizer
from policy_ft.config.transforms import TransformsConfig
from policy_ft.data import opening
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.quickstart import QuickstartSettings, quickstart_config, run_quickstart

MODEL = ModelConfig(
    image_height=64,
    image_width=64,
    num_cameras=2,
    max_prompt_tokens=60,
    state_dim=4,
    action_dim=4,
    action_horizon=4,
    num_sampling_steps=2,
    vision=TimmVisionConfig(
        tower="resnetv2_18",
        tower_args={
            "norm_layer": "groupnorm1",
            "channels": [32, 32, 32, 32],
            "stem_chs": 32,
            "layers": [1, 1, 1, 1],
        },
        feature_level=3,
    ),
    language=DecoderConfig(
        family="llama",
        vocab_size=300,
        width=32,
        depth=2,
        mlp_width=48,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
    ),
    expert=ExpertConfig(width=24, mlp_width=40),
)


@pytest.fixture(scope="module", autouse=True)
def tiny_base(tmp_path_factory: pytest.TempPathFactory):
    """A tiny base checkpoint; the packaged config shortened to its size."""
    folder = tmp_path_factory.mktemp("assets")
    config = yaml.safe_load(quickstart.CONFIG.read_text())
    config["training"] |= {"batch_size": 4, "num_threads": 1, "noise_draws": 1}
    config["validation"] |= {"num_windows": 2, "num_noise": 1}
    (folder / "quickstart.yaml").write_text(yaml.safe_dump(config))
    source = load_config(
        folder / "quickstart.yaml", [f"data.path={folder}/old.hdf5", "data.collect.num_episodes=2"]
    )
    untrained = NewPolicy(
        kind="new",
        model=MODEL,
        transforms=TransformsConfig(cameras=("front", "wrist")),
        tokenizer=TrainedTokenizer(train=300),
    )
    source = source.model_copy(update={"policy": untrained})
    policy = assemble.build_policy(source, opening.open_or_collect(source.data))
    save_policy(replace(policy, provenance={"replan_steps": 3}), folder / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "BASE", folder / "base")
        patch.setattr(quickstart, "CONFIG", folder / "quickstart.yaml")
        yield folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("quickstart")
    (output / quickstart.MARKER).write_text("of an earlier quickstart")
    (output / "mine.txt").write_text("kept")
    (output / "report.html").write_text("of an earlier quickstart")
    (output / "run").mkdir()
    (output / "run" / "config.yaml").write_text("of an earlier quickstart")
    settings = QuickstartSettings(output=output, seed=2, demos=3, steps=2, episodes=4)
    return output, run_quickstart(settings, Console(quiet=True))


def test_summary_has_exactly_the_promised_keys(finished: tuple[Path, dict]) -> None:
    output, summary = finished
    assert json.loads((output / "summary.json").read_text()) == summary
    assert set(summary) == {"base", "finetuned", "old_tasks_before", "old_tasks_after", "wall_s"}
    for name in set(summary) - {"wall_s"}:
        assert list(summary[name]) == ["success_rate", "n", "low", "high"]
        assert summary[name]["n"] == 4
    assert list(summary["wall_s"]) == ["collect", "train", "evaluate", "total"]
    phases = sum(summary["wall_s"][name] for name in ("collect", "train", "evaluate"))
    assert 0 < phases <= summary["wall_s"]["total"] + 0.2


def test_both_policies_met_the_same_held_out_episodes(finished: tuple[Path, dict]) -> None:
    output, summary = finished
    results = json.loads((output / "evaluations.json").read_text())
    seeds = {
        name: [episode["seed"] for episode in each["evaluation"]["episodes"]]
        for name, each in results.items()
    }
    assert set(map(tuple, seeds.values())) == {tuple(range(1_002_000, 1_002_004))}
    demonstrations = open_dataset(output / "demos.hdf5")
    used = {demonstrations[index].attributes["seed"] for index in range(len(demonstrations))}
    assert len(used) == 3
    assert used.isdisjoint(seeds["base"])
    for name, task in (("base", "place"), ("old_tasks_after", "reach+push+pick")):
        (found,) = {each["env_args"]["task"] for each in results[name]["evaluation"]["episodes"]}
        assert found == task
    assert results["base"]["success_rate"] == summary["base"]["success_rate"]


def test_checkpoint_is_the_finetuned_policy_and_says_how_to_execute_it(
    finished: tuple[Path, dict], tiny_base: Path
) -> None:
    output, _ = finished
    tuned, base = load_policy(output / "checkpoint"), load_policy(tiny_base / "base")
    assert tuned.provenance["replan_steps"] == 3
    assert weights_hash(tuned.model) != weights_hash(base.model)
    assert weights_hash(tuned.model) == weights_hash(
        load_policy(output / "run/checkpoints/step_00000002").model
    )


def test_report_tells_the_result_and_its_provenance(finished: tuple[Path, dict]) -> None:
    output, _ = finished
    page = (output / "report.html").read_text()
    for text in (
        "Fine-tuning on &#39;place&#39; with 3 demonstrations",
        "held-out episodes",
        "policy-ft quickstart --from base --seed 2 --demos 3 --episodes 4 --steps 2",
        weights_hash(load_policy(output / "checkpoint").model),
        "training:\n  steps: 2",
        "reach, before",
    ):
        assert text in page
    assert len(re.findall("data:video/mp4", page)) >= 2


def test_an_earlier_quickstart_is_replaced_and_nothing_else(finished: tuple[Path, dict]) -> None:
    output, _ = finished
    assert (output / "mine.txt").read_text() == "kept"
    assert sorted(path.name for path in output.iterdir()) == [
        quickstart.MARKER,
        "checkpoint",
        "demos.hdf5",
        "evaluations.json",
        "mine.txt",
        "report.html",
        "run",
        "summary.json",
    ]


def test_a_directory_of_another_origin_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "weights.bin").write_text("a week of training")
    (tmp_path / "demos.hdf5").write_text("recorded by hand")
    settings = QuickstartSettings(output=tmp_path)
    with pytest.raises(UserError, match="Choose another --output"):
        run_quickstart(settings, Console(quiet=True))
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["demos.hdf5", "run", "run/weights.bin"]


def test_settings_are_refused_before_anything_is_removed(tmp_path: Path) -> None:
    (tmp_path / quickstart.MARKER).write_text("of an earlier quickstart")
    (tmp_path / "report.html").write_text("still good")
    for refused, words in (
        ({"episodes": 0}, "held-out episodes"),
        ({"steps": 0}, "training.steps"),
        ({"demos": 0}, "data.collect.num_episodes"),
    ):
        with pytest.raises(UserError, match=words):
            run_quickstart(QuickstartSettings(tmp_path, **refused), Console(quiet=True))
        assert (tmp_path / "report.html").read_text() == "still good"


def test_threads_are_given_back_to_the_caller_even_after_a_refusal(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        with pytest.raises(UserError):
            run_quickstart(QuickstartSettings(tmp_path, episodes=0), Console(quiet=True))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_random_start_has_the_same_model_data_and_budget(tmp_path: Path, tiny_base: Path) -> None:
    tuned = quickstart_config(QuickstartSettings(output=tmp_path, seed=1))
    random = quickstart_config(QuickstartSettings(output=tmp_path, seed=1, start="random"))
    assert isinstance(tuned.policy, PretrainedPolicy)
    assert isinstance(random.policy, NewPolicy)
    assert random.policy.model == MODEL
    assert random.tuning.groups == ()  # lower rates protect pretrained weights only
    assert random.tuning.ema == tuned.tuning.ema
    assert random.model_copy(update={"policy": tuned.policy, "tuning": tuned.tuning}) == tuned


def test_fewer_steps_shorten_the_schedule_too(tmp_path: Path) -> None:
    config = quickstart_config(QuickstartSettings(output=tmp_path, steps=40))
    assert (config.training.steps, config.optimizer.decay_steps) == (40, 40)
    assert config.optimizer.warmup_steps == 2
    packaged = quickstart_config(QuickstartSettings(output=tmp_path))
    assert packaged.optimizer.decay_steps == packaged.training.steps
