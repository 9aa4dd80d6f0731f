import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.aot.operations import flops
from fooddit.models.discriminator import DiscriminatorConfig, PatchDiscriminator, multiplications
from fooddit.models.module import define

CONFIG = DiscriminatorConfig(width=8, depth=2)


@pytest.fixture(scope="module")
def critic():
    definition = define(lambda rngs: PatchDiscriminator(CONFIG, rngs=rngs))
    return definition.bind(definition.init(jax.random.key(0)))


def test_a_patch_is_judged_by_itself(critic):
    picture = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
    logits = critic(picture)
    assert logits.shape == (2, 16, 16)
    changed = critic(picture.at[0, :8, :8].set(0.0))
    different = np.asarray(logits != changed)
    assert different[0, 0, 0] and not different[1].any()
    assert not different[0, 6:].any() and not different[0, :, 6:].any()


def test_multiplications_are_those_of_the_program():
    definition = define(lambda rngs: PatchDiscriminator(CONFIG, rngs=rngs))
    shape = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda p, x: definition.bind(p)(x))(definition.shapes, shape)
    assert 2 * multiplications(CONFIG, 32) == flops(jaxpr.jaxpr)


def test_bad_configs_are_refused():
    with pytest.raises(ValueError, match="discriminator.depth must be at least 1, found 0"):
        DiscriminatorConfig(depth=0)
