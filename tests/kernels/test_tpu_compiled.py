"""The kernels through the real TPU compiler, for every generation; skipped where libtpu is not installed."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from fooddit.aot.schedule import compiler_environment

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not installed: pip install 'fooddit[aot]'"
)

# Attention between its projections, as a block of a model has it, with all gradients; prints the compiled HLO.
PROGRAM = """
import sys
from functools import partial
import jax, jax.numpy as jnp
from fooddit.aot.topology import absent
from fooddit.kernels import decoupled_cross_attention, self_attention
from fooddit.parallel import MeshConfig, make_mesh

topology, head_dim, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
mesh = make_mesh(MeshConfig(data=1), absent(topology).devices[:1])
heads, width, shape = 2048 // head_dim, 2048, jax.ShapeDtypeStruct

def block(x, text, image, gain, positions, mask, weights):
    q, k, v, out, q2, k2, v2, k3, v3 = weights
    flat = lambda x, w: (x.reshape(-1, width) @ w).reshape(x.shape)
    shared = dict(num_heads=heads, q_scale=gain, implementation="pallas_tpu")
    x = self_attention(flat(x, q), flat(x, k), flat(x, v), k_scale=gain, positions=positions, **shared)
    x = flat(x, out)
    x = decoupled_cross_attention(
        flat(x, q2), flat(text, k2), flat(text, v2), flat(image, k3), flat(image, v3),
        text_k_scale=gain, image_k_scale=gain, text_mask=mask, **shared)
    return x.astype(jnp.float32).sum()

wide = lambda count: shape((4, count, width), jnp.bfloat16)
arrays = (wide(tokens), wide(512), wide(256), shape((head_dim,), jnp.float32), shape((tokens, 2), jnp.float32),
          shape((4, 512), jnp.bool), [shape((width, width), jnp.bfloat16)] * 9)
with jax.set_mesh(mesh):
    compiled = jax.jit(jax.grad(block, argnums=(0, 1, 2, 3, 6))).lower(*arrays).compile()
print(compiled.as_text())
"""


def compile_block(topology, head_dim, tokens):
    environment = os.environ | compiler_environment()
    environment.pop("XLA_FLAGS", None)
    command = [sys.executable, "-c", PROGRAM, topology, str(head_dim), str(tokens)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
@pytest.mark.parametrize("head_dim, tokens", [(128, 1024), (64, 1100)])
def test_forward_and_backward_compile(topology, head_dim, tokens):
    hlo = compile_block(topology, head_dim, tokens)
    for name in ("self_attention", "decoupled_cross_attention"):
        assert re.search(rf"%{name}[.\d]* = .*tpu_custom_call", hlo), name
        assert re.search(rf"%\w*{name}_backward\w*[.\d]* = .*tpu_custom_call", hlo), name


def test_nothing_is_transposed_or_copied_around_the_kernels():
    """No array of all tokens is transposed, reshaped or copied from HBM to HBM; what is fetched into VMEM (memory space
    1) is read from there."""
    hlo = compile_block("v6e:2x2", 128, 1024)
    moves = re.findall(r"^.* = bf16\[4,\d+,[\d,]+\]\S* (?:transpose|copy|reshape)\(.*$", hlo, re.MULTILINE)
    assert [line[:200] for line in moves if "S(1)" not in line.partition(" copy(")[0]] == []
