"""The attention that ours is compared with, in torch: rms_norm, scaled_dot_product_attention, a complex-number RoPE."""

import torch

THETA = 100.0


def attention(q, k, v, q_scale, k_scale, *, positions=None, mask=None, scale=None):
    """(batch, tokens, heads * head_dim) arrays; gains of (head_dim,); mask (batch, keys), True where there is a key.

    An example without any key gets 0, where torch gives NaN.
    """
    head_dim = q_scale.shape[0]

    def heads(x):
        return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)

    query = torch.nn.functional.rms_norm(heads(q), (head_dim,), q_scale, eps=1e-6)
    key = torch.nn.functional.rms_norm(heads(k), (head_dim,), k_scale, eps=1e-6)
    if positions is not None:
        query, key = rope(query, positions), rope(key, positions)
    if mask is None:
        out = torch.nn.functional.scaled_dot_product_attention(query, key, heads(v), scale=scale)
    else:
        keys = mask.any(dim=-1)[:, None, None, None]
        seen = (mask[:, None, None, :]) | ~keys
        out = torch.nn.functional.scaled_dot_product_attention(query, key, heads(v), attn_mask=seen, scale=scale) * keys
    return out.transpose(1, 2).flatten(-2)


def rope(x, positions):
    """Consecutive halves of a head are the real and imaginary parts of head_dim / 2 rotating numbers."""
    quarter = x.shape[-1] // 4
    frequencies = THETA ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = (positions.double()[..., None] * frequencies).flatten(-2)
    turn = torch.polar(torch.ones_like(angles), angles)
    turn = turn if positions.ndim == 2 else turn[:, None]
    real, imaginary = x.double().chunk(2, dim=-1)
    turned = torch.complex(real, imaginary) * turn
    return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)
