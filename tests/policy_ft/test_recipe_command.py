"""`policy-ft recipe`: every run of configs/ travels with the package and is printed whole."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from policy_ft.cli import app
from policy_ft.commands.recipe import RECIPES, read_recipe
from policy_ft.config.config_file import load_config
from policy_ft.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def test_every_configuration_is_a_recipe_with_a_purpose_and_hardware():
    listed = CliRunner().invoke(app, ["recipe"], env={"COLUMNS": "200"}).output
    for name in NAMES:
        assert name in listed
        text = (RECIPES / f"{name}.yaml").read_text()
        assert text == (CONFIGS / f"{name}.yaml").read_text()
        assert "# Purpose: " in text
        assert "# Hardware: " in text


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_recipe_is_the_same_run_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["recipe", name])
    Path("run.yaml").write_text(result.output)
    here, there = load_config("run.yaml"), load_config(CONFIGS / f"{name}.yaml")
    same = here.model_dump()
    path = getattr(here.policy, "path", "")
    if "tabletop_base" in path:
        assert Path(path).is_dir()
        same["policy"]["path"] = there.policy.path
    assert same == there.model_dump()


def test_a_recipe_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"found 'pi0_driod'; .*did you mean 'pi0_droid'"):
        read_recipe("pi0_driod")
