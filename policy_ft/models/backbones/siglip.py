"""The SigLIP vision tower (Zhai et al. 2023) of pi0, pi0.5 and SmolVLA.

Ours rather than timm's because timm fuses query, key and value into one matrix: here every tensor
has the name and shape of the published checkpoints, so they load and convert one to one.

Letters: b image, y x pixels, n token, w width.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from policy_ft.config.model import SiglipVisionConfig
from policy_ft.models.attention import attend, split_heads
from policy_ft.models.layers import run_block


class SiglipEmbeddings(nn.Module):
    """Patches as tokens with learned positions."""

    def __init__(self, config: SiglipVisionConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.shifted = grid, config.shifted_positions
        self.patch_embedding = nn.Conv2d(
            3, config.width, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.position_embedding = nn.Embedding(grid[0] * grid[1], config.width)

    def forward(self, images: Tensor) -> Tensor:
        """float[b, 3, y, x] -> float[b, n, w], row by row."""
        patches = rearrange(self.patch_embedding(images), "b w y x -> b (y x) w")
        return patches + self._positions()

    def _positions(self) -> Tensor:
        """float[n, w], the learned position of every patch."""
        weight = self.position_embedding.weight
        if not self.shifted:
            return weight
        row, column = (torch.arange(n, device=weight.device).sub(1).clamp(min=0) for n in self.grid)
        return weight[(row[:, None] * self.grid[1] + column).flatten()]


class SiglipAttention(nn.Module):
    """Self-attention over all patches."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.head_dim = config.width // config.num_heads
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.q_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """float[b, n, w] -> the same shape."""
        query, key, value = (
            split_heads(project(x), self.head_dim)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attend(query, key, value, mask=None))


class SiglipMLP(nn.Module):
    """fc2(gelu(fc1(x)))."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """float[b, n, w] -> the same shape."""
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


class SiglipBlock(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.self_attn = SiglipAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = SiglipMLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """float[b, n, w] -> the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class SiglipEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SiglipBlock(config) for _ in range(config.depth))


class SiglipTower(nn.Module):
    """Image tokens of a SigLIP model, without its pooling head.

    Args:
        config: the sizes.
        image_size: (rows, columns) in pixels, multiples of the patch size; the learned positions
            are for this size alone.
    """

    def __init__(self, config: SiglipVisionConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.grid = (image_size[0] // config.patch_size, image_size[1] // config.patch_size)
        self.num_tokens, self.width = self.grid[0] * self.grid[1], config.width
        self.checkpoint_activations = False
        self.reads_language = False
        self.embeddings = SiglipEmbeddings(config, self.grid)
        self.encoder = SiglipEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, eps=config.norm_eps)

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts worth compiling, one by one."""
        return list(self.encoder.layers)

    def forward(self, images: Tensor, language: Tensor | None = None) -> Tensor:
        """float[b, n, w], one token a patch, row by row.

        Args:
            images: float[b, 3, y, x] in [-1, 1].
            language: not used; towers share one signature.
        """
        # patches and positions stay in float32, as the published models compute them
        with torch.autocast(images.device.type, enabled=False):
            x = self.embeddings(images.to(self.embeddings.patch_embedding.weight.dtype))
        for layer in self.encoder.layers:
            x = run_block(layer, x, checkpointed=self.checkpoint_activations)
        return self.post_layernorm(x)
