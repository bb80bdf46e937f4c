"""What a frozen backbone computes, computed once a window and kept in host memory.

Letters: b sample, k camera, n token, w width, l backbone block, g key-value head, d head size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from policy_ft.config.training import TrainingConfig
from policy_ft.errors import UserError, describe
from policy_ft.models.backbones.backbone import Backbone, Feature
from policy_ft.models.inputs import ModelInput
from policy_ft.models.prefix import Prefix
from policy_ft.models.vla import VLAModel
from policy_ft.tuning.groups import GroupPlan

BUCKET = 8
"""Prefixes are padded to multiples of this, so that compiled graphs are reused."""


class Entry(NamedTuple):
    """The features of one window, real tokens alone, in host memory."""

    values: Tensor
    """Image tokens float[k, n, w], or keys over values float[2 l, g, n, d]."""
    slots: tuple[int, ...]
    """Camera slots of the k cameras."""


class FeatureCache:
    """Windows' sample ids -> features of the backbone, computed when first met and then kept.

    Holds as many windows as fit and forgets none: in shuffled epochs each window comes once, so
    whatever were let go would be missed as much as what took its place. It relies on a window
    being encoded alike in every epoch, and on frozen parts being in evaluation mode.

    Args:
        backbone: frozen as `build_feature_cache` asks.
        feature: which stage.
        budget_bytes: of host memory.
        one_by_one: whether windows are computed alone, slower, so that not even rounding depends on
            their neighbours in a batch.
    """

    def __init__(
        self, backbone: Backbone, feature: Feature, budget_bytes: float, *, one_by_one: bool
    ) -> None:
        self._backbone, self.feature = backbone, feature
        self._free_bytes = budget_bytes
        self._one_by_one = one_by_one
        self._entries: dict[int, Entry] = {}
        self._num_seen = self._num_hits = 0

    def __call__(self, inputs: ModelInput, sample_ids: Sequence[int]) -> Prefix | Tensor:
        """What Backbone.forward takes as `features` of these inputs.

        Waits for the device when it meets windows that it does not hold.
        """
        missed = {each: row for row, each in enumerate(sample_ids) if each not in self._entries}
        self._num_seen += len(sample_ids)
        self._num_hits += sum(each in self._entries for each in sample_ids)
        rows = list(missed.values())
        groups = [[row] for row in rows] if self._one_by_one else [rows] if rows else []
        computed = [entry for group in groups for entry in self._computed(inputs.rows(group))]
        fresh = dict(zip(missed, computed, strict=True))
        for sample_id, entry in fresh.items():
            self._keep(sample_id, entry)
        entries = [fresh[i] if i in fresh else self._entries[i] for i in sample_ids]
        device = inputs.state.device
        if self.feature == "prefix":
            return joined_prefix(entries, device)
        return joined_image_tokens(entries, inputs, device)

    def lap(self) -> dict[str, float]:
        """Since the last lap: feature_cache_hits, the share of windows that it held."""
        values = {"feature_cache_hits": self._num_hits / max(self._num_seen, 1)}
        self._num_seen = self._num_hits = 0
        return values

    def _keep(self, sample_id: int, entry: Entry) -> None:
        size = entry.values.nbytes
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._entries[sample_id] = entry

    @torch.no_grad()
    def _computed(self, inputs: ModelInput) -> list[Entry]:
        if self.feature == "prefix":
            return _prefix_entries(self._backbone(inputs))
        return _image_entries(self._backbone, inputs)


def _prefix_entries(prefix: Prefix) -> list[Entry]:
    stacked, mask = torch.stack((*prefix.keys, *prefix.values)).cpu(), prefix.mask.cpu()
    return [Entry(stacked[:, row, :, real], ()) for row, real in enumerate(mask)]


def _image_entries(backbone: Backbone, inputs: ModelInput) -> list[Entry]:
    tokens = backbone.image_tokens(inputs, backbone.embedded_prompt(inputs))
    cameras = rearrange(tokens, "b (k n) w -> b k n w", k=inputs.images.shape[1]).cpu()
    mask = inputs.image_mask.cpu()
    slots = torch.tensor(inputs.camera_slots)
    return [
        Entry(each[real], tuple(slots[real].tolist()))
        for each, real in zip(cameras, mask, strict=True)
    ]


def joined_prefix(entries: Sequence[Entry], device: torch.device) -> Prefix:
    """The Prefix of all entries, padded on the right."""
    lengths = [entry.values.shape[2] for entry in entries]
    longest = -(-max(lengths) // BUCKET) * BUCKET
    num, heads, _, head_dim = entries[0].values.shape
    shape = (num, len(entries), heads, longest, head_dim)
    padded = _zeros(shape, entries[0].values.dtype, device)
    for row, (entry, length) in enumerate(zip(entries, lengths, strict=True)):
        padded[:, row, :, :length] = entry.values
    num_real = torch.tensor(lengths)
    mask = torch.arange(longest) < num_real[:, None]
    keys_values = padded.to(device, non_blocking=True).unbind(0)
    return Prefix(
        keys=keys_values[: num // 2],
        values=keys_values[num // 2 :],
        mask=mask.to(device, non_blocking=True),
        length=num_real.to(device, non_blocking=True),
    )


def joined_image_tokens(
    entries: Sequence[Entry], inputs: ModelInput, device: torch.device
) -> Tensor:
    """float[b, k * n, w], image tokens of all entries in the camera slots of this batch."""
    num_cameras = inputs.images.shape[1]
    slots = inputs.camera_slots or tuple(range(num_cameras))
    shape = (len(entries), num_cameras, *entries[0].values.shape[1:])
    padded = _zeros(shape, entries[0].values.dtype, device)
    for row, entry in enumerate(entries):
        padded[row, [slots.index(slot) for slot in entry.slots]] = entry.values
    return rearrange(padded, "b k n w -> b (k n) w").to(device, non_blocking=True)


def _zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """In host memory, pinned where the copy to the device can then overlap with its work."""
    return torch.zeros(shape, dtype=dtype, pin_memory=device.type == "cuda")


def build_feature_cache(
    training: TrainingConfig, model: VLAModel, plan: GroupPlan
) -> FeatureCache | None:
    """A cache for the last stage of the backbone that nothing learns in; None where none is wanted.

    Only what no trained parameter influences may be cached: the prefix when the whole backbone is
    frozen (a state token in it included), image tokens when what makes them is (with FiLM also the
    embeddings of the language that modulates the tower).

    Raises:
        UserError: a cache is asked for and something learns in both stages.
    """
    if not training.feature_cache_gb:
        return None
    learning: list[str] = []
    for feature, sources in model.feature_sources.items():
        learning = sorted(set(sources) & set(plan.trained))
        if not learning:
            budget, one_by_one = training.feature_cache_gb * 1e9, training.deterministic
            return FeatureCache(model.backbone, feature, budget, one_by_one=one_by_one)
    raise UserError(
        describe(
            "training.feature_cache_gb",
            f"{training.feature_cache_gb:g}, where {len(learning)} parameters learn on which the "
            f"features depend, first {learning[:3]}",
            "a frozen vision tower and projector, and with FiLM in the tower frozen embeddings; "
            "without vision a frozen decoder: features that change cannot be kept",
            "Freeze them in tuning.groups (vision, projector, and with film language.embed; "
            "without vision language), or set training.feature_cache_gb to 0.",
        )
    )
