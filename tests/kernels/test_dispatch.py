"""Which implementation runs, and a kernel on a mesh."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.kernels import Unsupported, reference, self_attention
from fooddit.kernels.dispatch import Target, target
from fooddit.kernels.tpu_cross_attention import tpu_decoupled_cross_attention
from fooddit.kernels.tpu_self_attention import tpu_self_attention
from fooddit.kernels.tpu_sharding import on_each_device, tpu_generation
from fooddit.parallel import MeshConfig, make_mesh
from fooddit.parallel.rules import cross_attention_partition, self_attention_partition

HEADS, HEAD_DIM, TOKENS, BATCH = 4, 64, 128, 4
GAINS = {"q_scale": jnp.ones(HEAD_DIM), "k_scale": jnp.linspace(0.5, 1.5, HEAD_DIM)}
POSITIONS = jnp.stack([jnp.arange(TOKENS) // 16, jnp.arange(TOKENS) % 16], axis=1).astype(jnp.float32)


def draws(count, tokens=TOKENS):
    keys = jax.random.split(jax.random.key(count), count)
    return [jax.random.normal(key, (BATCH, tokens, HEADS * HEAD_DIM)) for key in keys]


def attend(**options):
    q, k, v = draws(3)
    return self_attention(q, k, v, num_heads=HEADS, positions=POSITIONS, **GAINS, **options)


def test_a_cpu_gets_the_plain_one():
    assert target().platform == "cpu"
    np.testing.assert_array_equal(attend(), attend(implementation="xla"))
    np.testing.assert_array_equal(attend(), attend(implementation=("cudnn", "pallas_tpu", "xla")))


def test_an_error_names_why_each_one_cannot():
    with pytest.raises(Unsupported) as error:
        attend(implementation=("cudnn", "pallas_tpu"))
    message = str(error.value)
    assert message.startswith("self_attention on cpu: no implementation works; cudnn: needs an NVIDIA GPU")
    assert "pallas_tpu: needs a TPU, the computation is for cpu" in message


@pytest.mark.parametrize("implementation", ["flash", (), ("xla", "flash")])
def test_an_unknown_name_is_refused(implementation):
    with pytest.raises(ValueError, match="expected 'auto', one of 'pallas_tpu', 'cudnn', 'xla', or a sequence"):
        attend(implementation=implementation)


def test_a_tpu_without_block_sizes_is_refused():
    assert tpu_generation(Target("tpu", "TPU v6 lite")) == "v6e"
    with pytest.raises(Unsupported, match="TPU v3 has no block sizes; known are v5e, v5p, v6e, tpu7x"):
        tpu_generation(Target("tpu", "TPU v3"))


@pytest.mark.parametrize(
    "config", [MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(data=2, fsdp=2, sequence=2)], ids=["tensor", "sequence"]
)
def test_on_a_mesh_each_device_takes_its_examples_and_heads(config):
    """And with a sequence axis its share of the queries in cross-attention, of the heads in self-attention."""
    q, k, v, text_k, text_v, image_k, image_v, d_out = draws(8)
    mask = jnp.arange(TOKENS) < jnp.array([[TOKENS], [50], [1], [0]])
    scale = jnp.array([0.0, 0.5, 1.0, 2.0])
    run = partial(on_each_device, num_heads=HEADS)
    gains = {"q_scale": GAINS["q_scale"], "text_k_scale": GAINS["k_scale"], "image_k_scale": GAINS["k_scale"]}

    def kernels(q, k, v, image_k, scale):
        keys, rest = {"k": k, "v": v}, {"batched": {"kv_mask": mask}, "whole": GAINS | {"positions": POSITIONS}}
        partition = self_attention_partition(len(q), HEADS)
        kernel = partial(tpu_self_attention, interpret=True)
        x = run(kernel, queries={"q": q}, keys=keys, partition=partition, **rest)
        keys = {"text_k": text_k, "text_v": text_v, "image_k": image_k, "image_v": image_v}
        rest = {"batched": {"text_mask": mask, "image_mask": None, "image_scale": scale}, "whole": gains}
        partition = cross_attention_partition(len(q), TOKENS, HEADS)
        kernel = partial(tpu_decoupled_cross_attention, interpret=True)
        return run(kernel, queries={"q": x}, keys=keys, partition=partition, **rest)

    def plain(q, k, v, image_k, scale):
        x = reference.self_attention(q, k, v, num_heads=HEADS, positions=POSITIONS, kv_mask=mask, **GAINS)
        return reference.decoupled_cross_attention(
            x, text_k, text_v, image_k, image_v, num_heads=HEADS, text_mask=mask, image_scale=scale, **gains
        )

    primals = (q, k, v, image_k, scale)
    expected, pull = jax.vjp(plain, *primals)
    wanted = pull(d_out)
    with jax.set_mesh(make_mesh(config)):
        found, gradients = jax.jit(lambda *p: (lambda o, f: (o, f(d_out)))(*jax.vjp(kernels, *p)))(*primals)
    np.testing.assert_allclose(found, expected, atol=5e-6)
    for gradient, want in zip(gradients, wanted):
        np.testing.assert_allclose(gradient, want, atol=2e-5 * float(jnp.abs(want).max()))


def test_a_mesh_needs_to_know_how_the_arrays_lie():
    q, k, v = draws(3)
    with jax.set_mesh(make_mesh(MeshConfig(data=-1))), pytest.raises(Unsupported, match="has 8 devices: `partition`"):
        on_each_device(
            tpu_self_attention,
            queries={"q": q},
            keys={"k": k, "v": v},
            batched={},
            whole=GAINS | {"positions": POSITIONS},
            num_heads=HEADS,
            partition=None,
        )
