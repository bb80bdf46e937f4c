"""This end of the process that runs LeRobot's pi0 in its own environment."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from peers.measure import Measured
from policy_ft.config.model import ModelConfig

ENVIRONMENT = Path.home() / ".cache/policy_ft/peers/lerobot"
BENCHMARKS = Path(__file__).parent.parent


class LeRobot:
    """LeRobot 0.4.4's pi0, measured in a child process that sleeps while others run.

    Args:
        environment: what peers/lerobot.sh made.
        device: where the model is put.
    """

    name = "lerobot 0.4.4"

    def __init__(self, environment: Path, device: str) -> None:
        self.device = device
        self._child = subprocess.Popen(
            [environment / "bin/python", "-m", "peers.lerobot_child"],
            cwd=BENCHMARKS,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def load(self, config: ModelConfig, weights: Path) -> None:
        """Builds the model in the child."""
        self._ask(do="load", model=config.model_dump(), weights=str(weights), device=self.device)

    def free(self) -> None:
        """Drops the model in the child."""
        self._ask(do="free")

    def train(self, batch: Path) -> Measured:
        """Forward and backward."""
        return Measured(**self._ask(do="train", batch=str(batch)))

    def sample(self, batch: Path) -> Measured:
        """Ten steps of sampling."""
        return Measured(**self._ask(do="sample", batch=str(batch)))

    def close(self) -> None:
        """Ends the child."""
        self._child.communicate()

    def _ask(self, **request: Any) -> dict[str, Any]:
        if self._child.stdin is None or self._child.stdout is None:
            raise ValueError(f"{self._child.args!r}: started without pipes.")
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError(
                f"peers/lerobot_child.py: ended with exit status {self._child.wait()} at "
                f"{request['do']!r}; expected an answer. Its own message is above."
            )
        return json.loads(answer)
