"""A process with one environment in it, as seen by whoever started it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from data_tools.errors import UserError, describe
from eval_envs.messages import Begin, BrokenStreamError, Execute, Made, Message, receive, send
from eval_envs.playing import Lost, Stage

PROGRAM = Path(__file__).with_name("worker_start.py")
DYING_S = 5.0
_MOST_TOLD = 8000


def require_interpreter(python: Path) -> Path:
    """The absolute path of a Python interpreter; UserError when nothing there can be run."""
    if not os.access(python, os.X_OK) or python.is_dir():
        found = "a folder" if python.is_dir() else "no program" if python.exists() else "nothing"
        expected, remedy = "a Python interpreter", "Name one, e.g. maniskill_venv/bin/python."
        raise UserError(describe(f"interpreter {str(python)!r}", found, expected, remedy))
    return python.absolute()


class WorkerProcess:
    """One process, from its start to its end.

    What it prints is kept, and told only of an episode that is lost. It ends with this process,
    also when that is killed, and what the simulator has started ends with it.

    Args:
        python: its interpreter; None for this one, with all that can be imported here.
        time_limit_s: seconds after which a message that has begun must be there.

    Attributes:
        connection: readable when there is an answer, or when the process is gone.
    """

    def __init__(self, python: Path | None, time_limit_s: float) -> None:
        self.connection, theirs = socket.socketpair()
        self.connection.settimeout(time_limit_s)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115, closed in `end`
        self._said_before = 0
        self._stage: Stage = "make"
        with theirs:
            self._process = subprocess.Popen(
                [str(python or sys.executable), str(PROGRAM), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=subprocess.STDOUT,
                env=_environment(python),
                start_new_session=True,
            )

    def ask(self, message: Begin | Execute) -> None:
        """Send it; whether the process still lives is seen when the answer is due."""
        if isinstance(message, Execute):
            self._stage = "step"
        elif self._stage != "make":  # what it said in starting belongs to its first episode
            self._said_before = os.fstat(self._said.fileno()).st_size
            self._stage = "make"
        try:
            send(self.connection, message)
        except (BrokenPipeError, ConnectionResetError):
            self.connection.shutdown(socket.SHUT_RD)  # the answer is then its end

    def answer(self) -> Message:
        """What it says; `Lost` when it has died, says nothing that can be read, or stops midway."""
        try:
            answer = receive(self.connection)
        except TimeoutError:
            return self.stopped("half an answer and then none")
        except BrokenStreamError as error:
            return self._ended(f" ({error})")
        except ConnectionError:  # it is gone without having read all that was sent
            answer = None
        if answer is None:
            return self._ended()
        if isinstance(answer, Made):
            self._stage = "reset"
        return answer

    def stopped(self, found: str) -> Lost:
        """The loss of an episode whose simulator hangs; it is made to say where, and killed."""
        self._process.send_signal(signal.SIGABRT)  # faulthandler then tells every thread's place
        self._wait()
        return Lost(self._stage, found, self._told())

    def finish(self) -> None:
        """Let it close its environment and end by itself."""
        try:
            self.connection.shutdown(socket.SHUT_WR)
        except OSError:
            self._process.kill()  # it is gone already, or as good as gone

    def end(self, patience_s: float = DYING_S) -> None:
        """Wait a little for its end, kill what is left of it, and free what it held here."""
        self._wait(patience_s)
        self.connection.close()
        self._said.close()

    def _ended(self, after: str = "") -> Lost:
        code = self._wait()
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        return Lost(self._stage, f"a process that ended with {how}{after}", self._told())

    def _wait(self, patience_s: float = DYING_S) -> int:
        try:
            self._process.wait(max(patience_s, 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
        code = self._process.wait()
        with suppress(ProcessLookupError):  # as a rule the simulator has started nothing
            os.killpg(self._process.pid, signal.SIGKILL)
        return code

    def _told(self) -> str:
        """What it has printed since the episode was begun, the end of it."""
        size = os.fstat(self._said.fileno()).st_size
        start = max(self._said_before, size - _MOST_TOLD)
        text = os.pread(self._said.fileno(), size - start, start)
        return text.decode(errors="replace").strip()


def _environment(python: Path | None) -> dict[str, str]:
    """Variables of the process: what can be imported here can be there, if it is the same Python.

    Several environments work side by side, so none of them takes more than one thread for sums
    unless it is told to.
    """
    variables = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONSAFEPATH": "1"}
    if python is None:
        variables["PYTHONPATH"] = os.pathsep.join(place or os.getcwd() for place in sys.path)
    return variables
