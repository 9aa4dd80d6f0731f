"""The backward pass of the cross-attention kernels, one kernel: d_q by blocks of queries, the rest gathered in VMEM.

The weights are made again from the log-sums that the forward pass kept, one for each branch. Flash attention: Dao et
al. 2022, arXiv:2205.14135.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array

from fooddit.kernels.tpu_common import LANES, dot, options
from fooddit.kernels.tpu_cross_layout import BACKWARD_WEIGHTS, Layout, Specs, cost, grid
from fooddit.kernels.tpu_lane_heads import only, unit, unit_back


def backward(scale, gains, bias, q, pairs, norms, d_out, layout: Layout):
    """Gradients of q, of the pairs, of the gains by (batch, lane block, block) and (batch, lane block), and of the
    scale by (batch, lane block, head, query), or None."""
    specs, arrays = Specs(layout, scale, bias), (scale, gains, bias, q, pairs, norms, d_out)
    (batch, tokens, width), steps = q.shape, grid(layout, q)
    float32 = lambda *shape: jax.ShapeDtypeStruct((batch, width // LANES, *shape), jnp.float32)
    d_scale = float32(layout.heads, tokens) if layout.learned_scale else None
    like = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    results = like(q), like(pairs), float32(steps[2], 1, LANES), float32(len(pairs), LANES), d_scale
    return pl.pallas_call(
        functools.partial(_kernel, layout=layout),
        grid=steps,
        in_specs=[*specs.shared, specs.query, specs.pairs, specs.rows(norms.shape[2]), specs.query],
        out_specs=(
            *(specs.query, specs.pairs, specs.query_gain, specs.key_gains),
            specs.rows(layout.heads) if layout.learned_scale else None,
        ),
        out_shape=results,
        scratch_shapes=[
            layout.scratch(lambda keys: [((keys, LANES), dtype) for dtype in (q.dtype, jnp.float32, jnp.float32)])
        ],
        cost_estimate=cost(layout, q, 5, (arrays, results)),
        name=layout.name("_backward"),
        **options(layout.interpret),
    )(*arrays)


def _kernel(scale, gains, bias, q, pairs, norms, d_out, *refs, layout: Layout):
    d_q, d_pairs, d_q_gain, d_k_gains, d_scale, scratch = refs
    groups, gain = layout.groups(scratch), lambda branch: gains[branch + 1 : branch + 2]
    factors = [1.0] + ([] if scale is None else [scale[pl.program_id(0)]])

    @pl.when(pl.program_id(2) == 0)
    def _():
        for _, lanes, memories in groups:
            for n, ((k, _), (keys, d_keys, d_values)) in enumerate(zip(pairs, memories)):
                keys[...] = (unit(k[0, :, lanes], layout.heads)[0] * gain(n)).astype(keys.dtype)
                d_keys[...] = jnp.zeros_like(d_keys)
                d_values[...] = jnp.zeros_like(d_values)

    for group, lanes, memories in groups:
        biases = [None if bias is None else bias.at[0, layout.rows(n)] for n in range(len(pairs))]
        values = [v.at[0, :, lanes] for _, v in pairs]
        given = list(zip(values, biases, memories))
        d_gain = jnp.zeros((1, LANES), jnp.float32)
        for queries in layout.chunks(BACKWARD_WEIGHTS):
            normal, root = unit(q[0, queries, lanes], layout.heads)
            sides = normal * gains[:1], d_out[0, queries, lanes].astype(jnp.float32)
            d_query, inner = _through_branches(*sides, norms[0, group, :, queries], given, factors, layout)
            if d_scale is not None:
                d_scale[0, group, :, queries] = inner
            d_x, more = unit_back(jnp.transpose(d_query), normal, root, gains[:1], layout.heads)
            d_q[0, queries, lanes] = d_x.astype(d_q.dtype)
            d_gain += more
        d_q_gain[0, group, 0] = d_gain

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        for group, lanes, memories in groups:
            for n, ((k, _), (d_k, d_v), (_, d_keys, d_values)) in enumerate(zip(pairs, d_pairs, memories)):
                normal = unit(k[0, :, lanes], layout.heads)
                d_x, d_k_gains[0, group, n : n + 1] = unit_back(
                    d_keys[...] * factors[n], *normal, gain(n), layout.heads
                )
                d_k[0, :, lanes] = d_x.astype(d_k.dtype)
                d_v[0, :, lanes] = (d_values[...] * factors[n]).astype(d_v.dtype)


def _through_branches(query, d_value, norms, given, factors, layout: Layout) -> tuple[Array, Array]:
    """Adds to the gathered gradients. The query's gradient, (lanes, queries), and of the last branch each head's
    product of the value with its own, (heads, queries). given: of each branch its values, bias and memories."""
    d_query, dtype = 0.0, given[0][0].dtype
    for n, (v, bias, memories) in enumerate(given):
        d_heads, inners = [], []
        for head in range(layout.heads):
            sides = (only(x, head, layout.heads).astype(dtype) for x in (query, d_value))
            row = n * layout.heads + head
            column = None if bias is None else bias[...]
            d_head, inner = _through_softmax(*sides, v[...], norms[row : row + 1], column, *memories)
            d_heads.append(d_head[layout.head_dim * head : layout.head_dim * (head + 1)])
            inners.append(inner)
        d_query += jnp.concatenate(d_heads) * factors[n]
    return d_query, jnp.concatenate(inners)


def _through_softmax(query, d_value, v, norm, bias, keys, d_keys, d_values) -> tuple[Array, Array]:
    """Adds to d_keys and d_values. The query's gradient, (lanes, queries), and the value's product with its own, (1,
    queries): summed here over the keys, as the result holds both branches."""
    logits = dot(keys[...], query, (1, 1))
    weights = jnp.exp2((logits if bias is None else logits + bias) - norm)
    products = weights * dot(v, d_value, (1, 1))
    inner = products.sum(axis=0, keepdims=True)
    d_logits = (products - weights * inner).astype(query.dtype)
    d_values[...] += dot(weights.astype(query.dtype), d_value, (1, 0))
    d_keys[...] += dot(d_logits, query, (1, 0))
    return dot(keys[...], d_logits, (0, 0)), inner
