"""What pydantic refuses is told in our words, with the user's keys, for every field there is."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

import data_tools
import policy_ft
from data_tools.conventions import Conventions
from data_tools.declaration import dotted, refusals
from data_tools.errors import UserError, shown
from data_tools.formats.keep_files import read_keep
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.layouts.sidecar import conventions_from, layout_of, read_sidecar
from policy_ft.config.config_file import load_config

WRONG = (
    *(None, True, -1, 0, 2.5, float("nan"), float("inf"), 10**30, "", "x", "9" * 5000, b"\xff"),
    *([], [1], ["a"], [None], [True], [[1]], [[1, 2, 3]], [{}], [{"kind": "no"}], ["", "a"]),
    *({}, {"kind": "no"}, {"x": 1}, {3: 1}, {"x": {}}, {"x": []}, {"x": None}, object()),
    *({"text": 1}, {"dataset": ""}, {"dataset": "a", "scale": "b"}, {"video": 3}, {"file": ""}),
    *({"attribute": "a", "text": "b"}, {"attrs": "a"}, [{"attribute": 1}], {"path_pattern": "("}),
)
OURS = {"value_error", "place"}
PYDANTICS = re.compile(
    r"Input should|should have at|Unable to|Field required|not permitted|Keys should|Value error"
    r"|valid (string|integer|number|tuple|list|boolean|dictionary)|after validation|expected tags"
)


def models() -> list[type[BaseModel]]:
    for package in (data_tools, policy_ft):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found, left = set(), [BaseModel]
    while left:
        below = left.pop().__subclasses__()
        found.update(below)
        left += below
    own = [each for each in found if each.__module__.split(".")[0] in ("data_tools", "policy_ft")]
    return sorted(own, key=lambda each: (each.__module__, each.__name__))


def errors_of(model: type[BaseModel], field: str):
    for value in WRONG:
        try:
            model.model_validate({field: value})
        except ValidationError as error:
            yield error.errors(include_url=False)


@pytest.mark.slow
def test_every_field_refuses_every_kind_of_value_in_our_words():
    pydantic_said, told = set(), set()
    for model in models():
        for field in model.model_fields:
            for details in errors_of(model, field):
                pydantic_said |= {(d["type"], d["msg"]) for d in details if d["type"] not in OURS}
                told.update(refusals(details, model, dotted))
    assert len({kind for kind, _ in pydantic_said}) > 25
    assert [fault for fault in told if PYDANTICS.search(fault)] == []
    repeated = {said for _, said in pydantic_said if any(said in fault for fault in told)}
    assert repeated == set()
    assert all(re.search(r": found .*; expected .*\. ", fault, re.DOTALL) for fault in told)


@pytest.mark.parametrize("part", ["conventions", "layout"])
def test_every_key_of_a_sidecar_refuses_in_our_words(part, tmp_path):
    path = tmp_path / "a.hdf5.conventions.yaml"
    faults = []
    for field in (Conventions if part == "conventions" else Layout).model_fields:
        for value in WRONG[:-1]:
            try:
                path.write_text(yaml.safe_dump({part: {field: value}}))
            except yaml.representer.RepresenterError:
                continue  # no YAML says that
            content = yaml.safe_load(path.read_text())[part]
            try:
                if part == "layout":
                    layout_of(read_sidecar(path), None)
                else:
                    conventions_from(str(path), content)
            except UserError as error:
                faults += error.faults
    assert len(faults) > 200
    assert [fault for fault in faults if PYDANTICS.search(fault)] == []
    assert all(fault.startswith(str(path)) for fault in faults)


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    yield path


@pytest.mark.slow
def test_every_setting_of_a_run_refuses_in_our_words():
    run = "configs/own_hdf5.yaml"
    faults = []
    for path in filter(None, leaves(yaml.safe_load(Path(run).read_text()))):
        for value in ("null", "true", "-1", "x", "[]", "[1]", "{}", "{kind: no}", "[{kind: no}]"):
            try:
                load_config(run, [f"{'.'.join(path)}={value}"])
            except UserError as error:
                faults += error.faults
    assert len(faults) > 200
    assert [fault for fault in faults if PYDANTICS.search(fault)] == []


def test_a_keep_file_that_is_none_is_told_in_our_words(tmp_path):
    path = tmp_path / "keep.json"
    for text in ("{", "[]", '{"episodes": 3}', '{"fingerprint": 1, "episodes": {"a": [[1]]}}'):
        path.write_text(text)
        with pytest.raises(UserError) as caught:
            read_keep(path)
        assert not PYDANTICS.search(str(caught.value))
        assert "Make the file again with robot-data filter or split." in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["demo_1", "demo_2"], "['demo_1', 'demo_2']"),
        ([f"demo_{i}" for i in range(99)], "['demo_0', 'demo_1', 'demo_2', 'demo_3', ... 95 more]"),
        (("a" * 200,), "(... 1 entries)"),
        ({f"key_{i}": i for i in range(9)}, "{'key_0': 0, 'key_1': 1, 'key_2': 2, ... 6 more}"),
        ("b" * 100, f"'{'b' * 40}'... (100 characters)"),
    ],
)
def test_a_long_value_is_cut_between_its_entries_and_the_rest_is_counted(value, text):
    assert shown(value, 40) == text
