"""Published statistics keep their own numbers; a column that never moved in them is told."""

import json

import pytest
from typer.testing import CliRunner

import policy_ft
from policy_ft import assemble
from policy_ft.cli import app
from policy_ft.config.run import RunConfig


@pytest.fixture
def locked(openpi_directory, tmp_path):
    """A checkpoint of pi0 in whose statistics the column b never moved."""
    path = openpi_directory(tmp_path / "pi0", "pi0")
    file = path / "assets/trossen/norm_stats.json"
    document = json.loads(file.read_text())
    for stats in document["norm_stats"].values():
        stats["std"][1] = 2e-7
        stats["q01"][1] = stats["q99"][1] = stats["mean"][1] = 0.7
    file.write_text(json.dumps(document))
    return path


def test_a_locked_column_of_published_statistics_is_divided_as_published_and_told(
    locked, arm, tokenizer_file
):
    given = {"embodiment": arm, "tokenizer": tokenizer_file}
    transforms = policy_ft.load_policy(locked, **given).transforms
    assert transforms.config.still_columns == "divide"
    assert transforms.action_dim_mask[:7].all()
    how = transforms.state_scaling
    assert how.normalize([0.71 if i == 1 else 0.0 for i in range(7)])[1] == pytest.approx(
        0.01 / 1.2e-6
    )
    shown = CliRunner().invoke(
        app, ["show", str(locked), "--embodiment", arm, "--tokenizer", str(tokenizer_file)]
    )
    words = " ".join(shown.stdout.split())
    assert "action columns that never move: b (0.7); commanded within their noise" in words
    assert "state columns that never move: b (0.7); what the robot reads beside that is" in words
    assert "multiplied by 8.33e+05 for the model" in words
    assert "still_columns is divide; hold treats these columns otherwise" in words


def test_a_locked_column_of_published_statistics_is_held_where_the_settings_say_so(
    locked, arm, tokenizer_file, episodes
):
    policy = {"kind": "pretrained", "path": str(locked), "still_columns": "hold"}
    policy |= {"embodiment": arm, "tokenizer": str(tokenizer_file)}
    config = RunConfig.model_validate(
        {
            "output_dir": "runs/none",
            "policy": policy,
            "data": {"path": "none.hdf5"},
            "training": {"steps": 1, "batch_size": 1},
        }
    )
    transforms = assemble.build_policy(config, episodes).transforms
    assert transforms.action_scaling.is_held.tolist() == [i == 1 for i in range(7)]
    assert transforms.state_scaling.normalize([5.0] * 7)[1] == 0
