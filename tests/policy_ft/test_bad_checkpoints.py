"""Bad checkpoints: one error that names the place and the value found, and says what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from policy_ft.checkpoints.atomic import atomic_directory
from policy_ft.checkpoints.native import save_policy
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy


def edit_json(name: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        content = json.loads((checkpoint / name).read_text())
        change(content)
        (checkpoint / name).write_text(json.dumps(content))

    return damage


def edit_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        tensors = load_file(checkpoint / "model.safetensors")
        change(tensors)
        save_file(tensors, checkpoint / "model.safetensors")

    return damage


def rename(tensors: dict[str, torch.Tensor], old: str, new: str) -> None:
    tensors[new] = tensors.pop(old)


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[: int(len(content) * keep)])

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).unlink()


def write(name: str, content: str) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        (checkpoint / name).write_text(content)

    return damage


OUT = "expert.action_out_proj.weight"
BAD_CHECKPOINTS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "missing tensor": (
        edit_weights(lambda t: t.pop(OUT)),
        (f"model.safetensors, {OUT}: found no such tensor", "of shape [4, 24]", "init_missing"),
    ),
    "extra tensor": (
        edit_weights(lambda t: t.update({"expert.lm_head.weight": torch.zeros(3)})),
        ("expert.lm_head.weight: found a tensor of that name", "or remove the tensor"),
    ),
    "renamed tensor": (
        edit_weights(lambda t: rename(t, OUT, "expert.action_out.weight")),
        ("did you mean 'expert.action_out.weight'?", f"did you mean '{OUT}'?"),
    ),
    "misshaped tensor": (
        edit_weights(lambda t: t.update({OUT: torch.zeros(7, 24)})),
        (f"{OUT}: found floats [7, 24]; expected floats [4, 24]", "from one checkpoint"),
    ),
    "integers for floats": (
        edit_weights(lambda t: t.update({OUT: torch.zeros(4, 24, dtype=torch.int64)})),
        (f"{OUT}: found integers [4, 24]", "Take weights and settings (model.json, conf"),
    ),
    "truncated weights": (
        cut("model.safetensors", 0.7),
        ("model.safetensors: found a damaged file of", "Copy or download it again."),
    ),
    "truncated header": (cut("model.safetensors", 0.001), ("damaged file", "download it again")),
    "empty weights": (cut("model.safetensors", 0.0), ("damaged file of 0 bytes", "Copy or")),
    "pointer for weights": (
        write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("a Git LFS pointer", "Run `git lfs pull` there."),
    ),
    "no weights": (remove("model.safetensors"), ("no model.safetensors", "Copy the whole dir")),
    "no statistics": (
        remove("normalization_stats.json"),
        ("no normalization_stats.json", "Copy the whole directory again."),
    ),
    "no tokenizer": (remove("tokenizer.json"), ("no tokenizer.json", "Copy the whole directory")),
    "truncated statistics": (
        cut("normalization_stats.json", 0.5),
        ("normalization_stats.json: found text that is not JSON", "Copy the file again"),
    ),
    "truncated model settings": (cut("model.json", 0.5), ("model.json", "not JSON", "damaged")),
    "unknown model setting": (
        edit_json("model.json", lambda c: c.update({"action_horizn": 5})),
        ("model.json, action_horizn", "did you mean 'action_horizon'?"),
    ),
    "wrong type of model setting": (
        edit_json("model.json", lambda c: c.update({"state_dim": "5"})),
        ("model.json, state_dim: found '5'", "a whole number"),
    ),
    "another horizon": (
        edit_json("model.json", lambda c: c.update({"action_horizon": 6})),
        ("shape.action_horizon: found 4; expected 6", "from the same checkpoint"),
    ),
    "missing statistic": (
        edit_json("normalization_stats.json", lambda c: c["actions"].pop("std")),
        ("expected std too", "Choose a normalization that needs only these"),
    ),
    "NaN statistic": (
        edit_json(
            "normalization_stats.json", lambda c: c["state"].update({"mean": [float("nan")] * 4})
        ),
        ("normalization_stats.json, state", "finite", "Compute them again"),
    ),
    "statistics of fewer columns": (
        edit_json(
            "normalization_stats.json",
            lambda c: c["actions"].update(
                {k: v[:2] for k, v in c["actions"].items() if isinstance(v, list)}
            ),
        ),
        ("normalization_stats, action: found 2 columns", "Compute the statistics again"),
    ),
    "conventions of another robot": (
        edit_json(
            "conventions.json", lambda c: c["state"].update({"names": ["x"], "units": ["m"]})
        ),
        ("normalization_stats, state: found 4 columns; expected 1", "Compute the statistics again"),
    ),
    "conventions with a missing camera": (
        edit_json("conventions.json", lambda c: c["cameras"].pop()),
        ("the cameras ['front']", "['front', 'wrist']", "from the same checkpoint"),
    ),
    "text that is no tokenizer": (
        write("tokenizer.json", "{}"),
        ("tokenizer.json: found text that is no tokenizer", "Copy it again."),
    ),
    "another format": (
        edit_json("provenance.json", lambda c: c.update({"format": "policy_ft/2"})),
        ("provenance.json, format: found 'policy_ft/2'", "version of policy_ft that wrote it"),
    ),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_a_bad_checkpoint(case, policy, tmp_path):
    damage, words = BAD_CHECKPOINTS[case]
    save_policy(policy, tmp_path / "checkpoint")
    damage(tmp_path / "checkpoint")
    with pytest.raises(UserError) as caught:
        load_policy(tmp_path / "checkpoint")
    for word in words:
        assert word in str(caught.value), f"{word!r} not in:\n{caught.value}"


def test_every_bad_tensor_is_named_at_once(policy, tmp_path):
    save_policy(policy, tmp_path / "checkpoint")
    edit_weights(lambda t: [t.pop(name) for name in list(t)[:3]])(tmp_path / "checkpoint")
    edit_weights(lambda t: t.update({"stranger": torch.zeros(1)}))(tmp_path / "checkpoint")
    with pytest.raises(UserError) as caught:
        load_policy(tmp_path / "checkpoint")
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize("is_all", [False, True])
def test_weights_that_were_converted_after_saving_are_told_by_tensor_and_type(
    is_all, policy, tmp_path
):
    save_policy(policy, tmp_path / "checkpoint")
    halve = {True: lambda name: True, False: lambda name: name == OUT}[is_all]
    edit_weights(lambda t: t.update({n: t[n].half() for n in t if halve(n)}))(
        tmp_path / "checkpoint"
    )
    with pytest.raises(UserError) as caught:
        load_policy(tmp_path / "checkpoint")
    (told,) = caught.value.faults
    assert "found torch.float16 in '" in told
    assert "expected torch.float32. Copy the checkpoint again" in told
    assert is_all or repr(OUT) in told


def test_what_starts_at_random_is_a_setting_of_a_run_and_no_advice_to_other_commands(
    policy, tmp_path
):
    save_policy(policy, tmp_path / "checkpoint")
    edit_weights(lambda tensors: tensors.pop(OUT))(tmp_path / "checkpoint")
    with pytest.raises(UserError) as caught:
        load_policy(tmp_path / "checkpoint")
    (told,) = caught.value.faults
    assert "copy this one again, or take another" in told
    assert "only training may start there at random (policy.init_missing in a run)" in told


def test_the_weights_of_another_model_are_told_in_a_few_lines(policy, tmp_path):
    save_policy(policy, tmp_path / "checkpoint")
    count = len(load_file(tmp_path / "checkpoint/model.safetensors"))

    def replace_all(tensors):
        for name in list(tensors):
            tensors[f"other.{name}"] = tensors.pop(name)

    edit_weights(replace_all)(tmp_path / "checkpoint")
    with pytest.raises(UserError) as caught:
        load_policy(tmp_path / "checkpoint")
    missing, unexpected = caught.value.faults
    assert f"nothing for {count} of the model's {count} tensors" in missing
    assert "Use a complete checkpoint" in missing
    assert f"{count} of {count} tensors that the model does not have" in unexpected
    assert "Take weights and settings (model.json, config.json) from one checkpoint" in unexpected
    assert missing.count("did you mean 'other.") == unexpected.count("did you mean '") == 3


def test_many_misshaped_tensors_are_one_fault(policy, tmp_path):
    save_policy(policy, tmp_path / "checkpoint")
    narrower = policy.config.expert.model_copy(update={"width": 20})
    edit_json("model.json", lambda c: c.update({"expert": narrower.model_dump()}))(
        tmp_path / "checkpoint"
    )
    with pytest.raises(UserError, match=r"tensors of other shapes, e.g. .*one checkpoint") as e:
        load_policy(tmp_path / "checkpoint")
    assert len(e.value.faults) == 1


def test_a_pattern_of_init_missing_that_fits_nothing_is_refused(policy, tmp_path):
    save_policy(policy, tmp_path / "checkpoint")
    with pytest.raises(UserError, match=r"'expert\.\*', which fits none of the 0 missing"):
        load_policy(tmp_path / "checkpoint", init_missing=("expert.*",))


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no such directory.*Correct the path"):
        load_policy(tmp_path / "nothing")


def test_a_directory_of_checkpoints_is_refused_with_one_of_them(policy, tmp_path):
    save_policy(policy, tmp_path / "run/step_5")
    with pytest.raises(UserError, match=r"Give a directory that has them, e.g. .*run/step_5"):
        load_policy(tmp_path / "run")


def test_an_unknown_type_of_weights_is_refused(policy, tmp_path):
    save_policy(policy, tmp_path / "checkpoint")
    with pytest.raises(UserError, match=r"dtype: found 'float16'; expected one of .*bfloat16"):
        load_policy(tmp_path / "checkpoint", dtype="float16")


def test_a_checkpoint_is_never_written_over_files(policy, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"files there already.*Choose another directory"):
        save_policy(policy, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_directory_is_never_written_over_a_file(tmp_path):
    (tmp_path / "target").write_text("mine")
    with pytest.raises(UserError, match=r"Choose another"), atomic_directory(tmp_path / "target"):
        pass
    assert (tmp_path / "target").read_text() == "mine"
