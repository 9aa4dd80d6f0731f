"""FLOPs and kernels counted in a jaxpr."""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from fooddit.aot.operations import flops, kernel_flops, kernels
from fooddit.models.dit import REMAT_POLICIES
from fooddit.parallel import MeshConfig, make_mesh

SQUARE = jnp.ones((8, 8))
PRODUCT = 2 * 8**3


def double(x):
    cost = pl.CostEstimate(flops=100, bytes_accessed=0, transcendentals=0)
    out = jax.ShapeDtypeStruct(x.shape, x.dtype)

    def kernel(x, o):
        o[...] = 2 * x[...]

    return pl.pallas_call(kernel, out_shape=out, cost_estimate=cost, interpret=True, name="double")(x)


def count(function, *arrays):
    return flops(jax.make_jaxpr(function)(*arrays).jaxpr)


def test_products_loops_and_branches():
    loop = lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, length=5)[0]
    assert count(lambda x: x @ x, SQUARE) == PRODUCT
    assert count(loop, SQUARE) == 5 * PRODUCT
    assert count(jax.jit(loop), SQUARE) == 5 * PRODUCT
    assert count(lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x, lambda: x), SQUARE) == PRODUCT
    kernel = jnp.ones((3, 3, 4, 6))
    convolve = lambda x: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert count(convolve, jnp.ones((2, 8, 8, 4))) == 2 * 2 * 8 * 8 * 6 * 4 * 9


def test_rematerialisation_shows():
    def block(x, w):
        return jnp.tanh(jnp.tanh(x @ w) @ w)

    def loss(policy):
        run = block if policy is None else jax.checkpoint(block, policy=policy)
        return jax.grad(lambda w, x: run(x, w).sum())

    counts = {name: count(loss(policy), SQUARE, SQUARE) for name, policy in REMAT_POLICIES.items()}
    assert counts["none"] == counts["dots"] < counts["full"]


def test_kernels_of_one_shape_are_one():
    def run(x):
        y = jax.lax.scan(lambda c, _: (double(c), None), x, length=3)[0]
        return double(y) @ double(y[:4]).T

    jaxpr = jax.make_jaxpr(run)(SQUARE).jaxpr
    assert sorted((k.name, k.times, k.equation.invars[0].aval.shape) for k in kernels(jaxpr)) == [
        ("double", 1, (4, 8)),
        ("double", 4, (8, 8)),
    ]
    assert kernel_flops(jaxpr) == 500


def test_under_shard_map_all_devices_count():
    mesh = make_mesh(MeshConfig(data=-1), jax.devices()[:4])
    rows = PartitionSpec("data")
    run = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=rows, out_specs=rows)
    assert count(run, SQUARE) == 4 * 2 * 2 * 2 * 8
