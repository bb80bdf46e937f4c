"""The training loop, from built objects to checkpoints. Every fine-tuning method uses it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from accelerate import Accelerator
from torch import Tensor

from data_tools.episode import Dataset
from policy_ft.checkpoints.atomic import write_atomically
from policy_ft.checkpoints.native import weight_files
from policy_ft.checkpoints.weights import read_weights
from policy_ft.config.loader import dump_config
from policy_ft.config.run import RunConfig
from policy_ft.data.loader import BatchLoader
from policy_ft.data.sources import fingerprints_by_source, sources_of, training_and_validation
from policy_ft.models.objective import reached
from policy_ft.objectives.flow import Flow
from policy_ft.policy import Policy
from policy_ft.training.directory import (
    TrainResult,
    remove_temporaries,
    starting_point,
    step_directory,
    tidy,
)
from policy_ft.training.features import build_feature_cache
from policy_ft.training.hooks import Hook, require_unique_names
from policy_ft.training.launch import (
    autocast_dtype,
    block_execution,
    numerics,
    require_compiler,
    seed_dropout,
    start_accelerator,
)
from policy_ft.training.metrics import MetricsLog, read_metrics
from policy_ft.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from policy_ft.training.ownership import sole_owner
from policy_ft.training.progress import ProgressDisplay, Stopwatch, groups_table
from policy_ft.training.rollouts import success_in_rollouts
from policy_ft.training.selection import Best, better
from policy_ft.training.state import TrainingState, restore, save_checkpoint
from policy_ft.training.step import TrainStep, to_device
from policy_ft.training.validation import MixedValidation, Validation
from policy_ft.tuning.averaging import Ema
from policy_ft.tuning.groups import GroupPlan, plan_groups

CONFIG_FILE = "config.yaml"


def train(
    config: RunConfig,
    policy: Policy,
    episodes: Dataset,
    *,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
) -> TrainResult:
    """Trains `policy` on `episodes` as `config` says.

    Afterwards `policy` holds the weights of the last checkpoint, in evaluation mode.
    Under a distributed launcher every rank calls this with the same arguments; the ranks share each
    global batch.

    Args:
        config: the run's settings.
        policy: trained in place.
        episodes: demonstrations; whole episodes are held out for validation.
        resume: go on from the newest complete checkpoint in the output directory; from step 0 when
            there is none.
        hooks: plugs that act after each step and whose state lies in every checkpoint.

    Raises:
        UserError: settings that cannot be honoured, an output directory in use, a resumed run whose
            settings or data have changed, or a loss or gradient that is not finite (raised before
            it touches the weights).
    """
    require_unique_names(hooks)
    directory = Path(config.output_dir)
    checkpoints = directory / "checkpoints"
    accelerator = start_accelerator()
    start = starting_point(checkpoints, resume=resume)
    owned = sole_owner(directory) if accelerator.is_main_process else nullcontext(True)
    with owned as is_locked, numerics(config.training):
        run = _build(config, policy, episodes, hooks, accelerator)
        if not is_locked:
            run.display.say(f"{directory}: this disk keeps no locks; let no other run write there")
        if resume and start is None:
            run.display.say(f"{checkpoints}: no checkpoint to resume; starting at step 0")
        run.begin(start)
        with block_execution(policy.model, config.training):
            run.go()
    last = step_directory(checkpoints, run.state.train_step)
    best = run.state.best
    assert best is not None, "the last step is always measured"
    read_weights(weight_files(last), policy.model)
    policy.model.eval()
    return TrainResult(
        directory=directory,
        last_checkpoint=last,
        best_checkpoint=step_directory(checkpoints, best.train_step),
        metrics=read_metrics(directory),
    )


@dataclass
class _Run:
    """One run's built objects, and the order in which they act."""

    config: RunConfig
    accelerator: Accelerator
    checkpoints: Path
    state: TrainingState
    plan: GroupPlan
    take_step: TrainStep
    loader: BatchLoader
    validation: MixedValidation
    display: ProgressDisplay
    began: float = 0.0

    def begin(self, start: Path | None) -> None:
        """The state of `start`, and a directory that is ready for more checkpoints."""
        if start is not None:
            restore(self.state, start)
        if self.accelerator.is_main_process:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            remove_temporaries(self.checkpoints)
            if start is not None:
                tidy(self.checkpoints, self.config.training.keep, self.state.best_steps)
            write_atomically(self.checkpoints.parent / CONFIG_FILE, dump_config(self.config))
        self.accelerator.wait_for_everyone()

    def go(self) -> None:
        """Every step that is left to do."""
        state, training = self.state, self.config.training
        self.display.tell(groups_table(self.plan.table()))
        for line in (*state.policy.load_report.lines(), *state.policy.transforms.still_notes):
            self.display.say(line)
        if state.train_step >= training.steps and state.is_assessed:
            self.display.say(
                f"{self.config.output_dir}: all {training.steps} steps are done; nothing to do."
            )
            return
        if state.train_step:
            self.display.say(f"going on after step {state.train_step}")
        for best in state.earlier_bests:
            found = f"step {best.train_step} ({best.metric} {best.value:.4g}) was the best"
            self.display.say(f"{found} under other settings of evaluation; its checkpoint stays")
        clock = Stopwatch()
        self.began = time.perf_counter() - state.train_s
        with (
            self.display,
            self._metrics() as metrics,
            closing(self.loader.iter_from(state.train_step)) as batches,
        ):
            if not state.is_assessed:  # it was saved, and then stopped while it was measured
                self._assess_and_save(metrics)
            while state.train_step < training.steps:
                self._one_step(batches, clock)
                self._after_step(metrics, clock)

    def _one_step(self, batches: Iterator[list[dict[str, Tensor]]], clock: Stopwatch) -> None:
        state, transforms = self.state, self.state.policy.transforms
        with clock.measure("data"):
            samples = next(batches)
        with clock.measure("encode"):
            micro_batches = [
                to_device(each, transforms, self.accelerator.device) for each in samples
            ]
        with clock.measure("step"):
            seed_dropout(self.config.seed, state.train_step, self.accelerator.process_index)
            rate = learning_rate(state.train_step, self.config.optimizer)
            set_learning_rate(state.optimizer, rate)
            result = self.take_step(state.train_step + 1, micro_batches)
            state.recent.append((result.loss, result.grad_norm))
            if state.ema is not None:
                state.ema.update()
        state.train_step += 1
        state.is_assessed = False
        for hook in state.hooks:
            hook.after_step(state.train_step, state.policy.model)

    def _after_step(self, metrics: MetricsLog | None, clock: Stopwatch) -> None:
        state, config = self.state, self.config
        self.display.advance(state.train_step)
        if self._is_due(config.training.log_every):
            self._record(metrics, "train", self._means(clock))
            state.recent.clear()
        self._assess_and_save(metrics)

    def _assess_and_save(self, metrics: MetricsLog | None) -> None:
        """Saves a due step before it is measured: whatever fails in rollouts, the step is kept."""
        evaluation, is_saved = self.config.evaluation, False
        if self._is_due(self.config.training.save_every) or (
            evaluation != "off" and self._is_due(evaluation.every)
        ):
            self._save(metrics)
            is_saved = True
        improved = self._assess(metrics)
        self.state.is_assessed = True
        if improved or is_saved:
            self._save(metrics)

    def _save(self, metrics: MetricsLog | None) -> None:
        if metrics is not None:
            self.state.train_s = time.perf_counter() - self.began
            metrics.sync()
            save_checkpoint(self.state, self.checkpoints)
        self.accelerator.wait_for_everyone()

    def _assess(self, metrics: MetricsLog | None) -> bool:
        """Validates and rolls out when due, with the averages; whether it is the best so far."""
        state, before = self.state, self.state.best
        for candidate in self._candidates(metrics):
            state.best = better(state.best, candidate)
        return state.best != before

    def _candidates(self, metrics: MetricsLog | None) -> Iterator[Best]:
        """This step, measured by what selects the best checkpoint, when that is due."""
        state, evaluation = self.state, self.config.evaluation
        if self._is_due(self.config.validation.every):
            with self._averaged():
                values = self.validation.run(state.policy)
            self._record(metrics, "validation", values)
            if evaluation == "off":
                yield Best(state.train_step, "validation_loss", values["loss"])
        if evaluation != "off" and self._is_due(evaluation.every):
            with self._averaged():
                values = success_in_rollouts(state.policy, evaluation, self.accelerator)
            self._record(metrics, "rollout", values)
            yield Best(state.train_step, "rollout_success_rate", values["success_rate"])

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        model, ema = self.state.policy.model, self.state.ema
        model.eval()
        # rollouts meet many batch sizes, and each would be compiled
        is_compiled = self.config.training.compile
        eagerly = torch.compiler.set_stance("force_eager") if is_compiled else nullcontext()
        with ema.swapped() if ema is not None else nullcontext(), eagerly:
            yield
        self.plan.set_modes(model)

    def _is_due(self, every: int) -> bool:
        return (
            self.state.train_step % every == 0
            or self.state.train_step == self.config.training.steps
        )

    def _means(self, clock: Stopwatch) -> dict[str, float]:
        losses, norms = zip(*self.state.recent, strict=True)
        return {
            "loss": fmean(losses),
            "grad_norm": fmean(norms),
            "lr": learning_rate(self.state.train_step - 1, self.config.optimizer),
            **clock.lap(self.config.training.batch_size),
            **({} if self.take_step.features is None else self.take_step.features.lap()),
        }

    def _record(self, metrics: MetricsLog | None, kind: str, values: dict[str, float]) -> None:
        self.display.show(self.state.train_step, kind, values)
        if metrics is not None:
            metrics.write(self.state.train_step, kind, values)

    def _metrics(self) -> AbstractContextManager[MetricsLog | None]:
        """The record of the run on the first rank, None on the others."""
        if not self.accelerator.is_main_process:
            return nullcontext()
        return MetricsLog(
            Path(self.config.output_dir),
            self.state.train_step,
            tensorboard=self.config.training.tensorboard,
            is_assessed=self.state.is_assessed,
        )


def _build(
    config: RunConfig,
    policy: Policy,
    episodes: Dataset,
    hooks: Sequence[Hook],
    accelerator: Accelerator,
) -> _Run:
    model = policy.model
    objectives = [Flow()]
    plan = plan_groups(model, config.tuning.groups, config.optimizer, reached(objectives, model))
    features = build_feature_cache(config.training, model, plan)
    require_compiler(config.training, accelerator.device)
    plan.apply(model)
    wrapped = accelerator.prepare(model.float())  # bfloat16 would lose most small updates
    optimizer = build_optimizer(model, plan, config.optimizer)
    ema = None if config.tuning.ema == "off" else Ema(model, config.tuning.ema.decay)
    windows, unseen = training_and_validation(episodes, policy.transforms, config.data, config.seed)
    dtype = model.autocast_dtype = autocast_dtype(config.training, accelerator.device)
    clip_norm = config.optimizer.clip_norm
    validations = {
        name: Validation(each, objectives, config, accelerator, dtype)
        for name, each in unseen.items()
    }
    return _Run(
        config=config,
        accelerator=accelerator,
        checkpoints=Path(config.output_dir) / "checkpoints",
        state=TrainingState(
            policy,
            optimizer,
            ema,
            hooks,
            config,
            episodes.fingerprint,
            fingerprints_by_source(episodes),
            num_processes=accelerator.num_processes,
        ),
        plan=plan,
        take_step=TrainStep(
            accelerator, wrapped, objectives, optimizer, windows.locate, clip_norm, dtype, features
        ),
        loader=BatchLoader(
            windows,
            order=windows.order(config.seed),
            seed=config.seed,
            batch_size=config.training.batch_size,
            num_draws=config.training.noise_draws,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            accumulation_steps=config.training.accumulation_steps,
            keeps_homes=features is not None,
            num_workers=config.data.num_workers,
            prefetch=config.data.prefetch,
        ),
        validation=MixedValidation(validations, [each.share for each in sources_of(episodes)]),
        display=ProgressDisplay(
            num_steps=config.training.steps, is_main=accelerator.is_main_process
        ),
    )
