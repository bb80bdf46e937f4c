"""What a killed run needs to go on with the same bits, beside each policy, complete or absent.

    <output_dir>/checkpoints/
        step_00000100/                  a native policy directory: averages where they are on
            training_state/
                state.json              step, whether it is measured, best step so far, settings,
                                        fingerprint of the data, what hooks say in JSON
                weights.safetensors     what the optimizer works on, float32, and every buffer,
                                        where the policy itself has averages in their place
                optimizer.safetensors   "<parameter>/<exp_avg | exp_avg_sq | step>"
                hook_<name>.safetensors one for each hook that holds tensors
                checksums.json          of every tensor in these files

        best -> step_00000100           links, for people and scripts
        last -> step_00000100

Of a sharded run each process writes the rows that it holds, as optimizer-00001-of-00002 and so on;
any number of processes goes on from either (state_tensors.py).

A step directory appears by one rename after everything in it has reached the disk. Randomness and
the loader have no state: they are functions of (seed, epoch, sample id, draw) and of the step.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from policy_ft.checkpoints.atomic import atomic_directory, write_atomically
from policy_ft.checkpoints.matching import own_tensors
from policy_ft.checkpoints.native import weight_files, write_policy
from policy_ft.checkpoints.weights import lend_weights, read_weights
from policy_ft.config.run import RunConfig
from policy_ft.errors import UserError, describe, raise_faults, read_json
from policy_ft.policy import Policy
from policy_ft.ranks import of_first_rank
from policy_ft.training.directory import STATE_DIRECTORY, STATE_FILE, step_directory, tidy
from policy_ft.training.hooks import Hooks
from policy_ft.training.optimizer import load_optimizer, optimizer_tensors
from policy_ft.training.resume_settings import changed_settings, is_measured_alike
from policy_ft.training.selection import Best
from policy_ft.training.state_tensors import (
    Checksums,
    Rows,
    incomplete_files,
    read_checksums,
    stored_rows,
    write_tensors,
)
from policy_ft.transforms import Transforms
from policy_ft.tuning.stochastic import active_dropouts

FORMAT = "policy_ft training state/4"
BEFORE_SHARDS = "policy_ft training state/3"
BEFORE_HOOKS_SPOKE = "policy_ft training state/2"


@dataclass(frozen=True)
class RunIdentity:
    """What a resumed run must agree with.

    `source_fingerprints` are those of a mixture's sources by name, `given_methods` the names of the
    methods that no setting asks for.
    """

    config: RunConfig
    data_fingerprint: str
    source_fingerprints: Mapping[str, str] = field(default_factory=dict)
    num_processes: int = 1
    given_methods: tuple[str, ...] = ()


@dataclass
class RunState:
    """Everything that changes while a run goes on.

    `recent` holds what was found in each step since the last record, for the means in the next one.
    `is_assessed` says whether this step has been validated and rolled out where that was due.
    `train_s` is the duration of the run so far, in seconds, lost parts left out. `earlier_bests`
    were chosen by rollouts under other settings of `evaluation`, with which those of now do not
    compare. `stop_reason` says why the run ended before its last step, where it did.
    """

    policy: Policy
    optimizer: torch.optim.Optimizer
    hooks: Hooks
    train_step: int = 0
    is_assessed: bool = True
    train_s: float = 0.0
    best: Best | None = None
    earlier_bests: tuple[Best, ...] = ()
    recent: list[dict[str, float]] = field(default_factory=list)
    lr_factor: float = 1.0
    stop_reason: str = ""

    @property
    def best_steps(self) -> tuple[int, ...]:
        """The steps whose checkpoints stay for being the best, or having been; that of now last."""
        now = () if self.best is None else (self.best,)
        return tuple(best.train_step for best in (*self.earlier_bests, *now))


def save_checkpoint(state: RunState, identity: RunIdentity, checkpoints: Path) -> Path:
    """Writes `checkpoints/step_<train_step>`, tidies, and returns its path.

    A kill leaves all of it or none. Every process must call it; the first writes, and of a sharded
    run each its own part of the state.
    A step that is there already has the same content but for what measuring it found, so only that
    is written.
    """
    target = step_directory(checkpoints, state.train_step)
    is_first = PartialState().is_main_process
    if not of_first_rank(target.exists):
        _write(state, identity, target)
    elif is_first:
        write_atomically(target / STATE_DIRECTORY / STATE_FILE, _state_json(state, identity))
    if is_first:
        tidy(checkpoints, identity.config.training.keep, state.best_steps)
    return target


def _write(state: RunState, identity: RunIdentity, target: Path) -> None:
    process = PartialState()
    with ExitStack() as stack:
        unfinished = of_first_rank(lambda: stack.enter_context(atomic_directory(target)))
        policy = replace(state.policy, provenance=_provenance(state, identity))
        with state.hooks.measuring():
            if process.is_main_process:
                write_policy(policy, unfinished)
            else:
                lend_weights(policy.model)
        _write_training_state(state, identity, unfinished / STATE_DIRECTORY)
        process.wait_for_everyone()  # the name appears when every process has written


def _provenance(state: RunState, identity: RunIdentity) -> dict[str, Any]:
    config = identity.config
    ema = config.tuning.ema
    provenance = {
        **state.policy.provenance,
        "train_step": state.train_step,
        "train_s": round(state.train_s, 3),
        "seed": config.seed,
        "data": _data(identity),
        "data_fingerprint": identity.data_fingerprint,
        "weights": "last" if ema == "off" else f"average, decay {ema.decay}",
    }
    if config.evaluation != "off":
        provenance["replan_steps"] = config.evaluation.replan_steps
    return provenance


def _data(identity: RunIdentity) -> list[str] | dict[str, Any]:
    """The paths of the one dataset, or of each source its paths, share and fingerprint."""
    data = identity.config.data
    if not identity.source_fingerprints:
        return list(data.path)
    return {
        name: {
            "path": list(source.path),
            "share": round(data.shares[name], 6),
            "fingerprint": identity.source_fingerprints[name],
        }
        for name, source in data.mixture.items()
    }


def restore(state: RunState, identity: RunIdentity, checkpoint: Path) -> None:
    """Puts model, optimizer, hooks and step back to what `save_checkpoint` saw.

    Raises:
        UserError: the settings, transforms or data differ from the saved run's in a way that
            changes the result.
    """
    directory, model, config = checkpoint / STATE_DIRECTORY, state.policy.model, identity.config
    require_same_run(identity, state.policy, checkpoint)
    saved = _saved(directory)
    checksums = _checksums(directory, saved)

    def stored(name: str) -> Iterator[Rows]:
        return stored_rows(directory, name, checksums)

    read_weights(weight_files(checkpoint), model)
    for hook in state.hooks.members:
        on_host: dict[str, Tensor] = {}
        for rows in stored(f"hook_{hook.name}"):
            if rows.name not in on_host:
                on_host[rows.name] = torch.empty(rows.shape, dtype=rows.values.dtype)
            rows.into(on_host[rows.name])
        hook.load_state_dict({**saved["hooks"][hook.name], **on_host})
    own = own_tensors(model)
    for rows in stored("weights"):
        rows.into(own[rows.name])
    load_optimizer(state.optimizer, model, stored("optimizer"))
    state.train_step = saved["train_step"]
    state.is_assessed = saved["is_assessed"]
    state.train_s = saved["train_s"]
    state.lr_factor, state.stop_reason = saved["lr_factor"], saved["stop_reason"]
    is_over = state.is_assessed and state.train_step >= config.training.steps
    state.earlier_bests = tuple(Best.from_json(each) for each in saved["earlier_bests"])
    best = Best.from_json(saved["best"]) if saved["best"] else None
    if best is None or is_over or is_measured_alike(saved["config"], config):
        state.best = best
    else:
        state.earlier_bests += (best,)
    state.recent = saved["recent"]


def _saved(directory: Path) -> dict[str, Any]:
    """What state.json says, in the words of today.

    Raises:
        UserError: it is of a version that cannot be gone on from.
    """
    saved = read_json(directory / STATE_FILE)
    if saved["format"] == BEFORE_HOOKS_SPOKE:
        hooks: dict[str, Any] = {
            path.stem.removeprefix("hook_"): {} for path in directory.glob("hook_*")
        }
        if saved["config"]["tuning"]["ema"] != "off":
            hooks["average"] = {"num_updates": saved["train_step"]}
        recent = [dict(zip(("loss", "grad_norm"), pair, strict=True)) for pair in saved["recent"]]
        fresh = {"hooks": hooks, "recent": recent, "lr_factor": 1.0, "stop_reason": ""}
        return {"earlier_bests": [], **saved, **fresh}
    if saved["format"] not in (FORMAT, BEFORE_SHARDS):
        remedy = "Resume with the version of policy_ft that began the run."
        where = f"{directory / STATE_FILE}, format"
        raise UserError(describe(where, repr(saved["format"]), repr(FORMAT), remedy))
    return dict(saved)


def _write_training_state(state: RunState, identity: RunIdentity, directory: Path) -> None:
    of_first_rank(directory.mkdir)
    model = state.policy.model
    learning = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    trained = {name for name, parameter in model.named_parameters() if id(parameter) in learning}
    buffers = {name for name, _ in model.named_buffers()}
    own = {name: value for name, value in own_tensors(model).items() if name in trained | buffers}
    files = {"optimizer": optimizer_tensors(state.optimizer, model)}
    if any(hook.replaces_weights for hook in state.hooks.members):
        files["weights"] = own
    for hook in state.hooks.members:
        tensors = {n: each for n, each in hook.state_dict().items() if isinstance(each, Tensor)}
        if tensors:
            files[f"hook_{hook.name}"] = tensors
    write_tensors(files, directory)
    if PartialState().is_main_process:
        (directory / STATE_FILE).write_text(_state_json(state, identity), encoding="utf-8")


def _state_json(state: RunState, identity: RunIdentity) -> str:
    saved: dict[str, Any] = {
        "format": FORMAT,
        "train_step": state.train_step,
        "is_assessed": state.is_assessed,
        "train_s": state.train_s,
        "num_processes": identity.num_processes,
        "best": state.best.as_json() if state.best else None,
        "earlier_bests": [best.as_json() for best in state.earlier_bests],
        "recent": state.recent,
        "lr_factor": state.lr_factor,
        "stop_reason": state.stop_reason,
        "hooks": {
            hook.name: {n: v for n, v in hook.state_dict().items() if not isinstance(v, Tensor)}
            for hook in state.hooks.members
        },
        "given_methods": list(identity.given_methods),
        "data_fingerprint": identity.data_fingerprint,
        "source_fingerprints": dict(identity.source_fingerprints),
        "config": identity.config.model_dump(mode="json"),
    }
    try:
        return json.dumps(saved, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        where = f"what the hooks {list(saved['hooks'])} log or save"
        found, expected = f"what JSON cannot hold ({error})", "finite numbers, texts and lists"
        remedy = "Use null for what is not known yet, and tensors for arrays."
        raise UserError(describe(where, found, expected, remedy)) from None


def _changed_data(
    identity: RunIdentity, saved: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """(Key, (found, expected)) of the data as a whole, or of each source of a mixture."""
    found, expected = identity.source_fingerprints, saved.get("source_fingerprints", {})
    pairs = {
        f"data.mixture.{name}": (found[name], expected[name])
        for name in found
        if name in expected and found[name] != expected[name]
    } or {"data": (identity.data_fingerprint, saved["data_fingerprint"])}
    for key, fingerprints in pairs.items():
        if fingerprints[0] != fingerprints[1]:
            now, then = (f"fingerprint {fingerprint[:12]}" for fingerprint in fingerprints)
            yield key, (now, then)


def require_same_run(identity: RunIdentity, policy: Policy, checkpoint: Path) -> None:
    """UserError for every change since the run of the checkpoint began that alters its result.

    Args:
        identity: of the run that is to go on.
        policy: that it goes on with.
        checkpoint: where it goes on.
    """
    saved = _saved(checkpoint / STATE_DIRECTORY)
    has_dropout = bool(active_dropouts(policy.model))
    changed = changed_settings(saved["config"], identity.config, has_dropout=has_dropout)
    if has_dropout and saved["num_processes"] != identity.num_processes:
        changed["processes"] = str(identity.num_processes), str(saved["num_processes"])
    changed |= dict(_changed_data(identity, saved))
    # before methods were noted, the average was the only hook that a setting asked for
    given = saved.get("given_methods", sorted(saved["hooks"].keys() - {"average"}))
    if sorted(identity.given_methods) != sorted(given):
        changed["methods given in Python"] = str(list(identity.given_methods)), str(given)
    if identity.config.training.steps < saved["train_step"]:
        done = f"at least {saved['train_step']}, so many are done"
        changed["training.steps"] = str(identity.config.training.steps), done
    if Transforms.load(checkpoint) != policy.transforms:
        changed["policy.transforms"] = "other transforms", "those of the checkpoint"
    directory = checkpoint / STATE_DIRECTORY
    checksums = _checksums(directory, saved)
    damaged = of_first_rank(
        lambda: () if checksums is None else tuple(incomplete_files(directory, checksums))
    )
    raise_faults(
        [
            *(
                describe(
                    f"resuming {checkpoint}, {key}",
                    found,
                    f"{expected}, as the run began",
                    "Set it back, or start a new run in another output_dir.",
                )
                for key, (found, expected) in changed.items()
            ),
            *damaged,
        ]
    )


def _checksums(directory: Path, saved: Mapping[str, Any]) -> Checksums | None:
    """Of the tensors of a state; None for one that was saved before they were noted."""
    return None if saved["format"] == BEFORE_HOOKS_SPOKE else read_checksums(directory)
