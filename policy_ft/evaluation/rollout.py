"""Running a policy in environments and writing down, episode by episode, what came of it."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from accelerate.utils import gather_object

from data_tools.conventions import Conventions, compare
from data_tools.episode import Observation
from eval_envs.episodes import EpisodeSpec, require_distinct
from eval_envs.making import Environment
from eval_envs.playing import Look, Lost, declared_conventions
from eval_envs.pool import Pool
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.evaluation.episode_log import EpisodeLog
from policy_ft.evaluation.results import EpisodeRecord, EvaluationResult
from policy_ft.execution.chunks import ChunkPolicy, plan_chunks
from policy_ft.execution.executor import Executor
from policy_ft.models.solvers import Euler

FloatArray = npt.NDArray[np.float32]
Played = tuple[EpisodeRecord, FloatArray | None]


class Ranks(Protocol):
    """Processes that share an evaluation, e.g. an `Accelerator` or its `PartialState`."""

    @property
    def process_index(self) -> int:
        """The rank of this one, from 0."""

    @property
    def num_processes(self) -> int:
        """How many there are."""


class _OneProcess:
    process_index, num_processes = 0, 1


ALONE: Ranks = _OneProcess()
"""No other process shares the evaluation."""


def evaluate(
    policy: ChunkPolicy,
    suite: Sequence[EpisodeSpec],
    *,
    pool: Pool,
    executor: Executor,
    num_sampling_steps: int,
    log: EpisodeLog | None = None,
    ranks: Ranks = ALONE,
    on_episode: Callable[[EpisodeRecord], None] = lambda record: None,
) -> EvaluationResult:
    """One record for each episode of the suite, in its order.

    The environments share each call of the policy; images are rendered for those calls and no
    other. Episodes are dealt to ranks and to the places of their pools before the run. The noise of
    a chunk depends on the episode's seed and the chunk's number alone, so neither the number of
    environments nor of ranks changes an episode, but as far as sums of another batch size differ in
    their last bit. An episode whose simulator raises, dies or hangs is recorded as lost, which is
    no success, and costs no other.

    Args:
        policy: predicts chunks in the units its conventions declare.
        suite: distinct episodes.
        pool: where they are played.
        executor: which actions of the chunks are executed; each place of the pool has its own copy.
        num_sampling_steps: Euler steps of the flow.
        log: where records are written as episodes end, and those of before are read; None keeps
            them in memory alone.
        ranks: processes that share the suite; each gets the whole result.
        on_episode: called with each record as its episode ends here, and with those of before.

    Raises:
        UserError: on every rank alike: a suite that is empty or holds an episode twice, an
            environment that cannot be made, breaks its contract or does not fit the policy, a log
            of another evaluation, or a suite of which every episode was lost.
    """
    start = time.perf_counter()
    require_distinct(suite)

    def keep(record: EpisodeRecord) -> None:
        if log is not None:
            log.add(record)
        on_episode(record)

    known = _on_every_rank(ranks, lambda: _run_before(log, suite, ranks))
    for record, _ in known.values():
        on_episode(record)
    left = [place for place in range(len(suite)) if place not in known]
    share = {place: suite[place] for place in left[ranks.process_index :: ranks.num_processes]}
    run = _Run(policy, pool, executor, num_sampling_steps)
    done = known | _on_every_rank(ranks, lambda: dict(run.play(share, keep)))
    result = run.result([done[place] for place in range(len(suite))], time.perf_counter() - start)
    if log is not None and ranks.process_index == 0:
        log.end(result.episodes)
    _require_some_played(result)
    return result


def _run_before(
    log: EpisodeLog | None, suite: Sequence[EpisodeSpec], ranks: Ranks
) -> dict[int, Played]:
    """What the log holds; it is the first rank's to read."""
    if log is None or ranks.process_index > 0:
        return {}
    return {place: (record, None) for place, record in log.begin(suite).items()}


def _on_every_rank(ranks: Ranks, work: Callable[[], dict[int, Played]]) -> dict[int, Played]:
    """What the work of all ranks comes to; the faults of any of them are raised by each."""
    if ranks.num_processes == 1:
        return work()
    found, faults = dict[int, Played](), list[str]()
    try:
        found = work()
    except UserError as error:
        faults = list(error.faults)
    raise_faults(gather_object(faults))
    return dict(gather_object(list(found.items())))


def _require_some_played(result: EvaluationResult) -> None:
    first = result.episodes[0].lost
    if first is not None and len(result.lost) == len(result.episodes):
        found = f"all {len(result.lost)} episodes lost, the first as: {first.error}"
        remedy = f"Mend the simulator and evaluate anew. {first.words}"
        expected = "a simulator that brings some to an end"
        where = f"environment {result.episodes[0].env_id}"
        raise UserError(describe(where, found, expected, remedy))


def require_agreement(policy: ChunkPolicy, env: Environment, env_id: str) -> None:
    """UserError listing every disagreement between what environment and policy declare."""
    _require_agreement(policy, declared_conventions(env, env_id), env_id)


def _require_agreement(policy: ChunkPolicy, declared: Conventions, env_id: str) -> None:
    mismatches = compare(
        declared,
        policy.conventions,
        found_name=f"environment {env_id}",
        expected_name="the policy",
        may_leave_open=True,
    )
    sizes = _size_faults(policy.conventions, declared, env_id)
    raise_faults([*(str(mismatch) for mismatch in mismatches), *sizes])


def _size_faults(expected: Conventions, found: Conventions, env_id: str) -> Iterator[str]:
    """Cameras of another size than the policy's: with any `resize` it takes images as declared."""
    for camera in expected.cameras:
        if camera.name in found.camera_names:
            other = found.camera(camera.name)
            if (other.height, other.width) != (camera.height, camera.width):
                yield describe(
                    f"environment {env_id}, camera {camera.name!r}",
                    f"{other.height} x {other.width} pixels",
                    f"{camera.height} x {camera.width}, as the policy's data",
                    "Set the size of the environment's images (evaluation.env_args, --env-arg), "
                    "e.g. image_size.",
                )


class _Run:
    """A policy in the places of a pool."""

    def __init__(
        self, policy: ChunkPolicy, pool: Pool, executor: Executor, num_sampling_steps: int
    ) -> None:
        self._policy, self._pool, self._executor = policy, pool, executor
        self._solver = Euler(num_sampling_steps)
        self._agreeing: list[Conventions] = []

    def play(
        self, share: Mapping[int, EpisodeSpec], keep: Callable[[EpisodeRecord], None]
    ) -> Iterator[tuple[int, Played]]:
        """Each episode with its place in the suite, as it ends; `keep` gets its record at once."""
        listed, num_envs = list(share), self._pool.num_envs
        waiting = [deque(listed[offset::num_envs]) for offset in range(num_envs)]
        running = {}

        def begin_next(place: int) -> None:
            if waiting[place]:
                spec = share[waiting[place][0]]
                running[place] = _Rollout(spec, deepcopy(self._executor))
                self._pool.begin(place, spec)

        for place in range(num_envs):
            begin_next(place)
        while running:
            for place, answer in self._pool.answers():
                self._take(running[place], answer)
                if running[place].is_over:
                    played = running.pop(place).played()
                    keep(played[0])
                    yield waiting[place].popleft(), played
                    begin_next(place)
            self._act(dict(sorted(running.items())))

    def result(self, played: Sequence[Played], wall_s: float) -> EvaluationResult:
        """The records and actions of the suite's episodes, and how they were run."""
        return EvaluationResult(
            num_envs=self._pool.num_envs,
            replan_steps=self._executor.replan_steps,
            num_sampling_steps=self._solver.num_steps,
            wall_s=wall_s,
            episodes=tuple(record for record, _ in played),
            actions=tuple(actions for _, actions in played),
        )

    def _take(self, rollout: "_Rollout", answer: Look | Lost) -> None:
        if isinstance(answer, Look):
            self._require_fit(answer.conventions, rollout.spec)
        elif answer.stage == "make" and not self._agreeing:
            where = f"environment {rollout.spec.env_id!r} with {rollout.spec.env_args}"
            remedy = f"Mend the simulator's installation. {answer.words}"
            raise UserError(describe(where, answer.error, "one that can be made", remedy))
        rollout.take(answer, self._policy.conventions.camera_names)

    def _require_fit(self, declared: Conventions | None, spec: EpisodeSpec) -> None:
        if declared is not None and declared not in self._agreeing:
            _require_agreement(self._policy, declared, spec.env_id)
            self._agreeing.append(declared)

    def _act(self, running: Mapping[int, "_Rollout"]) -> None:
        if not running:
            return
        rollouts = list(running.values())
        chunks = plan_chunks(
            self._policy,
            [rollout.observation for rollout in rollouts],
            [rollout.spec.seed for rollout in rollouts],
            [rollout.num_chunks for rollout in rollouts],
            self._solver,
        )
        for (place, rollout), chunk in zip(running.items(), chunks, strict=True):
            self._pool.execute(place, rollout.send(chunk))


class _Rollout:
    """One episode on its way.

    Attributes:
        spec: the episode.
        observation: what is seen now; not there before the first look.
        num_chunks: how many chunks were sent.
        is_over: whether it has ended or was lost.
    """

    def __init__(self, spec: EpisodeSpec, executor: Executor) -> None:
        self.spec = spec
        executor.reset(spec.seed)
        self._executor = executor
        self.observation: Observation
        self.num_chunks, self.is_over = 0, False
        self._sent: list[FloatArray] = []
        self._rewards: list[float] = []
        self._success = self._success_any = self._success_final = False
        self._family = self._target = self._instruction = ""
        self._lost: Lost | None = None

    def send(self, chunk: FloatArray) -> FloatArray:
        """The actions that are executed next; the simulator has waited for the chunk."""
        now = len(self._rewards)
        self._executor.push(chunk, observed_at=now, now=now)
        self._sent.append(self._executor.pop(self._executor.num_ready))
        self.num_chunks += 1
        return self._sent[-1]

    def take(self, answer: Look | Lost, cameras: Sequence[str]) -> None:
        """Go on with what came of the reset or the last chunk; the policy sees these cameras."""
        if isinstance(answer, Lost):
            self._lost, self.is_over = answer, True
            return
        seen = answer.observation
        self.observation = replace(seen, images={name: seen.images[name] for name in cameras})
        if self._sent:
            self._sent[-1] = self._sent[-1][: len(answer.rewards)]
        self._rewards += answer.rewards
        self._success = self._success or answer.success
        self._success_any = self._success_any or answer.success_any
        self._success_final, self.is_over = answer.success_final, answer.is_over
        self._family, self._target = answer.family, answer.target
        self._instruction = seen.instruction

    def played(self) -> Played:
        """What came of it, and the actions that were executed; None of a lost episode."""
        is_lost = self._lost is not None
        record = EpisodeRecord(
            **dict(self.spec),
            success=self._success and not is_lost,
            success_final=self._success_final and not is_lost,
            success_any=self._success_any and not is_lost,
            num_steps=len(self._rewards),
            rewards=tuple(self._rewards),
            family=self._family,
            target=self._target,
            instruction=self._instruction,
            lost=self._lost,
        )
        return record, None if is_lost else np.concatenate(self._sent)
