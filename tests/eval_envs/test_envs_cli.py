import sys
from pathlib import Path

import av
import pytest

from data_tools.formats.reader import open_dataset
from eval_envs import cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["eval-envs", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_list_says_what_each_environment_declares(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "list") == 0
    shown = capsys.readouterr().out
    assert "eval_envs:Tabletop-v0" in shown
    assert "gripper_opening (m)" in shown


def test_check_passes_the_default_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "check") == 0


def test_collect_writes_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "demos.hdf5"
    assert run(monkeypatch, "collect", str(out), "--task", "reach", "-n", "3") == 0
    assert len(open_dataset(out)) == 3


def test_play_films_both_cameras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "play.mp4"
    assert run(monkeypatch, "play", "--task", "reach", "-n", "1", "-o", str(out)) == 0
    with av.open(str(out)) as video:
        frames = list(video.decode(video=0))
    assert (frames[0].width, frames[0].height) == (2 * 64 * 4, 64 * 4)
    assert len(frames) >= 2


def test_expert_prints_success_with_its_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # 10 of 10 successes: the Wilson interval starts at 72.2 %
    assert run(monkeypatch, "expert", "--task", "reach", "-n", "10") == 0
    assert "reach: success 100.0 % [72.2, 100.0], n = 10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("expert", "--task", "rech"), "did you mean 'reach'?"),
        (("expert", "--env", "eval_envs:Tabletop-v9"), "Tabletop"),
        (("collect", "exists.hdf5", "-n", "1"), "Choose another name"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    remedy: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exists.hdf5").touch()
    assert run(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert remedy in captured.err
    assert "Traceback" not in captured.err


def test_play_overwrites_nothing_but_films(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "demos.hdf5"
    victim.write_bytes(b"demonstrations")
    assert run(monkeypatch, "play", "-o", str(victim), "-n", "1") == 2
    assert "Name it .mp4" in capsys.readouterr().err
    assert victim.read_bytes() == b"demonstrations"


@pytest.mark.parametrize("command", ["collect x.hdf5 --env", "expert --env", "check"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "nope:Nothing-v0"])
def test_an_environment_that_is_not_ours_is_refused_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    env_id: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *command.split(), env_id) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "x.hdf5").exists()
