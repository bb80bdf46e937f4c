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


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(d) + mask) value, heads merged.

    Args:
        query: float[b, h, q, d].
        key: float[b, g, n, d]; every h / g query heads share one.
        value: float[b, g, n, d].
        mask: bool[b, 1, q, n], True where the query may look. A row without a True gives
            unspecified finite values in its own output only; padded queries are such rows and are
            never read.

    Returns:
        float[b, q, h * d].
    """
    # torch's bfloat16 kernel for CPUs is slower than its float32 one (backward 4x, see
    # docs/experiments.md)
    dtype = torch.float32 if query.device.type == "cpu" else query.dtype
    with torch.autocast(query.device.type, enabled=False):
        attended = functional.scaled_dot_product_attention(
            query.to(dtype),
            key.to(dtype),
            value.to(dtype),
            attn_mask=mask,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return rearrange(attended.to(query.dtype), "b h q d -> b q (h d)")


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """float[b, n, heads * d] -> float[b, heads, n, d]."""
    return rearrange(x, "b n (h d) -> b h n d", d=head_dim)
