"""ModelInput: what every model reads, already on the device and in the model's own scale."""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModelInput:
    """A batch of encoded observations.

    Letters: b batch, k camera, y x rows and columns, l prompt token, s state column.

    Attributes:
        images: float[b, k, 3, y, x], RGB in [-1, 1]; slots that no observation of the batch fills
            are left out.
        image_mask: bool[b, k], True where the camera is present.
        prompt_tokens: int64[b, l], right-padded.
        prompt_mask: bool[b, l], True where the token is real.
        state: float32[b, s], normalized and zero-padded.
        camera_slots: the model's slot of each of the k cameras; None when all slots are there.
    """

    images: Tensor
    image_mask: Tensor
    prompt_tokens: Tensor
    prompt_mask: Tensor
    state: Tensor
    camera_slots: tuple[int, ...] | None = None

    @property
    def batch_size(self) -> int:
        """Number of observations, b."""
        return self.state.shape[0]

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.type is Tensor}
        moved = {name: each.to(device, non_blocking=True) for name, each in tensors.items()}
        return replace(self, **moved)

    def rows(self, index: list[int]) -> Self:
        """These observations of the batch alone, as if they had been encoded together.

        Camera slots and prompt columns that none of them fills are left out. Reads the masks, and
        so waits for the device.
        """
        filled = self.image_mask[index].any(dim=0).tolist()
        cameras = [place for place, is_filled in enumerate(filled) if is_filled]
        slots = self.camera_slots or range(len(filled))
        prompt_mask = self.prompt_mask[index]
        length = trimmed_prompt_length(prompt_mask.cpu())
        return replace(
            self,
            images=self.images[index][:, cameras],
            image_mask=self.image_mask[index][:, cameras],
            prompt_tokens=self.prompt_tokens[index, :length],
            prompt_mask=prompt_mask[:, :length],
            state=self.state[index],
            camera_slots=tuple(slots[place] for place in cameras),
        )


def trimmed_prompt_length(prompt_mask: Tensor, bucket: int = 8) -> int:
    """Length of the longest real prompt of a batch, rounded up to a multiple of `bucket`.

    Padding costs as much as real tokens; a few distinct lengths let compiled graphs be reused.

    Args:
        prompt_mask: bool[b, l] in host memory (reading a device tensor would stall the device).
        bucket: the multiple, in tokens.
    """
    longest = int(prompt_mask.sum(dim=1).max()) if prompt_mask.numel() else 0
    return min(-(-max(longest, 1) // bucket) * bucket, prompt_mask.shape[1])
