"""Any checkpoint -> a policy: our own directories, openpi's, LeRobot's, and those on a hub."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from policy_ft.checkpoints.image_sizes import resized_config
from policy_ft.checkpoints.native import load_native
from policy_ft.checkpoints.stored_model import read_model
from policy_ft.checkpoints.tensor_files import locate_tensors
from policy_ft.config.resize import ModelResize
from policy_ft.config.transforms import TransformsConfig
from policy_ft.errors import UserError, describe
from policy_ft.formats.adapters import is_adapter, on_base, read_base_record
from policy_ft.formats.embodiments import Embodiment, load_embodiment
from policy_ft.formats.hub import is_remote, pull_file
from policy_ft.formats.lerobot.read_lerobot import read_lerobot
from policy_ft.formats.locating import Located, locate
from policy_ft.formats.openpi.read_openpi import read_openpi
from policy_ft.formats.published import (
    CONFIG_FILE,
    Fit,
    Published,
    fitted,
    settings_hash,
)
from policy_ft.policy import Policy, PublishedRecord
from policy_ft.transforms import ModelShape, tokenization
from policy_ft.transforms.checks import NO_IMAGES
from policy_ft.transforms.tokenization import TOKENIZER_FILE


def load_policy(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: Literal["float32", "bfloat16", "stored"] = "float32",
    init_missing: tuple[str, ...] = (),
    *,
    embodiment: str | None = None,
    tokenizer: str | Path | None = None,
    resize: ModelResize | None = None,
    fit: Fit | None = None,
    base: str | Path | Policy | None = None,
) -> Policy:
    """The policy of a checkpoint, in evaluation mode.

    Args:
        path: of the directory: our own, openpi's (PyTorch or JAX) or LeRobot's (pretrained_model or
            a directory above it); or a hub id, 'owner/name'.
        device: where the weights go.
        dtype: of the weights in memory, but for the small ones that stay float32; "stored" keeps
            each tensor's own. What is to learn becomes float32 in a run.
        init_missing: patterns of parameter names that may be absent and start at random; anything
            else that is missing is refused.
        embodiment: name of a preset or path of a YAML file: the robot that a published checkpoint
            is used for. What neither it nor the checkpoint says is declared unknown, and openpi's
            statistics are of no use without it.
        tokenizer: path of a tokenizer.json or of a directory that holds one, or a hub id; where a
            published checkpoint holds none or another is wanted.
        resize: other sizes than those stored; leading columns are kept and new ones start at zero.
        fit: makes the transforms from the checkpoint's settings, sizes and tokenizer, instead of
            taking its statistics, e.g. to compute statistics on other data.
        base: of a checkpoint that holds an adapter alone; where it was when that was cut, if not
            given. A policy shares its tensors: several adapters cost the memory of one base.

    Raises:
        UserError: no checkpoint is there or several are, a file is missing or damaged, a tensor is
            missing, unexpected or misshaped, or the parts do not fit one another.
    """
    located = locate(path)
    robot = None if embodiment is None else load_embodiment(embodiment)
    if located.format == "native":
        refuse_for_native(located, None if fit else robot, tokenizer)
        if is_adapter(located.directory):
            _refuse_with_adapter(located.directory, init_missing, resize)
            policy = _on_its_base(located.directory, base, device, dtype)
        else:
            _refuse_base(located.directory, base)
            policy = load_native(located.directory, device, dtype, init_missing, resize=resize)
        _refuse_padding(policy.transforms.config, resize)
        refitted = policy if fit is None else _refitted(policy, robot, fit)
        return _with_own_replan_steps(refitted, policy.conventions.control_hz)
    _refuse_base(located.directory, base)
    stored = read_published(located, robot, tokenizer)
    policy = _load_published(stored, device, dtype, init_missing, resize, fit)
    # an embodiment says the rate of the robot at hand, not of the one that was trained on
    return _with_own_replan_steps(policy, None if fit else policy.conventions.control_hz)


def _on_its_base(
    directory: Path,
    base: str | Path | Policy | None,
    device: torch.device | str,
    dtype: Literal["float32", "bfloat16", "stored"],
) -> Policy:
    record = read_base_record(directory)
    if not isinstance(base, Policy):
        try:
            base = load_policy(base or record.path, device, dtype)
        except UserError as error:
            where = f"{directory}, base {base or record.path}"
            raise UserError([f"{where}: {fault}" for fault in error.faults]) from None
    return on_base(directory, base, dtype)


def _refuse_base(directory: Path, base: str | Path | Policy | None) -> None:
    if base is not None:
        found, expected = "a base beside a whole checkpoint", "an adapter's directory"
        raise UserError(describe(f"{directory}, base", found, expected, "Leave base out."))


def _refuse_with_adapter(
    directory: Path, init_missing: tuple[str, ...], resize: ModelResize | None
) -> None:
    if init_missing or (resize is not None and resize.asked):
        found, expected = "other sizes or missing tensors for an adapter", "a whole policy"
        remedy = "Make it whole first: policy-ft convert ADAPTER DIRECTORY --to native."
        raise UserError(describe(str(directory), found, expected, remedy))


def _load_published(
    stored: Published,
    device: torch.device | str,
    dtype: Literal["float32", "bfloat16", "stored"],
    init_missing: tuple[str, ...],
    resize: ModelResize | None,
    fit: Fit | None,
) -> Policy:
    """The policy of a published checkpoint; arguments as `load_policy`."""
    published = _resized(stored, resize)
    transforms = published.transforms(fit)
    model, report = read_model(
        published.config,
        published.files,
        device=device,
        dtype=dtype,
        init_missing=init_missing,
        rename=published.names.live_name,
        stored_name=published.names.stored_name,
        resize=resize,
        stored=stored.config,
    )
    report = replace(report, notes=published.all_notes)
    provenance = {**published_provenance(published), "weights_sha256": report.weights_sha256}
    unused = locate_tensors(published.files, report.dropped)
    source = published_record(stored)  # before it was given other sizes
    return Policy(model, transforms, published.config, report, provenance, source, unused)


def read_published(
    located: Located, embodiment: Embodiment | None = None, tokenizer: str | Path | None = None
) -> Published:
    """What a published checkpoint says beside its weights; UserError as `load_policy`."""
    if embodiment is not None and not embodiment.cameras:
        expected = f"at least one, for {located.directory} sees its task in images"
        remedy = f"Name one. {NO_IMAGES}"
        raise UserError(
            describe(f"embodiment {embodiment.name}, cameras", "none", expected, remedy)
        )
    tokenizer_json = None if tokenizer is None else read_tokenizer(tokenizer)
    read = read_lerobot if located.format == "lerobot" else read_openpi
    return read(located.directory, embodiment, tokenizer_json)


def published_provenance(published: Published) -> dict[str, Any]:
    """Where the weights come from, for the checkpoints that are made of them."""
    return {
        "published_family": published.config.family,
        "published_format": published.format,
        "published_path": str(published.directory),
        "notes": list(published.all_notes),
        **_replan_steps(published),
    }


def _replan_steps(published: Published) -> dict[str, int]:
    """How many steps of a chunk LeRobot executes; openpi's checkpoints do not say."""
    steps = published.documents.get(CONFIG_FILE, {}).get("n_action_steps")
    return {} if steps is None else {"replan_steps": min(steps, published.config.action_horizon)}


def published_record(published: Published) -> PublishedRecord:
    """What writing the checkpoint back needs and the policy does not use."""
    return PublishedRecord(
        format=published.format,
        documents=dict(published.documents),
        prefix=published.names.root,
        settings_sha256=settings_hash(
            published.config,
            published.transforms_config,
            published.conventions,
            published.statistics,
        ),
    )


def read_tokenizer(tokenizer: str | Path) -> str:
    """The text of the tokenizer.json at a path, in a directory or on the hub; UserError if none."""
    path = Path(tokenizer)
    if not path.exists() and isinstance(tokenizer, str) and is_remote(tokenizer):
        path = pull_file(tokenizer, TOKENIZER_FILE)
    return tokenization.read_tokenizer(path, "tokenizer")


def refuse_for_native(
    located: Located, embodiment: Embodiment | None, tokenizer: str | Path | None
) -> None:
    """UserError for a robot or tokenizer given beside a checkpoint of our own, which has both."""
    if tokenizer is not None:
        remedy = "Leave the tokenizer out; the checkpoint holds its own."
        raise UserError(describe("tokenizer", repr(str(tokenizer)), "none", remedy))
    if embodiment is not None:
        remedy = "Leave it out, or train with statistics: data, which takes the robot's own."
        expected = f"none, for {located.directory} declares its robot and has its statistics"
        raise UserError(describe("embodiment", repr(embodiment.name), expected, remedy))


def _resized(published: Published, resize: ModelResize | None) -> Published:
    """The checkpoint with the sizes asked for; UserError where its prompt has no place for one."""
    if resize is None:
        return published
    _refuse_padding(published.transforms_config, resize)
    assumed = {size: note for size, note in published.assumed.items() if size not in resize.asked}
    return replace(published, config=resized_config(published.config, resize), assumed=assumed)


def _refuse_padding(config: TransformsConfig, resize: ModelResize | None) -> None:
    """UserError for another width of a state whose padding the prompt spells out."""
    if resize is None or resize.state_dim is None or config.prompt != "pi05_padded_state":
        return
    remedy = "Leave it out; no weight of pi0.5 depends on it, and every prompt would be another."
    expected = "none with the prompt 'pi05_padded_state', which says the padding too"
    raise UserError(describe("resize.state_dim", str(resize.state_dim), expected, remedy))


def _refitted(policy: Policy, embodiment: Embodiment | None, fit: Fit) -> Policy:
    """The policy with transforms made from its settings, for another robot if one is named."""
    own = policy.transforms
    robot: Mapping[str, Any] = {} if embodiment is None else embodiment.transforms
    settings = own.config.model_copy(update=robot)
    shape = ModelShape.of(policy.config)
    return replace(policy, transforms=fitted(fit, settings, shape, own.tokenizer_json))


def _with_own_replan_steps(policy: Policy, trained_hz: float | None) -> Policy:
    """The policy without a replan_steps that was chosen for another rate or a longer chunk.

    The same number is another time at another rate, and moves success by tens of points. A note
    says what to write instead.

    Args:
        policy: for the robot at hand.
        trained_hz: control rate of the robot that the checkpoint's number is for; None: unknown.
    """
    steps, rate = policy.provenance.get("replan_steps"), policy.conventions.control_hz
    horizon = policy.config.action_horizon
    if steps is None or (rate == trained_hz and steps <= horizon):
        return policy
    there = "a control rate that nobody says" if trained_hz is None else f"{trained_hz:g} Hz"
    here = "an unknown rate" if rate is None else f"{rate:g} Hz"
    note = (
        f"replan_steps {steps} of the checkpoint is not taken over: it is for {there}, and here "
        f"are {here} and chunks of {horizon} actions. Set evaluation.replan_steps, and "
        "--replan-steps of `policy-ft eval`"
    )
    if trained_hz and rate:
        same = min(max(round(steps * rate / trained_hz), 1), horizon)
        note += f", e.g. {same}: {same / rate:.3g} s, where it was {steps / trained_hz:.3g} s"
    kept = {key: value for key, value in policy.provenance.items() if key != "replan_steps"}
    report = replace(policy.load_report, notes=(*policy.load_report.notes, note))
    return replace(policy, provenance=kept, load_report=report)
