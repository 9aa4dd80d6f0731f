"""Our attention equals torch 2.13.0: RMSNorm, scaled_dot_product_attention and a complex-number RoPE; gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from fooddit.kernels import cross_attention, self_attention

BATCH, TOKENS, KEYS, HEADS, HEAD_DIM = 3, 24, 17, 4, 32
THETA = 100.0
RNG = np.random.default_rng(0)
POSITIONS = RNG.uniform(-4, 12, size=(BATCH, TOKENS, 2)).astype(np.float32)


def arrays(keys):
    width = HEADS * HEAD_DIM
    shapes = {"q": (BATCH, TOKENS, width), "k": (BATCH, keys, width), "v": (BATCH, keys, width)}
    values = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    gains = {name: RNG.uniform(0.5, 2, size=HEAD_DIM).astype(np.float32) for name in ("q_scale", "k_scale")}
    return values | gains


def lengths(keys):
    return np.arange(keys) < np.array([[keys], [keys // 2], [1]])


def torch_rope(x, positions):
    """Consecutive halves of a head are the real and imaginary parts of head_dim / 2 rotating numbers."""
    quarter = HEAD_DIM // 4
    frequencies = THETA ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = (positions.double()[..., None] * frequencies).flatten(-2)
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    real, imaginary = x.double().chunk(2, dim=-1)
    turned = torch.complex(real, imaginary) * turn
    return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)


def torch_attention(q, k, v, q_scale, k_scale, positions=None, mask=None, scale=None):
    def heads(x):
        return x.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)

    query = torch.nn.functional.rms_norm(heads(q), (HEAD_DIM,), q_scale, eps=1e-6)
    key = torch.nn.functional.rms_norm(heads(k), (HEAD_DIM,), k_scale, eps=1e-6)
    if positions is not None:
        query, key = torch_rope(query, positions), torch_rope(key, positions)
    mask = None if mask is None else mask[:, None, None, :]
    out = torch.nn.functional.scaled_dot_product_attention(query, key, heads(v), attn_mask=mask, scale=scale)
    return out.transpose(1, 2).flatten(-2)


def compare(ours, theirs, values, atol=1e-5):
    """Outputs, and gradients of all arguments for one random cotangent, to atol of the largest gradient."""
    cotangent = RNG.normal(size=values["q"].shape).astype(np.float32)
    output, pullback = jax.vjp(lambda a: ours(**a), {name: jnp.asarray(x) for name, x in values.items()})
    (gradients,) = pullback(jnp.asarray(cotangent))
    leaves = {name: torch.from_numpy(x).requires_grad_() for name, x in values.items()}
    expected = theirs(**leaves)
    expected.backward(torch.from_numpy(cotangent))
    np.testing.assert_allclose(output, expected.detach().numpy(), atol=atol)
    for name, leaf in leaves.items():
        grad = leaf.grad.numpy()
        np.testing.assert_allclose(gradients[name], grad, atol=atol * max(1, np.abs(grad).max()), err_msg=name)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [None, 1 / HEAD_DIM])
def test_self_attention(masked, scale):
    mask = lengths(TOKENS) if masked else None
    compare(
        lambda **a: self_attention(
            **a,
            num_heads=HEADS,
            positions=jnp.asarray(POSITIONS),
            kv_mask=None if mask is None else jnp.asarray(mask),
            softmax_scale=scale,
        ),
        lambda **a: torch_attention(
            **a,
            positions=torch.from_numpy(POSITIONS),
            mask=None if mask is None else torch.from_numpy(mask),
            scale=scale,
        ),
        arrays(TOKENS),
    )


@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention(masked):
    mask = lengths(KEYS) if masked else None
    compare(
        lambda **a: cross_attention(**a, num_heads=HEADS, kv_mask=None if mask is None else jnp.asarray(mask)),
        lambda **a: torch_attention(**a, mask=None if mask is None else torch.from_numpy(mask)),
        arrays(KEYS),
    )
