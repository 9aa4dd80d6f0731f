"""The sigmoid loss of image-text pairs, computed chunk by chunk around a ring of devices: no device sees all logits."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from fooddit.parallel.rules import RULES


class PairLoss(NamedTuple):
    """loss: mean over the batch, of the sums over each example's pairs. ignored: pairs left out, of one example."""

    loss: Float[Array, ""]
    ignored: Float[Array, ""]


class _Pairs(NamedTuple):
    """Features of a batch, or of a device's part of it, and what they are called."""

    image: Float[Array, "batch embed"]
    text: Float[Array, "batch embed"]
    image_names: Int[Array, "batch m"]
    text_names: Int[Array, "batch n"]


def sigmoid_loss(
    image: Float[Array, "batch embed"],
    text: Float[Array, "batch embed"],
    scale: Float[Array, ""],
    bias: Float[Array, ""],
    *,
    image_names: Int[Array, "batch m"],
    text_names: Int[Array, "batch n"],
) -> PairLoss:
    """-mean_i sum_j log sigmoid(+-(scale image_i . text_j + bias)), + for a picture's own text, - for another's.

    Zhai et al. 2023 (arXiv 2303.15343), with one change: a picture and another's text that have a name in common are no
    pair at all. Names are numbers (hashes); -1 is none, and equals nothing.

    On a mesh (`jax.set_mesh`) texts travel around the devices that share the batch, so that each computes its pictures'
    logits with one device's texts at a time and sends nothing but its neighbour's part; so do their gradients.
    """
    return PairLoss(*_loss(scale, bias, _Pairs(image, text, image_names, text_names)))


@jax.custom_vjp
def _loss(scale, bias, pairs: _Pairs):
    return _over_the_mesh(_value, scale, bias, pairs)


def _loss_forward(scale, bias, pairs: _Pairs):
    # The gradients are made on the same way around: autodiff would keep all texts of the way for the way back.
    value, gradients = _over_the_mesh(_value_and_gradients, scale, bias, pairs)
    return value, (gradients, pairs.image_names, pairs.text_names)


def _loss_backward(kept, cotangents):
    (scale, bias, image, text), *names = kept
    by = cotangents[0]
    nothing = [jnp.zeros(array.shape, jax.dtypes.float0) for array in names]
    return by * scale, by * bias, _Pairs(by * image, by * text, *nothing)


_loss.defvjp(_loss_forward, _loss_backward)


def _over_the_mesh(function, scale, bias, pairs: _Pairs):
    """function(scale, bias, pairs, axes, devices, batch), with each device's part of the batch under shard_map."""
    mesh, batch = jax.sharding.get_abstract_mesh(), pairs.image.shape[0]
    axes = () if mesh.empty else tuple(axis for axis in RULES["batch"] if mesh.shape.get(axis, 1) > 1)
    devices = 1
    for axis in axes:
        devices *= mesh.shape[axis]
    local = partial(function, axes=axes, devices=devices, batch=batch)
    if devices == 1:
        return local(scale, bias, pairs)
    rows, whole = PartitionSpec(axes), PartitionSpec()
    value = (whole, whole)
    out_specs = value if function is _value else (value, (whole, whole, rows, rows))
    # What a loop over ppermute varies over is not followed by shard_map's check.
    return jax.shard_map(local, in_specs=(whole, whole, rows), out_specs=out_specs, check_vma=False)(scale, bias, pairs)


def _value(scale, bias, pairs: _Pairs, *, axes, devices: int, batch: int):
    def hop(carry, number):
        total, ignored, text, names = carry
        loss, left_out = _chunk(scale, bias, pairs.image, text, pairs.image_names, names, number == 0)
        text, names = _pass_on((text, names), axes, devices)
        return (total + loss, ignored + left_out, text, names), None

    start = (jnp.zeros(()), jnp.zeros(()), pairs.text, pairs.text_names)
    (total, ignored, *_), _ = jax.lax.scan(hop, start, jnp.arange(devices))
    return _mean((total, ignored), axes, batch)


def _value_and_gradients(scale, bias, pairs: _Pairs, *, axes, devices: int, batch: int):
    chunk = jax.value_and_grad(_chunk, argnums=(0, 1, 2, 3), has_aux=True)

    def hop(carry, number):
        sums, by_image, text, names, by_text = carry
        (loss, left_out), (*by_both, more_image, more_text) = chunk(
            scale, bias, pairs.image, text, pairs.image_names, names, number == 0
        )
        sums = jax.tree.map(jnp.add, sums, (loss, left_out, *by_both))
        text, names, by_text = _pass_on((text, names, by_text + more_text), axes, devices)
        return (sums, by_image + more_image, text, names, by_text), None

    zeros = tuple(jnp.zeros(()) for _ in range(4))
    start = (zeros, jnp.zeros_like(pairs.image), pairs.text, pairs.text_names, jnp.zeros_like(pairs.text))
    (sums, by_image, _, _, by_text), _ = jax.lax.scan(hop, start, jnp.arange(devices))
    loss, ignored, by_scale, by_bias = _mean(sums, axes, batch)
    return (loss, ignored), (by_scale, by_bias, by_image / batch, by_text / batch)


def _chunk(scale, bias, image, text, image_names, text_names, own):
    """Sums over some pictures and some texts, which are the pictures' own ones in order if `own`."""
    logits = scale * jnp.einsum("ie,te->it", image, text, precision="highest") + bias
    positive = jnp.eye(logits.shape[0], dtype=bool) & own
    known = (image_names[:, None, :, None] == text_names[None, :, None, :]) & (text_names >= 0)[None, :, None, :]
    left_out = known.any(axis=(2, 3)) & ~positive
    terms = -jax.nn.log_sigmoid(jnp.where(positive, logits, -logits))
    return jnp.where(left_out, 0.0, terms).sum(), left_out.sum().astype(jnp.float32)


def _pass_on(arrays, axes, devices: int):
    """Each device's arrays to the next one."""
    if devices == 1:
        return arrays
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    return jax.tree.map(lambda array: jax.lax.ppermute(array, axes, ring), arrays)


def _mean(sums, axes, batch: int):
    return tuple(value / batch for value in (jax.lax.psum(sums, axes) if axes else sums))
