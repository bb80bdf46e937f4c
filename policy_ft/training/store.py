"""A run's place on the disk: its lock, settings, metrics and checkpoints."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from policy_ft.checkpoints.atomic import write_atomically
from policy_ft.config.config_file import dump_config
from policy_ft.errors import describe, raise_faults
from policy_ft.training.directory import CHECKPOINTS, CONFIG_FILE, remove_temporaries, tidy
from policy_ft.training.metrics import MetricsLog
from policy_ft.training.run_lock import lock_output_dir
from policy_ft.training.state import RunIdentity, RunState, restore, save_checkpoint


@dataclass(frozen=True)
class Store:
    """Where a run is kept, on the first process for all of them.

    Attributes:
        identity: whose output_dir it is, and what a resumed run must agree with.
        accelerator: of this process.
        start: the checkpoint that the run goes on from; None for a new run.
        resume: whether it was asked to go on.
    """

    identity: RunIdentity
    accelerator: Accelerator
    start: Path | None = None
    resume: bool = False

    @property
    def directory(self) -> Path:
        """The output directory."""
        return Path(self.identity.config.output_dir)

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self.directory / CHECKPOINTS

    @contextmanager
    def owned(self) -> Iterator[list[str]]:
        """Keeps other runs out of the directory; gives what a person should know of it.

        Raises:
            UserError: another run is at work there, or nothing can be written there.
        """
        remarks = []
        if self.resume and self.start is None:
            remarks.append(f"{self.checkpoints}: no checkpoint to resume; starting at step 0")
        if not self.accelerator.is_main_process:
            yield remarks
            return
        with lock_output_dir(self.directory) as is_locked:
            unlocked = f"{self.directory}: this disk keeps no locks; let no other run write there"
            yield remarks if is_locked else [unlocked, *remarks]

    def begin(self, state: RunState) -> None:
        """The state of the checkpoint to go on from, and a directory ready for more.

        Raises:
            UserError: the run differs from the one that began there, or a process that is to write
                a part of the state does not see the directory.
        """
        if self.start is not None:
            restore(state, self.identity, self.start)
        if self.accelerator.is_main_process:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            remove_temporaries(self.checkpoints)
            if self.start is not None:
                tidy(self.checkpoints, self.identity.config.training.keep, state.best_steps)
            write_atomically(self.directory / CONFIG_FILE, dump_config(self.identity.config))
        self.accelerator.wait_for_everyone()
        if self.identity.config.training.shard and self.accelerator.num_processes > 1:
            raise_faults(gather_object(self._unseen()))

    def _unseen(self) -> list[str]:
        """The fault of a process whose disk is not the first one's."""
        if self.checkpoints.is_dir():
            return []
        where = f"process {self.accelerator.process_index}, {self.checkpoints.absolute()}"
        expected = "the one that the first process made, for each writes its part of the state"
        remedy = "Put output_dir on a disk that all machines see, under one path."
        return [describe(where, "no such directory", expected, remedy)]

    def save(self, state: RunState) -> None:
        """A checkpoint of this step, or what measuring has found of it since."""
        save_checkpoint(state, self.identity, self.checkpoints)
        self.accelerator.wait_for_everyone()

    def metrics(self, state: RunState) -> AbstractContextManager[MetricsLog | None]:
        """The record of the run on the first process, None on the others."""
        if not self.accelerator.is_main_process:
            return nullcontext()
        return MetricsLog(
            self.directory,
            state.train_step,
            tensorboard=self.identity.config.training.tensorboard,
            is_assessed=state.is_assessed,
        )
