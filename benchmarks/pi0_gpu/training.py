"""Training steps of pi0 on one device: batch sizes doubled until memory is full."""

import time

import torch
from accelerate import Accelerator
from pi0_sizes import NUM_CAMERAS

from pi0_gpu.cases import random_batch, training_flops
from pi0_gpu.device import forget_peak, peak_gib, release, wait
from pi0_gpu.report import Report
from policy_ft.config.model import ModelConfig
from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.config.tuning import GroupRule
from policy_ft.models.batch import Batch
from policy_ft.models.build import build_model
from policy_ft.objectives.flow import Flow
from policy_ft.training.optimizer import build_optimizer
from policy_ft.training.step import TrainStep
from policy_ft.tuning.averaging import Ema
from policy_ft.tuning.plan import Phase, plan_tuning

WORKS = {"full fine-tuning": (), "frozen backbone": ("vision", "projector", "language")}
COMPILING_S = 90.0
"""Time that must be left before something is compiled."""
CELL_S = 45.0
"""No larger batch is begun after this long, compiling apart."""
NUM_WARM, NUM_MEASURED = 2, 4


class Trainee:
    """pi0 with its optimizer and average, on the device.

    Args:
        config: the sizes.
        work: of WORKS, which says what is frozen.
        device: where.
    """

    def __init__(self, config: ModelConfig, work: str, device: str) -> None:
        self.config, self.work, self.device = config, work, device
        frozen = WORKS[work]
        self.flops = training_flops(config, frozen_backbone=bool(frozen))
        with torch.device(device):
            self.model = build_model(config)
        settings = OptimizerConfig()
        rules = [GroupRule(pattern=name, frozen=True) for name in frozen]
        reached = Flow().reaches(self.model)
        plan = plan_tuning(self.model, [Phase(0, tuple(rules))], settings, reached)
        plan.at(0).apply(self.model)
        self.num_learning = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        trained = {n: p for n, p in self.model.named_parameters() if n in plan.trained}
        self._ema = Ema(trained, 0.99)
        self._step = TrainStep(
            Accelerator(cpu=device == "cpu"),
            self.model,
            [Flow()],
            build_optimizer(self.model, plan, settings),
            lambda sample_id: ("random", sample_id),
            settings.clip_norm,
            torch.bfloat16,
        )

    def steps(self, batch: Batch, count: int) -> float:
        """Seconds of each of `count` optimizer steps."""
        before = time.perf_counter()
        for step in range(count):
            self._step(step + 1, [batch])
            self._ema.update()
        wait(self.device)
        return (time.perf_counter() - before) / count

    def forget(self) -> None:
        """Gives back what a step that ran out of memory left behind."""
        self.model.zero_grad(set_to_none=True)
        release(self.device)


def train_all(config: ModelConfig, report: Report, device: str, *, compiled: bool) -> None:
    """Full fine-tuning, then a frozen backbone; what fitted once more compiled, if asked for."""
    for work, frozen in WORKS.items():
        try:
            trainee = Trainee(config, work, device)
        except torch.OutOfMemoryError:
            trainee = None
            release(device)
        if trainee is None:
            report.add(work, "", NUM_CAMERAS, note="out of memory: the weights alone")
            continue
        report.facts[f"{work}: parameters that learn"] = trainee.num_learning
        report.facts[f"{work}: model FLOPs a sample"] = trainee.flops
        for checkpointing in (False,) if frozen else (True, False):
            largest = measure(trainee, report, checkpointing=checkpointing, compiled=False, batch=1)
            if compiled and largest:
                measure(trainee, report, checkpointing=checkpointing, compiled=True, batch=largest)
        del trainee
        release(device)


def measure(
    trainee: Trainee, report: Report, *, checkpointing: bool, compiled: bool, batch: int
) -> int:
    """A row for each batch size from `batch` on; the largest that fitted, 0 for none."""
    setting = f"checkpointing {_on(checkpointing)}, compile {_on(compiled)}"
    needed, fitted = 10.0 + compiled * COMPILING_S, 0
    ends = time.monotonic() + CELL_S + compiled * COMPILING_S
    trainee.model.checkpoint_activations(checkpointing)
    trainee.model.compile_blocks(compiled)
    torch.compiler.reset()
    while batch <= report.facts["max_batch"] and time.monotonic() < ends:
        if report.left_s < needed:
            report.add(trainee.work, setting, NUM_CAMERAS, batch=batch, note="no time left")
            break
        step_s = _step_s(trainee, batch)
        if step_s is None:
            report.add(trainee.work, setting, NUM_CAMERAS, batch=batch, note="out of memory")
            break
        rate, peak = batch / step_s, report.facts["peak_flops"]
        report.add(
            trainee.work,
            setting,
            NUM_CAMERAS,
            batch=batch,
            samples_per_s=rate,
            mfu=trainee.flops * rate / peak if peak else None,
            peak_gib=peak_gib(trainee.device),
            step_s=step_s,
        )
        fitted, batch = batch, 2 * batch
    return fitted


def _step_s(trainee: Trainee, batch: int) -> float | None:
    """Seconds of an optimizer step with its average; None when memory does not suffice."""
    forget_peak(trainee.device)
    try:
        samples = random_batch(trainee.config, batch, NUM_CAMERAS, trainee.device)
        trainee.steps(samples, NUM_WARM)
        return trainee.steps(samples, NUM_MEASURED)
    except torch.OutOfMemoryError:
        pass  # only behind this block the traceback lets go of the tensors in it
    trainee.forget()
    return None


def _on(value: bool) -> str:
    return "on" if value else "off"
