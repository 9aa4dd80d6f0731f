"""Our attention equals torch 2.13.0: RMSNorm, scaled_dot_product_attention and a complex-number RoPE; gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from fooddit.kernels import cross_attention, self_attention
from parity.torch_attention import attention

BATCH, TOKENS, KEYS, HEADS, HEAD_DIM = 3, 24, 17, 4, 32
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
        lambda **a: attention(
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
        lambda **a: attention(**a, mask=None if mask is None else torch.from_numpy(mask)),
        arrays(KEYS),
    )
