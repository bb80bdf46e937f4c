"""`train` and `check`: one list of requirements, and then a run or a report."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from data_tools.episode import Dataset
from policy_ft.assemble.methods import Method, Methods, build_methods
from policy_ft.assemble.policies import (
    mapped,
    starting_policy,
    starting_policy_again,
)
from policy_ft.assemble.trainers import (
    build_plan,
    build_trainer,
    identity_of,
)
from policy_ft.checkpoints.provenance import descended
from policy_ft.config.data import DataConfig
from policy_ft.config.run import RunConfig
from policy_ft.config.starting_policy import PretrainedPolicy
from policy_ft.data.augmentation import Augmentation
from policy_ft.data.motion import motion_remarks
from policy_ft.data.opening import is_to_be_collected
from policy_ft.data.soundness import data_to_check, survey
from policy_ft.errors import Faults, UserError, describe, raise_faults
from policy_ft.formats.load import load_policy
from policy_ft.objectives.lwf import require_old_sentences
from policy_ft.policy import Policy
from policy_ft.preflight import (
    remarks,
    require_embodiment,
    require_fitting_data,
    require_loaded,
    require_parts,
    require_read_columns,
    require_rollouts,
    require_speed_settings,
)
from policy_ft.training.directory import (
    CHECKPOINTS,
    TrainResult,
    starting_point,
    step_directory,
)
from policy_ft.training.launch import start_accelerator
from policy_ft.training.metrics import read_metrics, require_tensorboard
from policy_ft.training.run_lock import require_no_run_at_work, require_writable
from policy_ft.training.sharding import require_shardable, sharding_notes
from policy_ft.training.state import require_same_run
from policy_ft.tuning.plan import TuningPlan

Tell = Callable[[str], object]


def train(
    config: RunConfig,
    policy: Policy | None = None,
    episodes: Dataset | None = None,
    env: str | None = None,
    *,
    resume: bool = False,
    methods: Sequence[Method] = (),
    command: str = "",
) -> TrainResult:
    """Trains as `config` says and returns where the checkpoints are.

    What is not given is built from the config. Afterwards the policy has the weights of the last
    checkpoint, in evaluation mode. Under a distributed launcher every rank calls this with the same
    arguments; the ranks share each global batch.

    Args:
        config: the run's settings.
        policy: trained in place, instead of config.policy.
        episodes: demonstrations, instead of those that config.data names.
        env: Gymnasium id for the rollouts, instead of config.evaluation.env.
        resume: go on from the newest complete checkpoint in config.output_dir.
        methods: hooks and objectives beside those that the settings ask for; a run that is resumed
            must have the same.
        command: what a person typed, for the provenance of the checkpoints; left out when empty.

    Raises:
        UserError: anything that cannot be honoured; before the first step wherever it can be known
            by then, and then everything at once.
    """
    config = config if env is None else _with_env(config, env)
    faults = Faults()
    with ExitStack() as held:
        run = _Requirements(config, faults, start_accelerator(), held, resume, methods)
        run.of_directory()
        raise_faults(faults.listed)
        parts = run.met(policy, episodes, collects=True)
        raise_faults(faults.listed)
        assert parts is not None, "where nothing is wrong everything was built"
        trainer = build_trainer(
            config,
            _made_by(command, parts.policy),
            parts.episodes,
            accelerator=run.accelerator,
            plan=parts.plan,
            methods=parts.methods,
            start=run.start,
            load_start=parts.load_start,
            resume=resume,
        )
    found = trainer.run()
    assert found.best is not None, "the last step is always measured"
    directory = Path(config.output_dir)
    return TrainResult(
        directory=directory,
        last_checkpoint=step_directory(directory / CHECKPOINTS, found.train_step),
        best_checkpoint=step_directory(directory / CHECKPOINTS, found.best.train_step),
        metrics=read_metrics(directory),
    )


def check(config: RunConfig, *, resume: bool = False, tell: Tell = lambda line: None) -> list[str]:
    """Every reason why `train(config, resume=resume)` would refuse to start; empty when it can.

    Opens the data, builds the policy and makes the environment; trains nothing and writes nothing.
    Where some episodes have faults it goes on with the others. Data that config.data.collect would
    record does not exist yet and cannot be checked.

    Args:
        config: the run's settings.
        resume: whether the run in config.output_dir would go on.
        tell: called with each line on what is no fault and a person should see: what became of the
            tensors of a checkpoint, and settings that say less than they seem.
    """
    faults = Faults()
    with ExitStack() as held:
        run = _Requirements(config, faults, start_accelerator(), held, resume, tell=tell)
        run.of_directory()
        run.met(None, None, collects=False)
    return faults.listed


def check_data(config: DataConfig, seed: int) -> list[str]:
    """The faults that `check` tells of the data alone, where the other settings are not valid.

    Args:
        config: the settings of the data.
        seed: of the run.
    """
    faults = Faults()
    if not is_to_be_collected(config):
        data_to_check(config, seed, faults)
    return faults.listed


@dataclass(frozen=True)
class _Parts:
    """What a run that meets every requirement is built from."""

    policy: Policy
    episodes: Dataset
    plan: TuningPlan
    methods: Methods
    load_start: Callable[[], Policy] | None


@dataclass
class _Requirements:
    """Everything that must hold before the first step; what does not is gathered in `faults`.

    Until `held` is closed the numbers of the data stay in memory: they are looked at, named by a
    fingerprint and counted into statistics, and read once.
    """

    config: RunConfig
    faults: Faults
    accelerator: Accelerator
    held: ExitStack
    resume: bool
    given: Sequence[Method] = ()
    tell: Tell = lambda line: None
    start: Path | None = None

    def of_directory(self) -> None:
        """The output directory can be used, and says where to go on."""
        directory, of = Path(self.config.output_dir), self.faults.of
        of(lambda: require_writable(directory))
        if self.accelerator.is_main_process:
            of(lambda: require_no_run_at_work(directory))
        if not self.faults.listed:  # whose checkpoints these are would else be told wrongly
            self.start = of(lambda: starting_point(directory / CHECKPOINTS, resume=self.resume))
        if self.config.training.tensorboard:
            of(require_tensorboard)

    def met(
        self, policy: Policy | None, episodes: Dataset | None, *, collects: bool
    ) -> _Parts | None:
        """The parts of the run, or None where something is missing; what is not given is built."""
        methods = self.faults.of(lambda: build_methods(self.config, self.given))
        episodes = self._data(episodes, methods, collects=collects)
        policy, is_given = self._policy(policy, episodes), policy is not None
        if policy is None or methods is None:
            return None
        built = policy
        self._tell_of(built, episodes)
        of, config = self.faults.of, self.config
        plan = of(lambda: build_plan(config, built.model, methods.objectives))
        if plan is not None:
            if not is_given:  # what a caller built may stay as random as it is
                of(lambda: require_loaded(plan, built))
            device = self.accelerator.device
            of(lambda: require_speed_settings(config, built, plan, device))
            of(lambda: require_shardable(config.training, built.model, plan, methods.acting))
        self._of_methods(built)
        of(lambda: require_rollouts(config, built))
        if episodes is None:
            return None
        fitting = of(partial(self._fitting, built, episodes))
        if plan is None or fitting is None:
            return None
        if self.start is not None and not self.faults.listed:
            of(partial(self._same_run, built, fitting, methods, self.start))
        is_begun = self.start is not None and not is_given
        load_start = partial(starting_policy_again, config, episodes, built) if is_begun else None
        return _Parts(built, fitting, plan, methods, load_start)

    def _of_methods(self, policy: Policy) -> None:
        """What single methods ask of the policy."""
        of, config = self.faults.of, self.config
        if (varied := config.data.augmentation) != "off":
            of(lambda: Augmentation(varied, policy.transforms, config.seed, str))
        if (lwf := config.objectives.lwf) != "off":
            of(partial(require_old_sentences, lwf, policy))

    def _data(
        self, episodes: Dataset | None, methods: Methods | None, *, collects: bool
    ) -> Dataset | None:
        """The sound episodes."""
        config = self.config
        if methods is not None:
            self.faults.of(partial(require_read_columns, config.data, methods.objectives))
        if episodes is None and not collects and is_to_be_collected(config.data):
            return None
        found = survey(config.data, config.seed, self.held, episodes)
        self.faults.extend(found.faults)
        return found.episodes

    def _policy(self, policy: Policy | None, episodes: Dataset | None) -> Policy | None:
        """The policy that is trained: given, gone on with, or that of the settings."""
        config, of = self.config, self.faults.of
        if policy is not None:
            return descended(policy)
        if self.start is not None:
            return of(partial(load_policy, self.start, dtype="stored"))
        if isinstance(config.policy, PretrainedPolicy):
            pretrained = config.policy
            of(lambda: require_parts(pretrained))
            if episodes is not None:
                of(lambda: require_embodiment(config, episodes))
        return of(lambda: starting_policy(config, episodes))

    def _fitting(self, policy: Policy, episodes: Dataset) -> Dataset:
        """The data as the policy declares them; UserError where they do not fit it."""
        fitting = mapped(self.config, episodes, policy)
        require_fitting_data(self.config, policy, fitting)
        self._note(motion_remarks(fitting, policy.transforms))
        return fitting

    def _same_run(self, policy: Policy, episodes: Dataset, methods: Methods, start: Path) -> None:
        """UserError where the settings or the data have changed since the run began."""
        identity = identity_of(self.config, episodes, self.accelerator, methods)
        require_same_run(identity, policy, start)

    def _tell_of(self, policy: Policy, episodes: Dataset | None) -> None:
        report = policy.load_report.lines()
        if isinstance(self.config.policy, PretrainedPolicy):
            report[0] = f"{self.config.policy.path}: {report[0]}"
        if policy.load_report.loaded:
            for line in report:
                self.tell(line)
        self._note(remarks(self.config, policy, episodes))
        self._note(sharding_notes(self.config.training, self.accelerator.num_processes))

    def _note(self, notes: Iterable[str]) -> None:
        for note in notes:
            self.tell(f"  note: {note}")


def _made_by(command: str, policy: Policy) -> Policy:
    origin = {"command": command} if command else {}
    return replace(policy, provenance={**policy.provenance, **origin})


def _with_env(config: RunConfig, env: str) -> RunConfig:
    if config.evaluation == "off":
        raise UserError(
            describe(
                "env",
                f"{env!r} with evaluation off",
                "settings for the rollouts in it",
                "Fill in the config's evaluation block, or leave env out.",
            )
        )
    return config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"env": env})}
    )
