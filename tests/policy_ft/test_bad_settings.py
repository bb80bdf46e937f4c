"""Bad settings: one error that names the place and the value found, and says what to do."""

import pytest

from policy_ft.config.config_file import load_config
from policy_ft.errors import UserError

RUN = """\
output_dir: runs/x
policy: {kind: pretrained, path: checkpoints/base}
data: {path: demos.hdf5}
tuning:
  groups:
    - {pattern: vision, frozen: true}
  ema: {decay: 0.99}
optimizer: {lr: 1.0e-4, warmup_steps: 10, decay_steps: 100, final_lr: 0}
training: {steps: 100, batch_size: 8}
evaluation: {replan_steps: 4, every: 50}
"""
NEW_POLICY = """{kind: new, tokenizer: {train: 300}, transforms: {cameras: [front, wrist]},
  model: {image_height: 64, image_width: 64, num_cameras: 1, max_prompt_tokens: 16, state_dim: 4,
    action_dim: 4, action_horizon: 3, vision: {kind: timm, tower: resnetv2_18, feature_level: 3},
    language: {family: llama, vocab_size: 300, width: 32, depth: 2, mlp_width: 64,
               num_heads: 4, num_kv_heads: 4, head_dim: 8},
    expert: {width: 32, mlp_width: 64}}}"""
PRETRAINED = "{kind: pretrained, path: checkpoints/base}"

# name: (text to replace, its replacement, words of the message)
BAD_FILES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "unknown key": (
        "warmup_steps",
        "warm_up_steps",
        ("optimizer.warm_up_steps", "Rename or remove it; did you mean 'warmup_steps'?"),
    ),
    "nothing to watch": (
        "training: {steps: 100, batch_size: 8}\nevaluation: {replan_steps: 4, every: 50}",
        "training: {steps: 100, batch_size: 8, early_stop: {of: rollout}}",
        ("training.early_stop: found of: rollout with evaluation off; expected rollouts",),
    ),
    "unknown key with no near name": (
        "lr: 1.0e-4",
        "learning_rate: 1.0e-4",
        ("run.yaml:8, optimizer.learning_rate", "one of ['lr', ", "Rename or remove it."),
    ),
    "unknown key inside a union": (
        "path: checkpoints/base",
        "pth: checkpoints/base",
        ("policy.pth", "did you mean 'path'?"),
    ),
    "unknown key at the top": (
        "training:",
        "trainings:",
        ("trainings", "did you mean 'training'?"),
    ),
    "unknown key inside a list": ("frozen", "freeze", ("tuning.groups.0.freeze", "'frozen'")),
    "missing key": ("steps: 100, ", "", ("training.steps", "found no value", "Add 'steps'.")),
    "true for an integer": ("steps: 100, b", "steps: true, b", ("found True", "a whole number")),
    "fraction for an integer": ("steps: 100, b", "steps: 1.5, b", ("found 1.5", "a whole number")),
    "text for an integer": ("steps: 100, b", "steps: '9', b", ("found '9'", "a whole number")),
    "true for a number": ("1.0e-4", "true", ("optimizer.lr: found True", "Write the number")),
    "infinite number": ("1.0e-4", ".inf", ("optimizer.lr: found inf", "a finite number")),
    "yes for a boolean": ("frozen: true", "frozen: yes", ("found 'yes'", "true or false")),
    "number out of range": ("decay: 0.99", "decay: 1.0", ("tuning.ema.decay", "a number below 1")),
    "a seed too large for a generator": (
        "evaluation: {",
        "evaluation: {seed: 18446744073709551616, ",
        ("evaluation.seed: found 18446744073709551616", "below 9223372036854775808"),
    ),
    "zero steps": ("steps: 100, b", "steps: 0, b", ("training.steps: found 0", "above 0")),
    "word that is no choice": (
        "checkpoints/base}",
        "checkpoints/base, statistics: both}",
        ("policy.statistics: found 'both'", "'checkpoint' or 'data'"),
    ),
    "unknown kind": ("kind: pretrained", "kind: pretraned", ("'kind'", "'new', 'pretrained'")),
    "kind left out": ("kind: pretrained, ", "", ("policy", "the key 'kind'")),
    "no word but off": (
        "{replan_steps: 4, every: 50}",
        "never",
        ("evaluation", "'never'", "'off'"),
    ),
    "duplicate key": (
        "batch_size: 8}",
        "batch_size: 8, steps: 5}",
        ("the key 'steps' again (first on line 9)", "Remove one of the two lines."),
    ),
    "malformed YAML": ("steps: 100, ", "steps: [100, ", ("malformed YAML", "Correct the line.")),
    "tabs in YAML": ("  ema", "\tema", ("run.yaml:7", "malformed YAML")),
    "list for a file": (RUN, "- 1\n", ("a mapping of settings", "`key: value` lines")),
    "empty file": (RUN, "", ("found nothing", "a mapping of settings")),
    "scale of what is frozen": (
        "frozen: true",
        "frozen: true, lr_scale: 0.1",
        ("lr_scale: found 0.1 beside frozen: true", "Remove one of the two."),
    ),
    "schedule that ends before its warm-up": (
        "decay_steps: 100",
        "decay_steps: 10",
        ("decay_steps: found 10 with warmup_steps 10", "Raise decay_steps"),
    ),
    "final rate above the peak": (
        "final_lr: 0",
        "final_lr: 0.1",
        ("final_lr: found 0.1", "Lower final_lr or raise lr."),
    ),
    "batch that does not divide": (
        "batch_size: 8",
        "batch_size: 8, accumulation_steps: 3",
        ("accumulation_steps: found 3 with batch_size 8", "Change one of the two."),
    ),
    "several paths to collect into": (
        "{path: demos.hdf5}",
        "{path: [a, b], collect: {task: reach, num_episodes: 5}}",
        ("found 2 paths ['a', 'b'] with collect", "Give one path or set collect to off."),
    ),
    "more cameras than slots": (
        PRETRAINED,
        NEW_POLICY,
        ("num_cameras: found 1", "['front', 'wrist']", "Raise policy.model.num_cameras"),
    ),
    "more steps executed than predicted": (
        PRETRAINED,
        NEW_POLICY.replace("num_cameras: 1", "num_cameras: 2"),
        ("run.yaml: evaluation.replan_steps: found 4", "action_horizon 3", "Lower replan_steps"),
    ),
    "tokenizer too small for bytes": (
        PRETRAINED,
        NEW_POLICY.replace("train: 300", "train: 100"),
        ("policy.tokenizer.train: found 100", "at least 258"),
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_settings_file(case, tmp_path):
    old, new, words = BAD_FILES[case]
    assert old in RUN
    path = tmp_path / "run.yaml"
    path.write_text(RUN.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_config(path)
    for word in ("run.yaml", *words):
        assert word in str(caught.value), f"{word!r} not in:\n{caught.value}"


BAD_OVERRIDES = {
    "unknown key": ("training.step=5", ("--set training.step", "did you mean 'steps'?")),
    "no value": ("training.steps", ("--set training.steps", "Write e.g. --set optimizer.lr=1e-4.")),
    "empty key": ("training..steps=5", ("expected key.path=value",)),
    "below a word": ("data.path.x=5", ("'demos.hdf5' at data.path", "Set data.path as a whole")),
    "beyond a list": ("tuning.groups.3.frozen=true", ("a list of 1 at tuning.groups",)),
    "malformed value": ("data.path=[a", ("--set data.path", "Quote it")),
    "no robot": (
        "policy.embodiment=null",
        ("found null", "or leave it out for its default, 'checkpoint'."),
    ),
    "a phase after the last step": (
        "tuning.phases=[{start: 900, groups: []}]",
        ("phases.0.start: found 900, step 900; expected one after step 0 and before the last",),
    ),
    "phases out of order": (
        "tuning.phases=[{start: 0.5, groups: []}, {start: 1, groups: []}]",
        ("tuning.phases.1.start: found 1, step 1; expected one after step",),
    ),
    "a step behind a phase that waits": (
        "tuning.phases=[{start: {patience: 2}, groups: []}, {start: 0.9, groups: []}]",
        ("phases.1.start: found 0.9 behind a phase that waits for a measure",),
    ),
    "rates of what is frozen": (
        "tuning.groups=[{pattern: vision, frozen: true, lr_decay: 0.5}]",
        ("lr_decay: found 0.5 beside frozen: true",),
    ),
    "no block": (
        "evaluation=null",
        ("found null (no value); expected 'off' or a block of settings. Set evaluation to",),
    ),
    "no space behind a colon": ("tuning.ema={decay:0.9}", ("behind the colon: decay: 0.9",)),
    "no value for what has no default": (
        "training.steps=null",
        ("expected a whole number. Set training.steps to such a value.",),
    ),
    "wrong type": ("training.steps=many", ("--set training.steps: found 'many'", "whole number")),
}


@pytest.mark.parametrize("case", BAD_OVERRIDES)
def test_a_bad_override(case, tmp_path):
    override, words = BAD_OVERRIDES[case]
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    with pytest.raises(UserError) as caught:
        load_config(path, [override])
    for word in words:
        assert word in str(caught.value), f"{word!r} not in:\n{caught.value}"


def test_a_settings_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"Correct the path of the settings file"):
        load_config(tmp_path / "none.yaml")


def test_a_settings_file_that_is_not_text(tmp_path):
    (tmp_path / "run.yaml").write_bytes(b"\x89HDF\r\n\xff\xfe")
    with pytest.raises(UserError, match=r"Give a text file"):
        load_config(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(
            ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
            + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
        ),
        "loop: &loop [*loop]",
    ],
    ids=["a bomb", "a circle"],
)
def test_aliases_without_end_are_refused_at_once(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match="Write the values out"):
        load_config(tmp_path / "run.yaml")


@pytest.mark.parametrize("text", ["seed: " + "9" * 5000, "seed: 2026-13-45"])
def test_a_number_or_date_that_is_none_is_told(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match="malformed YAML"):
        load_config(tmp_path / "run.yaml")
