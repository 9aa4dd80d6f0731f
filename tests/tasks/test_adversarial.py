import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.tasks.adversarial import AdversarialConfig, adversarial_loss

STEPS = jnp.array([3, 3, 3])


def criticise(params, pixels):
    return (pixels @ params["kernel"])[..., 0]


def decode(params, image):
    return image * params["gain"]


def loss(params, step=STEPS, part=lambda found: found.autoencoder + found.critic, **settings):
    image = 1 + 0.3 * jax.random.normal(jax.random.key(0), (3, 4, 4, 3))
    noise = jax.random.normal(jax.random.key(1), image.shape)
    config = AdversarialConfig(weight=1.0, **settings)
    return part(
        adversarial_loss(criticise, params["critic"], image, decode(params["decoder"], image), noise, step, config)
    )


PARAMS = {"critic": {"kernel": jnp.array([[0.5], [-0.3], [0.8]])}, "decoder": {"gain": jnp.array(0.7)}}


def test_each_side_has_the_gradient_of_its_own_loss_alone():
    both = jax.grad(loss)(PARAMS)
    mine = jax.grad(lambda p: loss(p, part=lambda found: found.autoencoder))(PARAMS)
    its = jax.grad(lambda p: loss(p, part=lambda found: found.critic))(PARAMS)
    assert not np.any(mine["critic"]["kernel"]) and not np.any(its["decoder"]["gain"])
    assert np.all(mine["decoder"]["gain"] != 0) and np.all(its["critic"]["kernel"] != 0)
    np.testing.assert_array_equal(both["decoder"]["gain"], mine["decoder"]["gain"])
    np.testing.assert_array_equal(both["critic"]["kernel"], its["critic"]["kernel"])


def test_following_the_gradients_each_side_gets_its_way():
    opinions = lambda p: loss(p, part=jnp.stack, smoothness=0.0)  # noqa: E731
    gradients = jax.grad(loss)(PARAMS, smoothness=0.0)
    before = opinions(PARAMS)

    def moved(name):
        return opinions(PARAMS | {name: jax.tree.map(lambda p, g: p - 0.01 * g, PARAMS[name], gradients[name])})

    assert moved("critic")[1] < before[1], "the critic's own loss falls"
    assert moved("decoder")[0] < before[0] and moved("decoder")[3] > before[3], "the pictures look more real to it"


def test_the_critic_is_heard_from_its_start_on():
    gain = lambda step: jax.grad(loss)(PARAMS, step=jnp.full(3, step), start=5)["decoder"]["gain"]  # noqa: E731
    assert gain(4) == 0 and gain(5) != 0
    kernel = lambda step: jax.grad(loss)(PARAMS, step=jnp.full(3, step), start=5)["critic"]["kernel"]  # noqa: E731
    np.testing.assert_array_equal(kernel(0), kernel(5))


def test_a_rough_critic_pays_for_it():
    rough = PARAMS | {"critic": {"kernel": 4 * PARAMS["critic"]["kernel"]}}
    paid = [loss(p, smoothness=1.0) - loss(p, smoothness=0.0) for p in (PARAMS, rough)]
    assert paid[1] > 2 * paid[0] > 0
    assert loss(PARAMS, noise=0.0) == loss(PARAMS, smoothness=0.0)


@pytest.mark.parametrize("name", ["weight", "start", "smoothness", "noise"])
def test_negative_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"adversarial.{name} must be at least 0"):
        AdversarialConfig(**{name: -1})
