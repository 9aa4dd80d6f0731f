"""The analytic count of FLOPs against XLA's own of an unrolled model: XLA sees a scanned block once."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from fooddit.models.dit import DiTConfig
from fooddit.models.flops import flops_per_example
from fooddit.models.text import TextConfig
from fooddit.models.text_to_image import define_model


@pytest.mark.parametrize("tokens, length", [(64, 16), (16, 48)])
def test_forward_flops_are_those_of_an_unrolled_program(tokens, length):
    dit = DiTConfig(width=128, depth=3, head_dim=32, scan_unroll=3)
    text = TextConfig(width=64, depth=2, vocabulary=300, length=length)
    definition = define_model(SimpleNamespace(model=dit, text=text), None, 48)
    batch = 4

    def forward(params, x, t, ids, mask):
        model = definition.bind(params)
        conditions = model.conditions({"text": ids, "text_mask": mask})
        return model(x, t, conditions, positions=jnp.zeros((tokens, 2)))

    shapes = (
        jax.ShapeDtypeStruct((batch, tokens, 48), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.float32),
        jax.ShapeDtypeStruct((batch, length), jnp.int32),
        jax.ShapeDtypeStruct((batch, length), bool),
    )
    counted = jax.jit(forward).lower(definition.shapes, *shapes).compile().cost_analysis()["flops"] / batch
    analytic = flops_per_example(dit, text, tokens, definition.shapes) / 3
    # XLA also counts norms, softmax and activations, a few percent at this width.
    assert analytic < counted < 1.15 * analytic
