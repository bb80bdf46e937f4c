"""A setting that a message names is one that the run at hand accepts."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

import policy_ft
from policy_ft import assemble
from policy_ft.checkpoints.native import save_policy
from policy_ft.config.run import RunConfig
from policy_ft.config.starting_policy import NewPolicy, PretrainedPolicy
from policy_ft.errors import UserError

KINDS: dict[str, type[BaseModel]] = {"new": NewPolicy, "pretrained": PretrainedPolicy}
SETTING = re.compile(
    r"(?<![\w./])((?:policy|data|tuning|optimizer|training|validation|evaluation)"
    r"(?:\.(?:[a-z_0-9]+|\{\}))+)(?:,? \(?(?:of )?kind (new|pretrained))?"
)
KNOWS_ITS_KIND = {
    "policy.edits": "policies.py edits pretrained policies after they are loaded",
    "policy.init_missing": "only pretrained policies are loaded",
    "policy.model.edits": "policies.py builds new policies with them",
    "policy.image_resize": "assemble.py refuses it to checkpoints",
    "policy.embodiment": "preflight.py and openpi.py speak of checkpoints",
    "policy.statistics": "what a checkpoint's statistics do is told of pretrained policies alone",
    "policy.model.language.{}": "parts.py fills parts of new policies",
    "policy.{}.action_horizon": "preflight.py chooses by the kind",
    "policy.tokenizer": "both kinds have it",
    "policy.transforms": "state.py compares checkpoints, it names no setting to change",
    "assemble/memory.py": "only a checkpoint's path may lead nowhere",
    "assemble/policies.py": "what a run began with has a path where it was a checkpoint",
    "config/starting_policy.py": "validators of one kind",
    "config/resize.py": "what is resized is pretrained",
    "config/run.py": "validators that look at the kind",
    "quickstart.py": "it writes the settings of the packaged run",
}
NO_SETTING = re.compile(r"^policy\.(config|model|act)$|\.(safetensors|json)$")


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings blocks that a field may hold, whatever is around them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_of(inner)


def is_accepted(setting: str, kind: str) -> bool:
    """Whether a run with this kind of policy has the setting; '{}' stands for some name."""
    first, *rest = setting.split(".")
    blocks = (
        [KINDS[kind]]
        if first == "policy"
        else list(models_of(RunConfig.model_fields[first].annotation))
    )
    for place, name in enumerate(rest):
        fields = [b.model_fields[name] for b in blocks if name in b.model_fields]
        if name == "{}" or (place and not blocks):
            return True
        if not fields:
            return False
        blocks = [model for field in fields for model in models_of(field.annotation)]
    return True


def texts(tree: ast.AST) -> Iterator[str]:
    """The strings of a module but its docstrings; '{}' stands for what is filled in."""
    skipped = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            yield "".join(map(str, parts))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in skipped
        ):
            yield node.value


def test_every_setting_that_a_message_names_is_one_of_the_kind_it_is_said_of():
    package, faults = Path(policy_ft.__file__).parent, []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).as_posix()
        for text in texts(ast.parse(path.read_text(encoding="utf-8"))):
            for setting, kind in SETTING.findall(text):
                if NO_SETTING.search(setting) or {setting, place} & KNOWS_ITS_KIND.keys():
                    continue
                kinds = [kind] if kind else list(KINDS)
                if not all(is_accepted(setting, each) for each in kinds):
                    faults.append(f"{place}: {setting} of {kinds}")
    assert not faults, "\n".join(faults)


WIDE = {"names": "abcdefg", "units": ["m"] * 7}


def faults_of(config: RunConfig) -> list[str]:
    told: list[str] = []
    try:
        told += assemble.check(config, tell=told.append)
    except UserError as error:
        told += error.faults
    return told


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        ({"max_prompt_tokens": 2}, "max_prompt_tokens"),
        ({"state_dim": 3}, "state_dim"),
        ({"action_dim": 2}, "action_dim"),
        ({"image_height": 64}, "image_height"),
        ({"action_horizon": 40}, "action_horizon"),
    ],
)
def test_what_a_message_names_helps_the_run_at_hand(
    run_config, small_model, policy, tmp_path, kind, spoil, named
):
    """Spoiled in the settings of a new policy, or by `resize` of a pretrained one."""
    if kind == "new":
        config = run_config(policy={"model": small_model(**spoil)})
    else:
        save_policy(policy, tmp_path / "base")
        block = {"kind": "pretrained", "path": str(tmp_path / "base"), "statistics": "data"}
        values = run_config().model_dump(mode="json")
        config = RunConfig.model_validate({**values, "policy": {**block, "resize": spoil}})
    told = faults_of(config)
    settings = [
        setting
        for text in told
        for setting, said_of in SETTING.findall(text)
        if said_of in ("", kind) and setting.startswith("policy.") and named in setting
    ]
    assert settings, told
    for setting in settings:
        assert is_accepted(setting, kind), setting
        repaired = set_to(config, setting, getattr(policy.config, named))
        assert not any(setting in text for text in faults_of(repaired))


def set_to(config: RunConfig, setting: str, value: object) -> RunConfig:
    values = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))
    *above, last = setting.split(".")
    block = values
    for name in above:
        block = block[name]
    block[last] = value
    return RunConfig.model_validate(values)
