"""Processes that hold a part of every weight compute what one computes that holds all."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from policy_ft import assemble
from policy_ft.checkpoints.native import save_policy
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.run import RunConfig
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.training.hooks import Hook
from policy_ft.training.metrics import read_metrics
from tests.policy_ft.conftest import small_model_config, small_run
from tests.policy_ft.point_world import without_images
from tests.policy_ft.processes import Job, Kill, Spoil, launch

SHORT = {"steps": 4, "log_every": 1}
FROZEN = [{"pattern": each, "frozen": True} for each in ("vision", "language")]
LATER = [{"start": 2, "groups": [{"pattern": "vision", "frozen": True}]}]
SIGLIP = {"kind": "siglip", "patch_size": 16, "width": 32, "depth": 2, "num_heads": 2}
EXPERT = {"width": 24, "mlp_width": 40, "time": "concat"}
FAMILIES = {
    "as in pi0": small_model_config(expert=EXPERT).model_dump(mode="json"),
    "as in SmolVLA": small_model_config(
        vision={**SIGLIP, "mlp_width": 48},
        expert={**EXPERT, "self_attention_every": 2, "state_token": "prefix"},
    ).model_dump(mode="json"),
}
CASES: dict[str, dict[str, dict[str, object]]] = {
    "full": {"training": {"accumulation_steps": 2}},
    "frozen": {"tuning": {"groups": FROZEN}, "policy": {}},
    "phases": {"tuning": {"groups": FROZEN[1:], "phases": LATER}},
    "adapters": {
        "policy": {
            "edits": [
                {"kind": "lora", "target": ["language"], "rank": 2, "dora": True},
                {"kind": "peft", "target": ["expert"], "method": "hra"},
            ]
        },
        "tuning": {"groups": [{"pattern": "vision", "frozen": True}]},
    },
    "checkpointed, no average": {"tuning": {"ema": "off"}},
    "compiled": {},
}
"""What runs differ in; those with a policy go on from a saved one."""
OTHERWISE: dict[str, dict[str, object]] = {
    "checkpointed, no average": {"activation_checkpointing": True},
    "compiled": {"compile": True},
    # what one takes in two micro-batches, two divide
    **{name: {"accumulation_steps": 1} for name in FAMILIES},
}
"""What else is different where processes share the weights."""
ARBITRARY = ".k_proj.bias"
"""No output depends on it: its gradient is rounding, of which Adam makes steps."""


def sharded(config: RunConfig, output_dir: Path, **training: object) -> RunConfig:
    values = config.model_dump(mode="json")
    values["training"] |= {"shard": True, **training}
    return RunConfig.model_validate({**values, "output_dir": str(output_dir)})


def records(config: RunConfig, kind: str, *names: str) -> list[list[float]]:
    rows = read_metrics(Path(config.output_dir))
    return [[row[name] for name in names] for row in rows if row["kind"] == kind]


def weights(config: RunConfig) -> dict[str, Tensor]:
    return load_file(Path(config.output_dir) / "checkpoints/last/model.safetensors")


def assert_same(found: RunConfig, expected: RunConfig, rel: float = 1e-5) -> None:
    """Losses, gradient norms and weights of two runs differ by no more than rounding."""
    for kind, names in (
        ("train", ("train_step", "loss", "grad_norm", "lr")),
        ("validation", ("train_step", "loss", "action_mse")),
    ):
        rows = records(expected, kind, *names)
        assert rows
        assert records(found, kind, *names) == [pytest.approx(row, rel=rel) for row in rows]
    theirs = weights(expected)
    for name, tensor in weights(found).items():
        if name.endswith(ARBITRARY):
            theirs.pop(name)
            continue
        torch.testing.assert_close(tensor, theirs.pop(name), rtol=rel, atol=rel / 5)
    assert not theirs


def shown_hash(config: RunConfig) -> str:
    return weights_hash(load_policy(Path(config.output_dir) / "checkpoints/last").model)


@dataclass(frozen=True)
class Runs:
    """Runs by name: of one process, and of two that share the weights."""

    alone: Mapping[str, RunConfig]
    together: Mapping[str, RunConfig]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    """A saved policy whose decoder is in bfloat16."""
    first = small_run(folder, output_dir=str(folder / "base"), training={"steps": 1})
    policy = load_policy(assemble.train(first).last_checkpoint)
    policy.model.backbone.language.bfloat16()
    save_policy(policy, folder / "half")
    return folder / "half"


@pytest.fixture(scope="module")
def runs(folder: Path, base: Path) -> Runs:
    """Every case trained by this process and by two; 5 windows and 3 episodes are measured."""
    alone = {name: settings(folder, base, name) for name in CASES}
    alone |= {name: of_family(folder, name) for name in FAMILIES}
    alone["states"] = without_images(folder)
    together = {
        name: sharded(config, folder / f"two {name}", **OTHERWISE.get(name, {}))
        for name, config in alone.items()
    }
    assert launch(2, *map(Job, together.values())) == [0, 0]
    for config in alone.values():
        assemble.train(config)
    return Runs(alone, together)


def settings(folder: Path, base: Path, name: str) -> RunConfig:
    changes = CASES[name]
    config = small_run(
        folder,
        output_dir=str(folder / f"one {name}"),
        training={**SHORT, "batch_size": 12, **changes.get("training", {})},
        tuning=changes.get("tuning", {}),
        validation={"every": 2, "num_windows": 5},
    )
    if "policy" not in changes:
        return config
    start = {"kind": "pretrained", "path": str(base), **changes["policy"]}
    values = {**config.model_dump(mode="json"), "policy": start}
    values["training"]["precision"] = "bf16"
    return RunConfig.model_validate(values)


def of_family(folder: Path, name: str) -> RunConfig:
    """A run without clipping, of a small model that is built as a published one."""
    return small_run(
        folder,
        output_dir=str(folder / f"one {name}"),
        policy={"model": FAMILIES[name]},
        optimizer={"clip_norm": 1e9},
        training={**SHORT, "batch_size": 8, "accumulation_steps": 2},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["full", "phases", "checkpointed, no average", "compiled", "as in SmolVLA"]
)
def test_two_processes_with_half_of_the_weights_each_compute_what_one_computes(runs, name):
    assert_same(runs.together[name], runs.alone[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["frozen", "adapters"])
def test_frozen_weights_keep_their_type_and_their_bits_in_parts(runs, name, base):
    """Products in bfloat16 are rounded otherwise in another batch, so less is equal."""
    assert_same(runs.together[name], runs.alone[name], rel=1e-2)
    start, end = load_file(base / "model.safetensors"), weights(runs.together[name])
    held = [n for n in start if n.startswith("backbone.language.layers.")]
    for before in held:
        after = end.get(before, end.get(f"{before.removesuffix('.weight')}.base_layer.weight"))
        assert torch.equal(after, start[before])


@pytest.mark.slow
def test_where_sums_allow_it_the_hash_is_that_of_one_process(runs):
    """Two halves of a batch add up alike in either order; clipping would add norms of parts."""
    one, two = runs.alone["as in pi0"], runs.together["as in pi0"]
    assert shown_hash(two) == shown_hash(one)
    assert records(two, "train", "loss") == records(one, "train", "loss")


@pytest.mark.slow
def test_uneven_numbers_of_episodes_hold_nobody_up(runs):
    names = ("train_step", "success_rate", "num_episodes")
    found = records(runs.together["states"], "rollout", *names)
    assert found == records(runs.alone["states"], "rollout", *names)
    assert found[0][2] == 3
    assert_same(runs.together["states"], runs.alone["states"])


@pytest.mark.slow
def test_each_process_writes_its_rows_of_the_state(runs):
    one, two = (
        Path(config.output_dir) / "checkpoints/last/training_state"
        for config in (runs.alone["full"], runs.together["full"])
    )
    whole = load_file(one / "optimizer.safetensors")
    parts = [load_file(path) for path in sorted(two.glob("optimizer-*-of-00002.safetensors"))]
    assert len(parts) == 2
    assert sum(each.numel() for part in parts for each in part.values()) == sum(
        each.numel() for each in whole.values()
    )
    for name, expected in whole.items():
        held = [part[name] for part in parts if name in part]
        joined = torch.cat(held) if expected.ndim else held[0]
        torch.testing.assert_close(joined, expected, rtol=1e-4, atol=1e-6)
    assert len(set(json.loads((two / "checksums.json").read_text()))) == 4


def resumed(config: RunConfig, output_dir: Path, start: RunConfig, **training: object) -> RunConfig:
    """The settings in a directory that holds the third step of a run, and nothing later."""
    shutil.copytree(Path(start.output_dir), output_dir, symlinks=True)
    shutil.rmtree(output_dir / "checkpoints/step_00000006", ignore_errors=True)
    values = config.model_dump(mode="json")
    values["training"] |= training
    values |= {"evaluation": "off", "output_dir": str(output_dir)}
    return RunConfig.model_validate(values)


@pytest.mark.slow
def test_a_killed_sharded_run_goes_on_with_any_number_of_processes(runs, folder):
    """With as many in the same bits; with others, sharded or whole, by rounding."""
    unbroken, hook = runs.together["states"], (Kill(0),)
    killed, whole = sharded(unbroken, folder / "killed"), sharded(unbroken, folder / "lives")
    assert launch(2, Job(killed, methods=(Kill(5),))) == [-9, -9]
    assert not (folder / "killed/checkpoints/step_00000006").exists()
    alone, three = (resumed(unbroken, folder / name, killed) for name in ("alone", "three"))
    alone = sharded(alone, folder / "alone", shard=False)
    from_whole = resumed(unbroken, folder / "from whole", runs.alone["states"])
    jobs = Job(killed, True, hook), Job(whole, methods=hook), Job(from_whole, True)
    assert launch(2, *jobs) == [0, 0]
    assert launch(3, Job(three, True, hook)) == [0, 0, 0]
    assemble.train(alone, resume=True, methods=hook)
    assert shown_hash(killed) == shown_hash(unbroken)
    assert states(killed) == states(whole)
    for config in (alone, three, from_whole):
        assert_same(config, unbroken)
    for config in (alone, three):
        torch.testing.assert_close(summed(config), summed(killed), rtol=1e-5, atol=1e-5)


def states(config: RunConfig) -> dict[str, str]:
    directory = Path(config.output_dir) / "checkpoints/last/training_state"
    return {path.name: weights_hash(load_file(path)) for path in directory.glob("*.safetensors")}


def summed(config: RunConfig) -> Tensor:
    """What the hook has added up, of all processes."""
    directory = Path(config.output_dir) / "checkpoints/last/training_state"
    return torch.cat([load_file(each)["sum"] for each in sorted(directory.glob("hook_kill*"))])


@pytest.mark.slow
def test_a_damaged_part_is_named(runs, folder):
    config = resumed(runs.together["states"], folder / "damaged", runs.together["states"])
    state = folder / "damaged/checkpoints/step_00000003/training_state"
    path = state / "optimizer-00002-of-00002.safetensors"
    tensors = load_file(path)
    name = next(key for key, value in tensors.items() if value.any())
    save_file({**tensors, name: torch.zeros_like(tensors[name])}, path)
    with pytest.raises(UserError, match=rf"00002-of-00002.*other bytes in the tensor '{name}'"):
        assemble.train(config, resume=True)
    path.unlink()
    with pytest.raises(UserError, match=r"optimizer-00002-of-00002.safetensors: found no whole"):
        assemble.train(config, resume=True)


@pytest.mark.slow
def test_what_is_not_finite_in_one_part_stops_every_process_and_is_named(folder):
    values = without_images(folder).model_dump(mode="json")
    values["validation"]["every"], values["evaluation"]["every"] = 6, 3
    values["tuning"]["ema"] = "off"
    config = RunConfig.model_validate(values)
    gradient, weight = (sharded(config, folder / name) for name in ("gradient", "weight"))
    first = Job(gradient, methods=(Spoil("gradient", 2),))
    assert launch(2, first, Job(weight, methods=(Spoil("weight", 3),))) == [0, 0]
    for rank in (0, 1):
        told = (folder / f"gradient/fault_{rank}.txt").read_text()
        assert "gradient norm nan" in told
        assert "1 tensors' gradients, first ['expert.action_out_proj.weight']" in told
        told = (folder / f"weight/fault_{rank}.txt").read_text()
        assert "tensors of the model are not finite, first 'expert.action_out_proj.weight'" in told


@pytest.mark.slow
def test_a_process_that_does_not_see_the_directory_is_told_of_before_the_first_step(folder):
    config = sharded(without_images(folder), Path("relative"))
    folders = folder / "here", folder / "there"
    for each in folders:
        each.mkdir()
    assert launch(2, Job(config, folders=folders)) == [0, 0]
    for rank, place in enumerate(folders):
        told = (place / f"relative/fault_{rank}.txt").read_text()
        assert f"process 1, {folders[1]}/relative/checkpoints: found no such directory" in told
        assert "Put output_dir on a disk that all machines see" in told


class Unsaid(Hook):
    """Says nothing of parts."""

    name = "unsaid"


def test_what_a_sharded_run_cannot_do_is_refused_before_its_first_step(run_config):
    config = run_config(
        training={"shard": True, "feature_cache_gb": 1.0},
        tuning={"groups": FROZEN[:1]},
        objectives={"l2_sp": {"weight": 1.0}},
    )
    faults = "\n".join(assemble.check(config))
    assert "training.feature_cache_gb: found 1 with training.shard true" in faults
    assert "method 'l2_sp': found training.shard true" in faults
    assert "Leave it out or set training.shard to false" in faults
    with pytest.raises(UserError, match=r"method 'unsaid': .*works_on_shards true in its class"):
        assemble.train(run_config(training={"shard": True}), methods=[Unsaid()])


def test_one_process_is_told_that_it_holds_everything(run_config, capsys):
    config = run_config(training={"shard": True, "steps": 1})
    lines: list[str] = []
    assert assemble.check(config, tell=lines.append) == []
    told = "training.shard: without effect in one process"
    assert any(told in line for line in lines)
    whole = assemble.train(run_config(training={"steps": 1}, output_dir=config.output_dir + "2"))
    assert weights_hash(load_policy(assemble.train(config).last_checkpoint).model) == weights_hash(
        load_policy(whole.last_checkpoint).model
    )
    assert told in " ".join(capsys.readouterr().out.split())
