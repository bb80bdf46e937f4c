"""The record of a run."""

import json

import pytest

from policy_ft.errors import UserError
from policy_ft.training import metrics
from policy_ft.training.metrics import MetricsLog, read_metrics, require_tensorboard
from policy_ft.training.progress import Stopwatch, groups_table, status_line
from policy_ft.tuning.groups import GroupRow


def test_every_record_is_one_line_of_json_visible_at_once(tmp_path):
    with MetricsLog(tmp_path, 0, tensorboard=False) as log:
        log.write(10, "train", {"loss": 0.5, "lr": 1e-4})
        line = (tmp_path / "metrics.jsonl").read_text()
        assert json.loads(line) == {"train_step": 10, "kind": "train", "loss": 0.5, "lr": 1e-4}


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path):
    with MetricsLog(tmp_path, 0, tensorboard=False) as log:
        for step in (10, 20, 30):
            log.write(step, "train", {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"train_step": 31, "ki')  # a kill in the middle of a line
    with MetricsLog(tmp_path, 20, tensorboard=False) as log:
        log.write(25, "train", {"loss": 1.0})
    assert [row["train_step"] for row in read_metrics(tmp_path)] == [10, 20, 25]


def test_a_step_that_was_not_assessed_loses_what_was_measured_of_it(tmp_path):
    with MetricsLog(tmp_path, 0, tensorboard=False) as log:
        for step in (10, 20):
            for kind in ("train", "validation", "rollout"):
                log.write(step, kind, {"loss": 1.0})
    with MetricsLog(tmp_path, 20, tensorboard=False, is_assessed=False):
        pass
    kinds = [(row["train_step"], row["kind"]) for row in read_metrics(tmp_path)]
    assert kinds == [(10, "train"), (10, "validation"), (10, "rollout"), (20, "train")]


def test_a_number_that_json_cannot_hold_is_refused(tmp_path):
    with (
        MetricsLog(tmp_path, 0, tensorboard=False) as log,
        pytest.raises(ValueError, match="'loss' of step 3: found nan"),
    ):
        log.write(3, "train", {"loss": float("nan")})


def test_tensorboard_events_are_written_when_asked_for(tmp_path):
    pytest.importorskip("tensorboard")
    with MetricsLog(tmp_path, 0, tensorboard=True) as log:
        log.write(1, "train", {"loss": 0.5})
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_tensorboard_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'policy_ft\[track\]'"):
        require_tensorboard()


def test_the_stopwatch_splits_time_and_starts_anew_each_lap(monkeypatch):
    """Two steps of 1 s data, 2 s encode and 5 s step: 8 samples in 8 s are 1 a second."""
    times = iter([0, 1, 1, 3, 3, 8, 8, 9, 9, 11, 11, 16, 16, 16.5])
    monkeypatch.setattr("policy_ft.training.progress.time.perf_counter", lambda: next(times))
    watch = Stopwatch()
    for _ in range(2):
        for part in ("data", "encode", "step"):
            with watch.measure(part):
                pass
    lap = watch.lap(batch_size=8)
    assert lap == {"samples_per_s": 1.0, "data_s": 1.0, "encode_s": 2.0, "step_s": 5.0}
    with watch.measure("step"):
        pass
    assert watch.lap(batch_size=8)["step_s"] == 0.5


def test_the_status_shows_where_the_time_went():
    values = {"loss": 0.5, "samples_per_s": 10.0, "data_s": 1.0, "encode_s": 1.0, "step_s": 8.0}
    assert status_line(values) == "loss 0.5, 10 samples/s (data 10 %, encode 10 %, step 80 %)"


def test_the_table_shows_rate_decay_and_state_of_every_group():
    rows = [
        GroupRow("vision", "vision", "frozen", 4, 1000, (0.0, 0.0), 0.0, 0),
        GroupRow("language", "language", "trained", 5, 1500, (1e-4, 1e-3), 0.0, 0),
        GroupRow("expert", "*", "trained", 6, 2000, (1e-3, 1e-3), 0.1, 3),
    ]
    columns = [list(column.cells) for column in groups_table(rows).columns]
    assert list(zip(*columns, strict=True)) == [
        ("vision", "vision", "4", "1,000", "-", "-", "frozen"),
        ("language", "language", "5", "1,500", "0.0001 to 0.001", "none (0/5)", "trained"),
        ("expert", "*", "6", "2,000", "0.001", "0.1 (3/6)", "trained"),
    ]
