"""Attention with rotary positions and grouped key-value heads, shared by decoders and experts.

Letters: b batch, h query head, g key-value head, q query token, n key token, d head size.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional


def rotary_table(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding (RoFormer, Su et al. 2021), in float32.

    Args:
        positions: int64[b, n], the position of each token.
        head_dim: d, even.
        theta: base of the geometric series of wavelengths.

    Returns:
        Two float32[b, 1, n, d / 2].
    """
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angle = positions[:, None, :, None].float() * theta**-exponent
    return angle.cos(), angle.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turns x[b, h, n, d] by its positions; pairs are (i, i + d / 2), as in Llama and Gemma."""
    cos, sin = table
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(query key^T / sqrt(d) + mask) value, heads merged.

    Args:
        query: float[b, h, q, d].
        key: float[b, g, n, d]; every h / g query heads share one.
        value: float[b, g, n, d].
        mask: bool[b, 1, q, n], True where the query may look; None lets all see all. A row
            without a True gives unspecified finite values in its own output only; padded queries
            are such rows and are never read.

    Returns:
        float[b, q, h * d].
    """
    # torch's bfloat16 kernel for CPUs is slower than its float32 one (backward 4x, see
    # docs/experiments.md)
    dtype = torch.float32 if query.device.type == "cpu" else query.dtype
    # not enable_gqa: with a mask, CUDA has no fused kernel for it
    sharing = query.shape[1] // key.shape[1]
    with torch.autocast(query.device.type, enabled=False):
        attended = functional.scaled_dot_product_attention(
            query.to(dtype),
            _each_repeated(key.to(dtype), sharing),
            _each_repeated(value.to(dtype), sharing),
            attn_mask=mask,
        )
    return rearrange(attended.to(query.dtype), "b h q d -> b q (h d)")


def _each_repeated(x: Tensor, times: int) -> Tensor:
    """float[b, g * times, n, d], every head `times` times in a row; a single head is not copied."""
    if times == 1:
        return x
    return x[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2)


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """float[b, n, heads * d] -> float[b, heads, n, d]."""
    return rearrange(x, "b n (h d) -> b h n d", d=head_dim)
