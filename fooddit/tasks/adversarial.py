"""An autoencoder against a critic of its pictures, in one loss."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fooddit.models.discriminator import DiscriminatorConfig


@dataclass(frozen=True)
class AdversarialConfig:
    """Attributes:
    weight: of the critic's opinion in the autoencoder's loss; 0: there is no critic. It is fixed: a weight from the
      ratio of two gradients (Esser et al. 2021, arXiv:2012.09841) is another one for each part of an accumulated batch
      and costs two backward passes.
    start: steps until the autoencoder hears the critic, which learns from the first on: by then it is no stranger.
    smoothness: weight of the penalty on what a little noise changes in the critic's opinion of real pictures.
    noise: deviation of that noise, pixels being in [-1, 1].
    """

    weight: float = 0.0
    start: int = 0
    smoothness: float = 1.0
    noise: float = 0.1
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self):
        for name in ("weight", "start", "smoothness", "noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"adversarial.{name} must be at least 0, found {getattr(self, name)}")


class AdversarialLoss(NamedTuple):
    """Means over the batch: what the autoencoder and what the critic should make small; logits of real and decoded."""

    autoencoder: Float[Array, ""]
    critic: Float[Array, ""]
    real: Float[Array, ""]
    decoded: Float[Array, ""]


def adversarial_loss(
    criticise: Callable[[dict, Array], Array],
    critic: dict,
    image: Float[Array, "batch height width 3"],
    decoded: Float[Array, "batch height width 3"],
    noise: Float[Array, "batch height width 3"],
    step: Int[Array, "batch"],
    config: AdversarialConfig,
) -> AdversarialLoss:
    """Hinge losses (Lim and Ye 2017, arXiv:1705.02894) and an R1 penalty by finite difference (Lin et al. 2025,
    arXiv:2501.08316), which needs no second derivative.

    `criticise(params, pixels)` gives logits, (batch, h, w). The sum of the two losses has the gradient of each with
    respect to its own parameters alone: the autoencoder's term sees the critic's parameters as constants, the critic's
    term the decoded pictures. One step on it moves both from where they are, as two steps with two optimizers on the
    same batch would; nothing of one leaks into the other. All terms are means over examples.
    """
    opinion = criticise(jax.lax.stop_gradient(critic), decoded)
    real, fake = criticise(critic, image), criticise(critic, jax.lax.stop_gradient(decoded))
    rough = jnp.square(real - criticise(critic, image + config.noise * noise))
    hinge = jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean()
    heard = (step >= config.start).astype(jnp.float32)
    return AdversarialLoss(
        autoencoder=-jnp.mean(heard * opinion.mean(axis=(1, 2))),
        critic=hinge + config.smoothness * rough.mean(),
        real=real.mean(),
        decoded=fake.mean(),
    )
