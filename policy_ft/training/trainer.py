"""The training loop, of built parts. A fine-tuning method is one of the parts; none copies it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from statistics import fmean

import torch
from accelerate import Accelerator
from torch import Tensor

from policy_ft.config.training import TrainingConfig
from policy_ft.data.loader import BatchLoader
from policy_ft.models.batch import Batch
from policy_ft.models.objective import Objective
from policy_ft.policy import Policy
from policy_ft.training.features import build_feature_cache
from policy_ft.training.hooks import Hook, Hooks, RunView
from policy_ft.training.launch import block_execution, numerics, require_compiler, seed_dropout
from policy_ft.training.measure import Measure
from policy_ft.training.metrics import MetricsLog, Record
from policy_ft.training.progress import ProgressDisplay, Stopwatch, groups_table
from policy_ft.training.selection import Best, better
from policy_ft.training.sharding import gathered, sharding_notes, wrapped
from policy_ft.training.state import RunState
from policy_ft.training.step import TrainStep, to_device
from policy_ft.training.store import Store
from policy_ft.tuning.plan import TuningPlan


@dataclass(frozen=True)
class RunResult:
    """What a run found.

    Attributes:
        train_step: the last step; fewer than asked for where a hook has stopped the run.
        best: the step that was measured best; None where nothing selects.
        records: what was logged in this process, in order.
    """

    train_step: int
    best: Best | None
    records: tuple[Record, ...]


@dataclass
class Trainer:
    """One run: its parts, and the order in which they act.

    Attributes:
        policy: trained in place; afterwards it has the weights that were measured and saved last,
            in evaluation mode.
        plan: which parameters learn when, and how fast.
        optimizer: of `build_optimizer`, for this plan.
        batches: the samples of each step.
        objectives: what is minimised, in order; validation's loss is the first.
        settings: length, precision, memory and logging.
        seed: of dropout.
        clip_norm: gradients are scaled down to this total norm when above it.
        accelerator: of this process.
        hooks: act while the run goes on, beside the objectives that are hooks as well.
        measures: validation, rollouts.
        store: the run's directory; None trains in memory, without directory, lock or files.
        load_start: makes the policy that the run began with; None where `policy` is still that.
        augmentation: of each micro-batch of training.
    """

    policy: Policy
    plan: TuningPlan
    optimizer: torch.optim.Optimizer
    batches: BatchLoader
    objectives: Sequence[Objective]
    settings: TrainingConfig
    seed: int
    clip_norm: float
    accelerator: Accelerator
    hooks: Sequence[Hook] = ()
    measures: Sequence[Measure] = ()
    store: Store | None = None
    load_start: Callable[[], Policy] | None = None
    augmentation: Callable[[Batch], Batch] = lambda batch: batch
    _records: list[Record] = field(default_factory=list)
    _measured: set[str] = field(default_factory=set)
    """Kinds of measures that the present step has had."""

    def run(self) -> RunResult:
        """Every step that is left to do.

        Raises:
            UserError: settings that cannot be honoured, an output directory in use, a resumed run
                whose settings or data have changed, or a loss or gradient that is not finite
                (raised before it touches the weights).
        """
        with self._owned() as remarks, numerics(self.settings):
            self._begin(remarks)
            with block_execution(self.policy.model, self.settings):
                self._go()
            self._keep_what_was_measured()
        return RunResult(self._state.train_step, self._state.best, tuple(self._records))

    def _owned(self) -> AbstractContextManager[list[str]]:
        return nullcontext(list[str]()) if self.store is None else self.store.owned()

    def _begin(self, remarks: Sequence[str]) -> None:
        require_compiler(self.settings, self.accelerator.device)
        model = self.policy.model.to(self.accelerator.device)
        self._display = ProgressDisplay(
            num_steps=self.settings.steps, is_main=self.accelerator.is_main_process
        )
        self._view = RunView(
            self.policy,
            self.plan,
            self.optimizer,
            self.objectives,
            self._display.say,
            self.load_start,
        )
        self._hooks = Hooks.of(self.hooks, self.objectives, model)
        self._hooks.begin(self._view)
        self._state = RunState(self.policy, self.optimizer, self._hooks)
        for remark in remarks:
            self._display.say(remark)
        if self.store is not None:
            self.store.begin(self._state)
        self._view.lr_factor = self._state.lr_factor
        self._view.stop_reason = self._state.stop_reason
        self._enter_phase()

    def _enter_phase(self) -> None:
        """What depends on which parameters learn: a distributed wrapper fixes that when made."""
        self._phase = self.plan.index_at(self._state.train_step)
        now = self.plan.of_phases[self._phase]
        now.apply(self.policy.model)
        self._features = build_feature_cache(self.settings, self.policy.model, now)
        self.accelerator.free_memory()
        self._take_step = TrainStep(
            self.accelerator,
            wrapped(self.policy.model, self.accelerator),
            self.objectives,
            self.optimizer,
            self.batches.windows.locate,
            self.clip_norm,
            self.policy.model.autocast_dtype,
            self._features,
            self._hooks.after_backward,
        )
        self._display.tell(groups_table(now.table(), self.plan.start_of(self._phase) or 0))

    def _go(self) -> None:
        state = self._state
        notes = (*self.policy.load_report.lines(), *self.policy.transforms.still_notes)
        num_processes = self.accelerator.num_processes
        for line in (*notes, *sharding_notes(self.settings, num_processes)):
            self._display.say(line)
        if state.is_assessed and self._is_last:
            self._display.say(self._nothing_to_do())
            return
        if state.train_step:
            self._display.say(f"going on after step {state.train_step}")
        for best in state.earlier_bests:
            found = f"step {best.train_step} ({best.metric} {best.value:.4g}) was the best"
            self._display.say(f"{found} under other settings of evaluation; its checkpoint stays")
        self._clock = Stopwatch()
        self._began = time.perf_counter() - state.train_s
        with (
            self._display,
            self._metrics() as self._log,
            closing(self.batches.iter_from(state.train_step)) as batches,
        ):
            if not state.is_assessed:  # it was saved, and then stopped while it was measured
                self._assess_and_save()
            while not self._is_last:
                self._one_step(batches)
                self._after_step()
        if self._view.stop_reason:
            self._display.say(f"stopped after step {state.train_step}: {self._view.stop_reason}")

    def _nothing_to_do(self) -> str:
        where = "" if self.store is None else f"{self.store.directory}: "
        if self._state.stop_reason:
            step, why = self._state.train_step, self._state.stop_reason
            return f"{where}the run was stopped after step {step} ({why}); nothing to do."
        return f"{where}all {self.settings.steps} steps are done; nothing to do."

    def _metrics(self) -> AbstractContextManager[MetricsLog | None]:
        return nullcontext() if self.store is None else self.store.metrics(self._state)

    @property
    def _is_last(self) -> bool:
        """Whether the present step is the last one."""
        return self._state.train_step >= self.settings.steps or bool(self._view.stop_reason)

    def _one_step(self, batches: Iterator[list[dict[str, Tensor]]]) -> None:
        state, transforms = self._state, self.policy.transforms
        self._measured.clear()
        if self.plan.index_at(state.train_step) != self._phase:
            self._enter_phase()
        with self._clock.measure("data"):
            samples = next(batches)
        with self._clock.measure("encode"):
            device = self.accelerator.device
            micro_batches = [
                self.augmentation(to_device(each, transforms, device)) for each in samples
            ]
        with self._clock.measure("step"):
            seed_dropout(self.seed, state.train_step, self.accelerator.process_index)
            self._lr = self.plan.set_rates(self.optimizer, state.train_step, self._view.lr_factor)
            found = self._take_step(state.train_step + 1, micro_batches)
            state.train_step += 1
            state.is_assessed = False
            told = self._hooks.after_step(state.train_step)
        own = {} if len(found.terms) == 1 else {**found.terms}
        if found.effective_samples is not None:
            own["effective_samples"] = found.effective_samples
        state.recent.append({"loss": found.loss, "grad_norm": found.grad_norm, **own, **told})

    def _after_step(self) -> None:
        self._display.advance(self._state.train_step)
        if self._is_due(self.settings.log_every):
            self._record("train", self._means())
            self._state.recent.clear()
        was_last = self._is_last
        self._assess_and_save()
        if self._is_last and not was_last:  # a hook asked for the end
            self._assess_and_save()

    def _assess_and_save(self) -> None:
        """Saves a due step before it is measured: whatever fails in rollouts, the step is kept."""
        state = self._state
        due = [
            measure
            for measure in self.measures
            if self._is_due(measure.every) and measure.kind not in self._measured
        ]
        is_saved = self._is_due(self.settings.save_every) or any(each.saves_first for each in due)
        if is_saved:
            self._save()
        before = state.best
        for measure in due:
            self._assess(measure)
        state.is_assessed = True
        if state.best != before or is_saved:
            self._save()

    def _assess(self, measure: Measure) -> None:
        state, model = self._state, self.policy.model
        model.eval()
        # rollouts meet many batch sizes, and each would be compiled
        is_compiled = self.settings.compile
        eagerly = torch.compiler.set_stance("force_eager") if is_compiled else nullcontext()
        with self._hooks.measuring(), gathered(model), eagerly:
            values = measure.run(self.policy)
        self.plan.of_phases[self._phase].set_modes(model)
        self._measured.add(measure.kind)
        self._record(measure.kind, values)
        candidate = measure.candidate(state.train_step, values)
        if candidate is not None:
            state.best = better(state.best, candidate)
        self._hooks.after_measure(state.train_step, measure.kind, values)

    def _save(self) -> None:
        state = self._state
        state.lr_factor, state.stop_reason = self._view.lr_factor, self._view.stop_reason
        state.train_s = time.perf_counter() - self._began
        if self._log is not None:
            self._log.sync()
        if self.store is not None:
            self.store.save(state)

    def _is_due(self, every: int) -> bool:
        return self._state.train_step % every == 0 or self._is_last

    def _means(self) -> dict[str, float]:
        recent = self._state.recent
        names = {name: None for found in recent for name in found}
        means = {name: fmean(found[name] for found in recent if name in found) for name in names}
        return {
            **{name: means.pop(name) for name in ("loss", "grad_norm")},
            "lr": self._lr,
            **means,
            **self._clock.lap(self.settings.batch_size),
            **({} if self._features is None else self._features.lap()),
        }

    def _record(self, kind: str, values: dict[str, float]) -> None:
        self._display.show(self._state.train_step, kind, values)
        self._records.append({"train_step": self._state.train_step, "kind": kind, **values})
        if self._log is not None:
            self._log.write(self._state.train_step, kind, values)

    @torch.no_grad()
    def _keep_what_was_measured(self) -> None:
        """The policy's weights become those that its last checkpoint has."""
        model = self.policy.model
        if any(hook.replaces_weights for hook in self._hooks.members):
            own = {name: p for name, p in model.named_parameters() if name in self.plan.trained}
            with self._hooks.measuring():
                measured = {name: p.detach().clone() for name, p in own.items()}
            for name, parameter in own.items():
                parameter.copy_(measured[name])
        model.eval()
