"""Environments side by side, in this process or each in a process of its own.

A pool has `num_envs` places. An episode is begun in a place and its actions are executed there; all
that was asked of the places is then answered, each in its turn. Whatever a simulator does, raises,
crashes or hangs, costs the episode in its place (`Lost`) and nothing else.
"""

import selectors
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

from data_tools.errors import UserError, describe
from eval_envs.episodes import EpisodeSpec
from eval_envs.messages import Begin, Execute, Made, Message, Refused
from eval_envs.playing import EpisodePlayer, FloatArray, Look, Lost, Wrapper
from eval_envs.worker_process import DYING_S, WorkerProcess, require_interpreter

TIME_LIMIT_S = 300.0


class Pool(Protocol):
    """Places for episodes. Of each place one thing is asked at a time."""

    @property
    def num_envs(self) -> int:
        """The number of places, counted from 0."""

    def begin(self, place: int, spec: EpisodeSpec, *, look_at_end: bool = False) -> None:
        """Ask for an episode to be begun.

        Args:
            place: where.
            spec: the episode.
            look_at_end: whether its last look shall show the end: no policy acts on that.
        """

    def execute(self, place: int, actions: FloatArray) -> None:
        """Ask for float32[n, a] to be executed in order, until the episode ends."""

    def answers(self) -> Iterator[tuple[int, Look | Lost]]:
        """Each place with its answer, until nothing is left that was asked, also meanwhile.

        Raises:
            UserError: an environment that cannot be made or breaks its contract.
        """


class LocalPool:
    """Environments in this process, worked one after the other; a crash of one is a crash of all.

    Nothing is copied and nothing has to start: the choice for quick, well-behaved environments.

    Args:
        num_envs: places, at least 1.
        wrappers: put around every environment in this order, e.g. `eval_envs.perturb`'s controls.
    """

    def __init__(self, num_envs: int = 1, wrappers: Sequence[Wrapper] = ()) -> None:
        _require_places(num_envs)
        self.num_envs = num_envs
        self._players = [EpisodePlayer(wrappers) for _ in range(num_envs)]
        self._asked: dict[int, Begin | Execute] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for player in self._players:
            player.close()

    def begin(self, place: int, spec: EpisodeSpec, *, look_at_end: bool = False) -> None:
        """Ask for an episode to be begun."""
        self._asked[place] = Begin(spec, look_at_end)

    def execute(self, place: int, actions: FloatArray) -> None:
        """Ask for float32[n, a] to be executed in order, until the episode ends."""
        self._asked[place] = Execute(actions)

    def answers(self) -> Iterator[tuple[int, Look | Lost]]:
        """Each place with its answer, in the order of asking."""
        while self._asked:
            place = next(iter(self._asked))
            yield place, self._answer(self._players[place], self._asked.pop(place))

    def _answer(self, player: EpisodePlayer, asked: Begin | Execute) -> Look | Lost:
        try:
            if isinstance(asked, Execute):
                return player.execute(asked.actions)
            player.make(asked.spec, asked.look_at_end)
            return player.reset(asked.spec.seed)
        except UserError:
            raise
        except Exception as error:  # a simulator may raise anything
            return player.lose(error)


class ProcessPool:
    """Environments each in a process of its own, of this interpreter or of another one.

    Processes start when an episode is begun in their place, and again after one was lost there.

    Args:
        num_envs: places, at least 1.
        python: interpreter of the processes, e.g. of a simulator's own virtual environment, which
            has to have numpy, gymnasium, pydantic and the simulator; None for this one.
        time_limit_s: seconds within which an environment has to be made and reset, and within which
            it has to execute a chunk; afterwards it counts as hanging and is killed.

    Raises:
        UserError: num_envs below 1, a time limit that is none, or no such interpreter.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        python: Path | None = None,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        _require_places(num_envs)
        if not 0 < time_limit_s <= threading.TIMEOUT_MAX:
            found, remedy = repr(time_limit_s), "Give the seconds that an answer may take."
            raise UserError(describe("time limit", found, "a number of seconds above 0", remedy))
        self.num_envs = num_envs
        self._python = None if python is None else require_interpreter(python)
        self._limit_s = time_limit_s
        self._workers: dict[int, WorkerProcess] = {}
        self._deadlines: dict[int, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self._workers.values():
            worker.finish()
        patient_until = time.monotonic() + DYING_S
        for worker in self._workers.values():
            worker.end(patient_until - time.monotonic())
        self._workers.clear()
        self._deadlines.clear()

    def begin(self, place: int, spec: EpisodeSpec, *, look_at_end: bool = False) -> None:
        """Ask for an episode to be begun, in the process of this place or in a new one."""
        if place not in self._workers:
            self._workers[place] = WorkerProcess(self._python, self._limit_s)
        self._ask(place, Begin(spec, look_at_end))

    def execute(self, place: int, actions: FloatArray) -> None:
        """Ask for float32[n, a] to be executed in order, until the episode ends."""
        self._ask(place, Execute(actions))

    def answers(self) -> Iterator[tuple[int, Look | Lost]]:
        """Each place with its answer, as they come."""
        while self._deadlines:
            asked_at = time.monotonic()
            ready = self._ready()
            for place in ready:
                answer = self._workers[place].answer()
                if isinstance(answer, Made):
                    self._deadlines[place] = time.monotonic() + self._limit_s
                else:
                    yield self._taken(place, answer)
            late = [at for at, due in self._deadlines.items() if due <= asked_at]
            for place in set(late) - set(ready):
                found = f"no answer within {self._limit_s:g} s"
                yield self._taken(place, self._workers[place].stopped(found))

    def _ask(self, place: int, message: Begin | Execute) -> None:
        self._workers[place].ask(message)
        self._deadlines[place] = time.monotonic() + self._limit_s

    def _ready(self) -> list[int]:
        """Places that have something to say, as soon as there are some or a time limit is over."""
        with selectors.DefaultSelector() as selector:
            for place in self._deadlines:
                selector.register(self._workers[place].connection, selectors.EVENT_READ, place)
            left = min(self._deadlines.values()) - time.monotonic()
            return [key.data for key, _ in selector.select(max(left, 0.0))]

    def _taken(self, place: int, answer: Message) -> tuple[int, Look | Lost]:
        """A place with its answer; the process of a lost episode ends with it."""
        del self._deadlines[place]
        match answer:
            case Refused(faults):
                raise UserError(faults)
            case Lost():
                self._workers[place].finish()
                self._workers.pop(place).end()
                return place, answer
            case Look():
                return place, answer
        raise TypeError(f"found the answer {answer!r}; expected a Look")


def _require_places(num_envs: int) -> None:
    if num_envs < 1:
        found, remedy = str(num_envs), "Give a positive number."
        raise UserError(describe("num_envs", found, "at least 1", remedy))
