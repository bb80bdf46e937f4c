"""Launchers that ask for what a run does not do, or decides itself, are refused."""

import pytest

from policy_ft.errors import UserError
from policy_ft.training.launch import start_accelerator


def test_processes_that_do_not_train_together_are_refused(monkeypatch):
    start_accelerator()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="accelerate-launch --multi_gpu --num_processes N"):
        start_accelerator()


@pytest.mark.parametrize(
    ("name", "value", "setting"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "training.precision"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "training.accumulation_steps"),
    ],
)
def test_settings_of_the_launcher_that_a_run_decides_are_refused(monkeypatch, name, value, setting):
    monkeypatch.setenv(name, value)
    with pytest.raises(
        UserError, match=f"Leave it out of the launcher's arguments and set {setting}"
    ):
        start_accelerator()
