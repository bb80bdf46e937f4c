"""A whole run: what it leaves on disk, what moves, and going on where it stopped."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data_tools.formats.reader import open_dataset
from policy_ft import assemble
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.config_file import load_config
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.training.hooks import Hook, RunView
from policy_ft.training.metrics import read_metrics
from tests.policy_ft.losses import dormant

MEASURED = ("samples_per_s", "data_s", "encode_s", "step_s")


def computed(directory: str) -> list[dict[str, object]]:
    """The metrics of a run without its timings."""
    rows = read_metrics(Path(directory))
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def state_hashes(checkpoint: Path) -> dict[str, str]:
    files = [
        checkpoint / "model.safetensors",
        *(checkpoint / "training_state").glob("*.safetensors"),
    ]
    return {file.name: weights_hash(load_file(file)) for file in files}


class Tally(Hook):
    """A hook that remembers the steps it saw, and stops the run at one of them."""

    name = "tally"

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps: list[int] = []
        self._stop_after = stop_after

    def begin(self, run: RunView) -> None:
        self.run = run

    def after_step(self, train_step: int) -> dict[str, float]:
        self.steps.append(train_step)
        if train_step == self._stop_after:
            raise KeyboardInterrupt
        return {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"steps": torch.tensor(self.steps)}

    def load_state_dict(self, state) -> None:
        self.steps = state["steps"].tolist()


def test_a_run_leaves_policies_metrics_and_settings(run_config):
    config = run_config(training={"keep": 1})
    result = assemble.train(config)
    assert result.last_checkpoint.name == "step_00000006"
    names = {path.name for path in (result.directory / "checkpoints").iterdir()}
    assert names == {"last", "best", result.last_checkpoint.name, result.best_checkpoint.name}
    assert (result.directory / "checkpoints" / "last").resolve() == result.last_checkpoint.resolve()
    assert load_policy(result.best_checkpoint).provenance["weights"] == "average, decay 0.9"
    assert load_config(result.directory / "config.yaml") == config
    left = sorted(path.name for path in result.directory.iterdir())
    assert left == [".lock", "checkpoints", "config.yaml", "metrics.jsonl"]
    kinds = [(row["train_step"], row["kind"]) for row in result.metrics]
    assert kinds == [
        (2, "train"),
        (3, "validation"),
        (4, "train"),
        (6, "train"),
        (6, "validation"),
    ]
    assert {"loss", "grad_norm", "lr", *MEASURED} <= result.metrics[0].keys()


def test_the_trained_policy_is_the_last_checkpoint(run_config):
    config = run_config()
    episodes = open_dataset(list(config.data.path))
    policy = assemble.build_policy(config, episodes)
    start = weights_hash(policy.model)
    result = assemble.train(config, policy, episodes)
    assert weights_hash(policy.model) == weights_hash(load_policy(result.last_checkpoint).model)
    assert weights_hash(policy.model) != start
    assert not policy.model.training


def test_the_same_settings_give_the_same_bits(run_config, tmp_path):
    hashes = [
        state_hashes(assemble.train(run_config(output_dir=str(tmp_path / name))).last_checkpoint)
        for name in ("a", "b")
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("stop_after", [1, 4, 5])
def test_an_interrupted_run_goes_on_with_the_same_bits(run_config, tmp_path, stop_after):
    """Saved at step 3: stopping after 1 starts anew, after 4 and 5 goes on from 3."""
    whole = run_config(output_dir=str(tmp_path / "whole"))
    unbroken = assemble.train(whole, methods=[Tally()])
    config = run_config()
    with pytest.raises(KeyboardInterrupt):
        assemble.train(config, methods=[Tally(stop_after)])
    tally = Tally()
    resumed = assemble.train(config, resume=True, methods=[tally])
    assert state_hashes(resumed.last_checkpoint) == state_hashes(unbroken.last_checkpoint)
    assert computed(config.output_dir) == computed(whole.output_dir)
    assert tally.steps == [1, 2, 3, 4, 5, 6]


def test_resuming_a_finished_run_does_nothing_and_says_so(run_config, capsys):
    config = run_config()
    first = assemble.train(config)
    before = {path: path.stat().st_mtime_ns for path in first.last_checkpoint.rglob("*")}
    second = assemble.train(config, resume=True)
    assert "all 6 steps are done; nothing to do" in capsys.readouterr().out
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in first.last_checkpoint.rglob("*")} == before


def test_a_run_can_be_made_longer(run_config):
    assemble.train(run_config(training={"steps": 3}))
    result = assemble.train(run_config(), resume=True)
    assert result.last_checkpoint.name == "step_00000006"


def test_an_output_directory_in_use_is_refused(run_config):
    config = run_config(training={"steps": 1})
    assemble.train(config)
    with pytest.raises(UserError, match=r"Add --resume.*or choose another output_dir"):
        assemble.train(config)


def test_frozen_parameters_do_not_move_and_trained_ones_do(run_config):
    rules = [{"pattern": "vision", "frozen": True}, {"pattern": "*.bias", "frozen": True}]
    config = run_config(tuning={"groups": rules, "ema": "off"})
    episodes = open_dataset(list(config.data.path))
    policy = assemble.build_policy(config, episodes)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    assemble.train(config, policy, episodes)
    vision = {
        n for leaf, names in policy.groups().items() if leaf.startswith("vision") for n in names
    }
    still = vision | {n for n in before if n.endswith(".bias")} | dormant(policy.model)
    moved = {n for n, p in policy.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == before.keys() - still


def test_a_smaller_rate_moves_a_group_less(run_config):
    """AdamW's first step moves a weight by about its learning rate, whatever the gradient."""
    rules = [{"pattern": "projector", "lr_scale": 0.01}]
    config = run_config(
        tuning={"groups": rules, "ema": "off"},
        training={"steps": 1},
        optimizer={"warmup_steps": 0, "lr": 1e-3, "final_lr": 1e-3},
    )
    episodes = open_dataset(list(config.data.path))
    policy = assemble.build_policy(config, episodes)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    assemble.train(config, policy, episodes)
    moved = {n: (p - before[n]).abs().max().item() for n, p in policy.model.state_dict().items()}
    assert moved["backbone.projector.weight"] == pytest.approx(1e-5, rel=0.05)
    assert moved["expert.action_out_proj.weight"] == pytest.approx(1e-3, rel=0.05)


def test_checkpoints_hold_the_average_and_beside_it_the_weights(run_config):
    last = assemble.train(run_config()).last_checkpoint
    average = load_file(last / "model.safetensors")
    own = load_file(last / "training_state" / "weights.safetensors")
    assert own.keys() < average.keys(), "dormant parameters never move and are stored once"
    assert not torch.equal(average["backbone.projector.weight"], own["backbone.projector.weight"])


def test_without_averaging_weights_are_written_once_and_a_resumed_run_has_the_same_bits(
    run_config, tmp_path
):
    def config_of(name: str, steps: int):
        training = {"steps": steps}
        return run_config(tuning={"ema": "off"}, training=training, output_dir=str(tmp_path / name))

    whole = assemble.train(config_of("whole", 6)).last_checkpoint
    assemble.train(config_of("parts", 3))
    parts = assemble.train(config_of("parts", 6), resume=True).last_checkpoint
    assert not (whole / "training_state" / "weights.safetensors").exists()
    assert state_hashes(parts) == state_hashes(whole)


def test_the_best_checkpoint_has_the_lowest_validation_loss(run_config):
    config = run_config(training={"steps": 8, "keep": 1}, validation={"every": 1})
    result = assemble.train(config)
    losses = {r["train_step"]: r["loss"] for r in result.metrics if r["kind"] == "validation"}
    best = min(losses, key=losses.__getitem__)
    assert result.best_checkpoint.name == f"step_{best:08d}"
    assert load_policy(result.best_checkpoint).provenance["train_step"] == best


def test_metrics_follow_the_schedule_and_the_step_counts_optimizer_steps(run_config):
    """lr 1e-3 and warmup 2: 1/3, 2/3, 1 of it; two micro-batches are one step all the same."""
    training = {"log_every": 1, "accumulation_steps": 2, "steps": 3}
    result = assemble.train(run_config(training=training))
    rates = [row["lr"] for row in result.metrics if row["kind"] == "train"]
    assert rates == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])


def test_accumulation_changes_the_run_only_by_rounding(run_config, tmp_path):
    losses = []
    for accumulation_steps in (1, 2):
        config = run_config(
            output_dir=str(tmp_path / str(accumulation_steps)),
            training={"accumulation_steps": accumulation_steps, "log_every": 1, "noise_draws": 2},
        )
        metrics = assemble.train(config).metrics
        losses.append([row["loss"] for row in metrics if row["kind"] == "train"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_run_leaves_torch_as_it_was(run_config):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assemble.train(run_config(training={"steps": 1, "num_threads": 1}))
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.rand(1), expected)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("changes", "key", "remedy"),
    [
        ({"seed": 4}, "seed", "found 4; expected 3"),
        ({"optimizer": {"lr": 2e-3}}, "optimizer.lr", "found 0.002; expected 0.001"),
        ({"tuning": {"ema": "off"}}, "tuning.ema", "Set it back"),
        ({"training": {"noise_draws": 2}}, "training.noise_draws", "found 2; expected 1"),
        (
            {"tuning": {"groups": [{"pattern": "vision", "frozen": True}]}},
            "tuning.groups",
            "start a new run in another output_dir",
        ),
    ],
)
def test_resuming_with_settings_that_change_the_result_is_refused(run_config, changes, key, remedy):
    assemble.train(run_config(training={"steps": 1}))
    with pytest.raises(UserError, match=remedy) as caught:
        assemble.train(run_config(**changes), resume=True)
    assert f"{key}" in str(caught.value)


def test_all_changed_settings_are_listed_at_once(run_config):
    assemble.train(run_config(training={"steps": 1}))
    with pytest.raises(UserError) as caught:
        assemble.train(run_config(seed=4, optimizer={"lr": 2e-3}), resume=True)
    assert len([fault for fault in caught.value.faults if "seed" in fault or "lr" in fault]) >= 2


def test_settings_that_do_not_change_the_result_may_change(run_config):
    assemble.train(run_config(training={"steps": 1}))
    training = {"log_every": 5, "save_every": 2, "keep": 5, "accumulation_steps": 2, "steps": 2}
    config = run_config(training=training, data={"prefetch": 2})
    assert assemble.train(config, resume=True).last_checkpoint.name == "step_00000002"


def test_resuming_with_other_data_is_refused(run_config, record):
    config = run_config(training={"steps": 1})
    assemble.train(config)
    Path(config.data.path[0]).unlink()
    record(seed=1)
    with pytest.raises(UserError, match=r"data: found fingerprint.*Set it back"):
        assemble.train(config, resume=True)


def test_a_checkpoint_of_another_version_is_refused(run_config):
    last = assemble.train(run_config(training={"steps": 1})).last_checkpoint
    path = last / "training_state" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": "policy_ft/9"}))
    with pytest.raises(UserError, match="Resume with the version of policy_ft that began the run"):
        assemble.train(run_config(), resume=True)


def test_a_step_that_is_not_finite_ends_the_run_and_keeps_the_checkpoints(run_config):
    config = run_config(training={"save_every": 2})

    class Spoiler(Tally):
        def after_step(self, train_step: int) -> dict[str, float]:
            if train_step == 3:
                with torch.no_grad():
                    self.run.policy.model.expert.action_out_proj.weight.fill_(torch.nan)
            return {}

    with pytest.raises(UserError, match=r"train step 4: found loss nan.*resume from the last"):
        assemble.train(config, methods=[Spoiler()])
    last = Path(config.output_dir) / "checkpoints" / "last"
    assert last.resolve().name == "step_00000003"
    assert all(value.isfinite().all() for value in load_file(last / "model.safetensors").values())


def test_a_policy_without_training_state_is_neither_overwritten_nor_resumed(run_config):
    config = run_config(training={"steps": 1})
    last = assemble.train(config).last_checkpoint
    (last / "training_state" / "state.json").unlink()
    with pytest.raises(UserError, match="Add --resume"):
        assemble.train(config)
    with pytest.raises(UserError, match="Move this directory elsewhere"):
        assemble.train(config, resume=True)


def test_a_kill_between_the_last_save_and_its_links_is_mended(run_config):
    config = run_config()
    last = assemble.train(config).last_checkpoint
    (last.parent / "last").unlink()
    assemble.train(config, resume=True)
    assert (last.parent / "last").resolve() == last.resolve()


def test_hidden_files_of_others_survive_a_resume(run_config):
    config = run_config(training={"steps": 1})
    checkpoints = assemble.train(config).directory / "checkpoints"
    (checkpoints / ".nfs0001").touch()
    (checkpoints / ".step_00000002.unfinished").mkdir()
    (checkpoints / ".last.unfinished").symlink_to("step_00000001")
    assemble.train(config, resume=True)
    hidden = {path.name for path in checkpoints.glob(".*")}
    assert hidden == {".nfs0001"}


def test_a_policy_in_bfloat16_is_trained_in_float32(run_config):
    config = run_config(training={"steps": 1})
    episodes = open_dataset(list(config.data.path))
    policy = assemble.build_policy(config, episodes)
    policy.model.bfloat16()
    assemble.train(config, policy, episodes)
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.float32}


def test_the_saved_settings_are_yaml_for_people(run_config):
    result = assemble.train(run_config(training={"steps": 1}))
    saved = yaml.safe_load((result.directory / "config.yaml").read_text())
    assert saved["training"]["steps"] == 1
