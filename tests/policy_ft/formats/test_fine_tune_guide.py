"""docs/fine-tune-pi0.md, walked from the checkpoint to an evaluated policy with a small pi0."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from eval_envs.collect import collect
from eval_envs.episodes import seeded_suite
from eval_envs.pool import LocalPool
from policy_ft import assemble
from policy_ft.config.config_file import load_config
from policy_ft.evaluation.rollout import evaluate
from policy_ft.execution.executor import RecedingHorizon
from policy_ft.formats.conversion.convert import convert
from policy_ft.formats.embodiments import load_embodiment
from policy_ft.formats.load import load_policy

GUIDE = Path(__file__).parents[3] / "docs" / "fine-tune-pi0.md"
SHORT = (
    "data.num_workers=0",
    "training.steps=1",
    "training.batch_size=2",
    "training.accumulation_steps=1",
    "training.num_threads=1",
    "training.precision=fp32",
    "validation.num_windows=1",
    "validation.num_noise=1",
    "validation.times=[0.5]",
    "evaluation.episodes=1",
)


def blocks(language: str) -> list[str]:
    fence = rf"^```{language}\n(.*?)^```"
    return re.findall(fence, GUIDE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, openpi_directory: Callable[..., Path]
) -> Path:
    """A directory with the files of the guide, where its commands are run."""
    monkeypatch.chdir(tmp_path)
    embodiment, run = blocks("yaml")
    (tmp_path / "arm.yaml").write_text(embodiment)
    (tmp_path / "pi0_arm.yaml").write_text(run)
    openpi_directory(tmp_path / "checkpoints/pi0_base", "pi0")
    (tmp_path / "data").mkdir()
    collect(tmp_path / "data/push.hdf5", task="push", num_episodes=3, seed=0, noise=1.0)
    return tmp_path


@pytest.fixture
def with_tokenizer(arm: Path, tokenizer_file: Path) -> Path:
    place = arm / "checkpoints/paligemma_tokenizer"
    place.mkdir()
    (place / "tokenizer.json").write_text(tokenizer_file.read_text())
    return arm


def test_the_guide_leads_from_a_checkpoint_to_an_evaluated_policy(with_tokenizer: Path) -> None:
    config = load_config(with_tokenizer / "pi0_arm.yaml", SHORT)
    assert assemble.check(config) == []
    best = assemble.train(config).best_checkpoint

    policy = load_policy(best)
    assert policy.config.family == "pi0"
    assert policy.chunk_shape == (10, 32)
    assert policy.conventions.camera_names == ("front", "wrist")
    suite = seeded_suite("eval_envs:Tabletop-v0", {"task": "push"}, range(1))
    with LocalPool() as pool:
        result = evaluate(
            policy, suite, pool=pool, executor=RecedingHorizon(10), num_sampling_steps=1
        )
    assert len(result.episodes) == 1

    exports = re.findall(
        r"^policy-ft convert \S+ --to (\S+) (\S+)$", GUIDE.read_text(), re.MULTILINE
    )
    assert len(exports) == 2
    for to, target in exports:
        convert(best, to, target)
        for robot in ("arm.yaml", f"{target}/embodiment.yaml"):
            assert load_policy(target, embodiment=robot).chunk_shape == (10, 32)
    assert 'embodiment="exported/openpi/embodiment.yaml"' in blocks("python")[-1]


def test_data_of_another_robot_is_refused_with_the_column(with_tokenizer: Path) -> None:
    text = (with_tokenizer / "arm.yaml").read_text().replace("control_hz: 10", "control_hz: 15")
    (with_tokenizer / "arm.yaml").write_text(text)
    (fault,) = assemble.check(load_config(with_tokenizer / "pi0_arm.yaml", SHORT))
    assert "control_hz: found 10.0; expected 15.0 as embodiment arm.yaml declares" in fault


def test_a_checkpoint_without_a_tokenizer_says_where_to_get_one(arm: Path) -> None:
    (fault,) = assemble.check(
        load_config(arm / "pi0_arm.yaml", [*SHORT, "policy.tokenizer=checkpoint"])
    )
    assert "google/paligemma-3b-pt-224" in fault


def test_the_embodiment_of_the_guide_is_one(arm: Path) -> None:
    assert load_embodiment(str(arm / "arm.yaml")).cameras == ("front", "wrist", None)
