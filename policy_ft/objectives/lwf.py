"""Learning without forgetting: on the new task's scenes, do under old sentences what was done.

Letters: r chosen sample, k noise draw, h step of the chunk, a action column.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from policy_ft.checkpoints.provenance import INSTRUCTIONS, old_instructions
from policy_ft.config.objectives import LwfConfig
from policy_ft.data.noise import Purpose, generator
from policy_ft.errors import UserError, describe, raise_faults, read_lines
from policy_ft.models.batch import Batch
from policy_ft.models.flow_path import interpolate
from policy_ft.models.inputs import ModelInput
from policy_ft.models.objective import Objective, Term
from policy_ft.models.prefix import Prefix
from policy_ft.models.solvers import Euler, SampleRequest
from policy_ft.models.vla import VLAModel
from policy_ft.policy import Policy
from policy_ft.training.hooks import Hook, RunView

WHERE: Final = "objectives.lwf.sentences"


class _Asked(NamedTuple):
    """What one sample of a batch is asked for."""

    row: int
    sentence: int
    chunk_key: tuple[int, int]
    start_noise: Tensor
    """float32[h, a], from which the starting policy makes its chunk."""
    noise: Tensor
    """float32[k, h, a]."""
    time: Tensor
    """float32[k], uniform in (0, 1]."""


class LearningWithoutForgetting(Hook, Objective):
    """The distance between the policies of now and of the start, where sentences are old.

    The observations of the new task's batch are read once more, under sentences that the starting
    policy knew. It makes a chunk for each; around it, at noise and times of their own, the velocity
    of the policy that is trained is drawn to that of the starting policy ('velocity'), or to the
    one that leads to its chunk ('chunk'). No old data is needed. Source: Li and Hoiem 2016
    (1606.09282), with a flow in place of logits and old sentences in place of old heads.

    Args:
        settings: weight, sentences and cost.
        seed: of the run.
    """

    name = "lwf"

    def __init__(self, settings: LwfConfig, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._chunks: dict[tuple[int, int], Tensor] = {}

    def begin(self, run: RunView) -> None:
        """Takes up the policy that the run began with, and the sentences that it knew."""
        self._policy = run.starting_policy()
        self._sentences = old_sentences(self._settings, run.policy.provenance)
        mask = torch.from_numpy(self._policy.transforms.action_dim_mask)
        self._columns = mask.to(self._policy.device)

    def state_dict(self) -> Mapping[str, Tensor | JsonValue]:
        """The chunks that are made: in other company their last bits would be others."""
        if not self._chunks:
            return {}
        keys = torch.tensor(list(self._chunks), dtype=torch.int64)
        return {"keys": keys, "chunks": torch.stack(list(self._chunks.values()))}

    def load_state_dict(self, state: Mapping[str, Tensor | JsonValue]) -> None:
        """Takes the chunks up again."""
        if state:
            keys, chunks = state["keys"], state["chunks"]
            assert isinstance(keys, Tensor)
            assert isinstance(chunks, Tensor)
            pairs = map(tuple, keys.tolist())
            self._chunks = dict(zip(pairs, chunks.to(self._policy.device), strict=True))

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """The elements of the chosen samples' chunks over all draws."""
        num_chosen, (horizon, _) = len(self._chosen(batch)), batch.actions.shape[1:]
        elements = num_chosen * self._settings.draws * horizon * self._columns.sum()
        return {self.name: elements.double()}

    def __call__(self, model: VLAModel, prefix: Prefix, batch: Batch) -> Mapping[str, Term]:
        """{"lwf": the squared differences float32[r, k, h, a]}."""
        asked = [self._asked(batch, row) for row in self._chosen(batch)]
        if not asked:
            nothing = batch.actions.new_zeros((0, 1, *batch.actions.shape[1:]))
            return {self.name: Term(nothing, nothing, self._settings.weight)}
        inputs = self._policy.transforms.with_instructions(
            batch.inputs.rows([each.row for each in asked]),
            [self._sentences[each.sentence] for each in asked],
        )
        chunks = self._chunks_of(inputs, asked)
        noise = torch.stack([each.noise for each in asked]).to(chunks.device)
        time = torch.stack([each.time for each in asked]).to(chunks.device)
        noisy = interpolate(chunks[:, None], noise, time)
        with torch.no_grad():
            target = noise - chunks[:, None]
            if self._settings.target == "velocity":
                teacher = self._policy.model
                target = teacher.expert(teacher.backbone(inputs), inputs.state, noisy, time)
        velocity = model.expert(model.backbone(inputs), inputs.state, noisy, time)
        errors = (velocity - target).square()
        mask = self._columns.expand_as(errors)
        return {self.name: Term(errors, mask, self._settings.weight)}

    def _chosen(self, batch: Batch) -> list[int]:
        """Rows of the batch that are asked, each with the probability `share`."""
        return [
            row
            for row in range(len(batch.sample_id))
            if self._draws(batch, row).random() < self._settings.share
        ]

    def _asked(self, batch: Batch, row: int) -> _Asked:
        epoch, sample = int(batch.epoch[row]), int(batch.sample_id[row])
        draws = self._draws(batch, row)
        draws.random()  # which chose the row
        # a velocity has another sentence in every epoch; chunks that are kept have a few
        is_kept = self._settings.target == "chunk"
        place = int(draws.integers(self._settings.sentences_per_window)) if is_kept else epoch
        of_window = generator(self._seed, Purpose.LWF_CHUNK, place, sample)
        shape = batch.actions.shape[1:]
        noise = draws.standard_normal((self._settings.draws, *shape), dtype=np.float32)
        return _Asked(
            row,
            int(of_window.integers(len(self._sentences))),
            (sample, place),
            torch.from_numpy(of_window.standard_normal(shape, dtype=np.float32)),
            torch.from_numpy(noise),
            1.0 - torch.from_numpy(draws.random(self._settings.draws, dtype=np.float32)),
        )

    def _draws(self, batch: Batch, row: int) -> np.random.Generator:
        """Everything random about a sample, from the beginning."""
        epoch, sample = int(batch.epoch[row]), int(batch.sample_id[row])
        return generator(self._seed, Purpose.LWF, epoch, sample)

    def _chunks_of(self, inputs: ModelInput, asked: Sequence[_Asked]) -> Tensor:
        """float32[r, h, a], what the starting policy would do; kept where they are the targets."""
        if self._settings.target == "velocity":
            return self._made(inputs, asked)
        new = [place for place, each in enumerate(asked) if each.chunk_key not in self._chunks]
        if new:
            made = self._made(inputs.rows(new), [asked[place] for place in new])
            for place, chunk in zip(new, made, strict=True):
                self._chunks[asked[place].chunk_key] = chunk
        return torch.stack([self._chunks[each.chunk_key] for each in asked])

    def _made(self, inputs: ModelInput, asked: Sequence[_Asked]) -> Tensor:
        noise = torch.stack([each.start_noise for each in asked])
        request = SampleRequest(noise=noise, solver=Euler(self._settings.num_steps))
        return self._policy.sample(inputs, request).float()


def old_sentences(settings: LwfConfig, provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """The sentences that the starting policy is asked, those of the new data left out.

    Args:
        settings: say where they come from.
        provenance: of the policy that is trained.

    Raises:
        UserError: there are none, or the file that holds them cannot be read.
    """
    listed: tuple[str, ...]
    match settings.sentences:
        case "checkpoint":
            listed = old_instructions(provenance)
        case str(path):
            listed = read_lines(Path(path), WHERE)
        case texts:
            listed = texts
    new = set(provenance.get(INSTRUCTIONS, ()))
    old = tuple(dict.fromkeys(text for text in listed if text not in new))
    if not old:
        found = "none that the data do not say as well" if listed else "none"
        expected = "sentences that the policy knew before"
        remedy = "List them, or name a text file with one a line."
        if settings.sentences == "checkpoint":
            expected += ", which its checkpoint records"
        raise UserError(describe(WHERE, found, expected, remedy))
    return old


def require_old_sentences(settings: LwfConfig, policy: Policy) -> None:
    """UserError where the policy cannot be asked what it would do under old sentences."""
    raise_faults(
        fault
        for text in old_sentences(settings, policy.provenance)
        for fault in policy.transforms.prompt_faults(text, WHERE)
    )
