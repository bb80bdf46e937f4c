"""A policy: a model with the transforms it was trained with. Observations in, robot actions out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field, JsonValue
from torch import Tensor

from data_tools.conventions import Conventions
from data_tools.episode import Observation
from policy_ft.config.base import Settings
from policy_ft.config.model import ModelConfig
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.models.inputs import ModelInput
from policy_ft.models.solvers import Euler, SampleRequest
from policy_ft.models.vla import VLAModel
from policy_ft.ranks import own_part
from policy_ft.transforms import ModelShape, Transforms, stacked
from policy_ft.transforms.checks import nonfinite_numbers
from policy_ft.transforms.kinds import observation_faults

MAX_LISTED_NAMES = 10
OWN_WAY = SampleRequest()


class Reshaped(NamedTuple):
    """A tensor that was read into another shape because a ModelResize asked for it."""

    name: str
    stored: tuple[int, ...]
    live: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.stored)} -> {list(self.live)}"


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of the model and of the files it was read from; names only.

    Attributes:
        loaded: of the model, read from the files.
        missing: of the model, not in the files, started at random because init_missing allows it.
        unexpected: in the files and not in the model; such files are refused, so a policy that
            loaded has none.
        tied: another name, in the model or in the files, of a tensor that is loaded.
        reshaped: loaded, and read into another shape.
        added: of the model, made by an edit after the files were read.
        dropped: in the files, known to be of no use in the model.
        weights_sha256: weights_hash over the tensors as they are stored, under the model's names.
        notes: sentences on what was decided that no file says, for a person to check.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    reshaped: tuple[Reshaped, ...] = ()
    dropped: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    weights_sha256: str = ""
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line of counts: '776 tensors loaded, 0 missing, 0 unexpected, 1 tied, ...'."""
        counts = [f"{len(self.loaded)} tensors loaded"]
        counts += [f"{len(names)} {kind}" for kind, names in self._others().items()]
        return ", ".join(counts)

    def lines(self) -> list[str]:
        """The summary and, below it, the names of all that is not simply loaded, and the notes."""
        lines = [self.summary()]
        for kind, names in self._others().items():
            lines += [f"  {kind}: {name}" for name in names[:MAX_LISTED_NAMES]]
            if len(names) > MAX_LISTED_NAMES:
                lines.append(f"  {kind}: ... and {len(names) - MAX_LISTED_NAMES} more")
        return lines + [f"  note: {note}" for note in self.notes]

    def _others(self) -> dict[str, tuple[object, ...]]:
        return {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "tied": self.tied,
            "reshaped": self.reshaped,
            "dropped": self.dropped,
            **({"added by edits": self.added} if self.added else {}),
        }


class PublishedRecord(Settings):
    """What a published checkpoint says that we do not use, for writing it back; source.json."""

    # statistics in foreign documents may hold NaN, which must survive
    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    format: Literal["openpi", "lerobot", "orbax"] = Field(
        description="Whose layout the checkpoint had."
    )
    documents: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Its JSON documents by path below its directory, as they were.",
    )
    prefix: str = Field(
        "", description="What stands before the name of every tensor in its files, e.g. 'model.'."
    )
    settings_sha256: str = Field(
        "",
        description="settings_hash of what was read from the documents: as long as a policy still "
        "has it, they describe that policy, too.",
    )


@dataclass(frozen=True)
class Policy:
    """A model, its transforms, and where both come from.

    Attributes:
        model: maps a ModelInput to normalized action chunks.
        transforms: maps observations to a ModelInput, and chunks to robot actions.
        config: the settings that `build_model` makes this model from.
        load_report: where each weight comes from; all empty for a policy with random weights.
        provenance: what made the weights: command, data, versions; saved with every checkpoint.
        source: the published checkpoint the policy was converted from; None for one of our own.
        unused: name -> file of the tensors that came with the weights and that the model does not
            use; never in memory, copied from file to file into every checkpoint.

    Raises:
        UserError: model and transforms do not fit one another.
    """

    model: VLAModel
    transforms: Transforms
    config: ModelConfig
    load_report: LoadReport = field(default_factory=LoadReport)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    source: PublishedRecord | None = None
    unused: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        raise_faults(_misfits(self.config, self.transforms))

    @property
    def conventions(self) -> Conventions:
        """Cameras, state and actions of the robot this policy is for."""
        return self.transforms.conventions

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """(h, a) of one chunk as the model predicts it, which is the shape of its noise."""
        return self.config.action_horizon, self.config.action_dim

    def to(self, device: torch.device | str) -> Self:
        """This policy, its weights moved to another device."""
        self.model.to(device)
        return self

    def groups(self) -> dict[str, list[str]]:
        """Leaf group -> parameter names, a partition of all parameters."""
        return self.model.groups()

    def with_camera_sizes(self, recorded: Conventions) -> Self:
        """This policy for images of the recorded sizes, which its transforms resize.

        A note says where they differ. Cameras that are not recorded leave the policy as it is, for
        others to refuse.

        Raises:
            UserError: sizes of which a policy that resizes nothing has another.
        """
        own = self.conventions
        if not set(own.camera_names) <= set(recorded.camera_names):
            return self
        cameras, notes = [], []
        for mine in own.cameras:
            found = recorded.camera(mine.name)
            size = {"height": found.height, "width": found.width}
            cameras.append(mine.model_copy(update=size))
            if cameras[-1] != mine:
                notes.append(
                    f"camera {mine.name!r}: {found.height} x {found.width} pixels in the data, "
                    f"{mine.height} x {mine.width} before; the policy takes the data's"
                )
        conventions = own.model_copy(update={"cameras": tuple(cameras)})
        report = replace(self.load_report, notes=(*self.load_report.notes, *notes))
        transforms = replace(self.transforms, conventions=conventions)
        return replace(self, transforms=transforms, load_report=report)

    def encode(self, observations: Sequence[Observation]) -> ModelInput:
        """What the model reads of b observations, on its device.

        Raises:
            UserError: an observation does not meet the conventions, or there is none.
        """
        raise_faults(observation_faults(observations))
        seen = zip(observations, _places(len(observations)), strict=True)
        samples = stacked([self.transforms.encode(each, where=place) for each, place in seen])
        return self.transforms.encode_batch(samples, self.device)

    def sample(self, inputs: ModelInput, request: SampleRequest = OWN_WAY) -> Tensor:
        """float[b, h, a], normalized chunks for encoded observations, in the policy's precision.

        Args:
            inputs: b observations.
            request: how to draw them.
        """
        noise = request.noise
        if noise is not None:
            noise = torch.as_tensor(noise, dtype=torch.float32, device=self.device)
        solver = request.solver or Euler(self.config.num_sampling_steps)
        real_columns = torch.as_tensor(self.transforms.action_dim_mask, device=self.device)
        with torch.no_grad(), self.model.evaluating(), self._autocast():
            return self.model.sample_actions(inputs, noise, solver, real_columns)

    def act(
        self, observations: Sequence[Observation], request: SampleRequest = OWN_WAY
    ) -> list[npt.NDArray[np.float32]]:
        """An action chunk float32[h, A] for each observation, in the robot's own units.

        Threads may call it side by side, unless one of them trains the model; with noise given,
        each gets the bits that it would get alone.

        Args:
            observations: b of them, at least one.
            request: how to draw the chunks.

        Raises:
            UserError: an observation does not meet the conventions, the noise has another shape, or
                an action would not be finite: none is returned then.
        """
        raise_faults(observation_faults(observations))
        shape, noise = (len(observations), *self.chunk_shape), request.noise
        if noise is not None and tuple(noise.shape) != shape:
            remedy = "Draw standard normal numbers of that shape, or leave noise out."
            expected = f"{list(shape)}: observations, steps, columns"
            raise UserError(describe("noise", f"the shape {list(noise.shape)}", expected, remedy))
        chunks = self.sample(self.encode(observations), request)
        normalized = chunks.float().cpu().numpy()
        decode = self.transforms.decode
        with np.errstate(over="ignore", invalid="ignore"):  # told below, with its cause
            actions = [decode(*pair) for pair in zip(normalized, observations, strict=True)]
        names = self.conventions.action.names
        bad = {index: nonfinite_numbers(each, names) for index, each in enumerate(actions)}
        if any(bad.values()):
            expected, remedy = "finite numbers for a robot", self._overflow(normalized, noise)
            raise_faults(
                describe(f"actions for observation {index}", found, expected, remedy)
                for index, found in bad.items()
                if found
            )
        return actions

    def _overflow(
        self,
        normalized: npt.NDArray[np.float32],
        noise: npt.NDArray[np.float32] | Tensor | None,
    ) -> str:
        """What most likely made actions that are not finite, and what to do about it.

        Args:
            normalized: float32[b, h, a], what the model predicted.
            noise: float32[b, h, a], where it started, as far as it was given.
        """
        if noise is not None and not torch.as_tensor(noise).isfinite().all():
            return "The noise that was given is not finite: give standard normal numbers."
        # what this process has of them: where others have parts, it must not wait for those
        own = (*self.model.named_parameters(), *self.model.named_buffers())
        found = ((name, own_part(each)) for name, each in own)
        bad = [n for n, each in found if each.is_floating_point() and not each.isfinite().all()]
        if bad:
            return (
                f"{len(bad)} tensors of the model are not finite, first {bad[0]!r}: take an "
                "earlier checkpoint, and train from it with a lower optimizer.lr."
            )
        if np.isfinite(normalized[..., self.transforms.action_dim_mask]).all():
            return (
                "The model's own numbers are finite and overflow where its statistics scale them: "
                "compute the statistics again on data of this robot."
            )
        return (
            "Every weight is finite and the computation overflows: take an earlier checkpoint, or "
            "where the weights were loaded as bfloat16, load them as float32."
        )

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Of the matrix products in `act`: the run's that trained it, else of the weights."""
        return "bf16" if self._compute_dtype == torch.bfloat16 else "fp32"

    @property
    def _compute_dtype(self) -> torch.dtype:
        """Of the smallest weights: those that are larger are cast to it, and not the reverse."""
        types = {each.dtype for each in self.model.parameters() if each.is_floating_point()}
        return self.model.autocast_dtype or min(types, key=lambda each: each.itemsize)

    def _autocast(self) -> torch.autocast:
        """Computation in one type: inputs are float32 whatever the weights are."""
        dtype = self._compute_dtype
        is_low = dtype != torch.float32
        return torch.autocast(self.device.type, dtype=dtype if is_low else None, enabled=is_low)


def _places(count: int) -> list[str]:
    """How messages call each of so many observations."""
    return ["observation"] if count == 1 else [f"observation {index}" for index in range(count)]


def _misfits(config: ModelConfig, transforms: Transforms) -> list[str]:
    faults = []
    wanted = ModelShape.of(config)
    for name in ModelShape.model_fields:
        found, expected = getattr(transforms.shape, name), getattr(wanted, name)
        if found != expected:
            remedy = "Take both files from the same checkpoint."
            where = f"transforms.json, shape.{name}"
            faults.append(describe(where, str(found), f"{expected}, as in model.json", remedy))
    size, rows = transforms.vocabulary_size, config.language.vocab_size
    if size > rows:
        faults.append(
            describe(
                "model.language.vocab_size",
                str(rows),
                f"at least {size}, the tokenizer's tokens",
                "Raise policy.model.language.vocab_size (kind new), or use the tokenizer that the "
                "model was trained with.",
            )
        )
    return faults
