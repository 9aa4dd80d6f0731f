"""What a step of contrastive training computes: both towers and the loss of their pairs. Needs no data."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx

from fooddit.config import OPERATIONAL
from fooddit.data.pairs import MOST_CAPTIONS, PairDataConfig
from fooddit.models.autoencoder import patch_positions, patchify, pixels_from_bytes
from fooddit.models.contrastive_loss import sigmoid_loss
from fooddit.models.eclip import Eclip
from fooddit.models.eclip_config import EclipConfig
from fooddit.models.layers import Linear
from fooddit.models.module import define
from fooddit.parallel import shard_batch
from fooddit.training.frozen import Frozen
from fooddit.training.task import Experiment


@dataclass(frozen=True)
class RetrievalConfig:
    """Attributes:
    examples: held-out pictures that are retrieved from, and with.
    baseline: training pictures that the colour histograms are of.
    batch_size: of pictures or captions encoded at once.
    """

    examples: int = 512
    baseline: int = 2000
    batch_size: int = 64

    def __post_init__(self):
        for name in ("examples", "baseline", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name} must be at least 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class ContrastiveExperiment(Experiment):
    """Config of the task `contrastive`.

    Attributes:
      reconstruction: weight of the squared error with which one linear layer, thrown away afterwards, tells a patch's
        pixels ([-1, 1]) from its token. Captions name neither an exact hue nor a texture, and contrast alone forgets
        what they do not name; image prompts are made of these tokens. 0: none.
    """

    data: PairDataConfig = field(kw_only=True)
    model: EclipConfig = field(default_factory=EclipConfig)
    reconstruction: float = 1.0
    evaluation: RetrievalConfig = field(default_factory=RetrievalConfig, metadata=OPERATIONAL)

    def __post_init__(self):
        super().__post_init__()
        if self.reconstruction < 0:
            raise ValueError(f"reconstruction must be at least 0, found {self.reconstruction}")
        if self.train.accumulate > 1:
            raise ValueError(
                f"train.accumulate is {self.train.accumulate}, expected 1: each picture is compared with every caption "
                "of the batch, and the loss of a batch in parts is another one; use more devices, config.model.remat "
                "or a smaller data.batch_size"
            )
        if self.data.image_size != self.model.image.image_size:
            raise ValueError(
                f"data.image_size is {self.data.image_size}, model.image.image_size {self.model.image.image_size}; "
                "make them equal"
            )
        if self.model.text.vocabulary < 257:
            raise ValueError(
                f"model.text.vocabulary is {self.model.text.vocabulary}: expected at least 257, the bytes and the "
                "padding"
            )
        if self.data.max_aspect > 1 and self.model.image.positions == "learned":
            raise ValueError(
                f"data.max_aspect is {self.data.max_aspect}, expected 1 with model.image.positions 'learned': their "
                "table is of one shape"
            )
        self.data.examples(self.model.image.patch)


class TrainedEclip(Eclip):
    """An E-CLIP with the layer that reconstructs patches."""

    def __init__(self, config: EclipConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        width, patch = config.image.width, config.image.patch
        self.pixels = Linear(width, 3 * patch * patch, axes=("embed", "features"), rngs=rngs, bias=True)


def without_reconstruction(params: dict) -> dict:
    """The parameters of the E-CLIP alone."""
    return {name: leaf for name, leaf in params.items() if name != "pixels"}


class ContrastiveStep:
    """The part of the task `contrastive` that is compiled: parameters, what a batch is, the loss."""

    def __init__(self, experiment: ContrastiveExperiment):
        self.experiment, self.frozen = experiment, Frozen()
        kind = TrainedEclip if experiment.reconstruction else Eclip
        self.definition = define(lambda rngs: kind(experiment.model, rngs=rngs))
        self.shapes, self.axes, self.init = self.definition.shapes, self.definition.axes, self.definition.init
        self.length = experiment.model.image.tokens
        self.flops_per_example = flops_per_example(experiment.model, self.shapes)

    @property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        data, shape = self.experiment.data, jax.ShapeDtypeStruct
        count, text = data.batch_size, (data.batch_size, self.experiment.model.text.length)
        return {
            "image": shape((count, data.image_size, data.image_size, 3), jnp.uint8),
            "text": shape(text, jnp.int32),
            "text_mask": shape(text, jnp.bool),
            "image_names": shape((count, 1 + MOST_CAPTIONS), jnp.int32),
            "text_names": shape((count, 2), jnp.int32),
            "index": shape((count,), jnp.int32),
        }

    def device_batch(self, frozen, batch: dict) -> dict:
        """Pictures of one bucket to patches, of the one number that the step is compiled for."""
        image, count = batch["image"], len(batch["index"])
        patch = self.experiment.model.image.patch
        shape = image.shape[1] // patch, image.shape[2] // patch
        missing = self.length - shape[0] * shape[1]
        passed = ("text", "text_mask", "image_names", "text_names", "index")
        made = {name: batch[name] for name in passed}
        made["patches"] = jnp.pad(patchify(image, patch), ((0, 0), (0, missing), (0, 0)))
        if self.experiment.data.max_aspect > 1:
            positions = jnp.pad(patch_positions(shape), ((0, missing), (0, 0)))
            made["positions"] = jnp.broadcast_to(positions, (count, self.length, 2))
            made["mask"] = jnp.broadcast_to(jnp.arange(self.length) < self.length - missing, (count, self.length))
        return made

    def loss(self, params, frozen, batch: dict, key: jax.Array):
        model = self.definition.bind(params)
        side = self.experiment.data.image_size // self.experiment.model.image.patch
        positions = batch.get("positions", jnp.asarray(patch_positions((side, side))))
        table = None if model.image.table is None else model.image.position_table((side, side))
        patches = pixels_from_bytes(batch["patches"])
        image = model.image.encode_patches(patches, positions, batch.get("mask"), table)
        text = model.encode_text(batch["text"], batch["text_mask"]).pooled
        scale, bias = model.scale_and_bias()
        names = {name: batch[name] for name in ("image_names", "text_names")}
        pairs = sigmoid_loss(shard_batch(image.pooled), shard_batch(text), scale, bias, **names)
        metrics = {"logit_scale": scale, "logit_bias": bias, "ignored_pairs": pairs.ignored}
        if not self.experiment.reconstruction:
            return pairs.loss, metrics
        error = jnp.mean(jnp.square(model.pixels(image.tokens).astype(jnp.float32) - patches), axis=-1)
        error = jnp.mean(error, where=batch.get("mask"))
        metrics |= {"contrast": pairs.loss, "patch_error": error}
        return pairs.loss + self.experiment.reconstruction * error, metrics


def flops_per_example(config: EclipConfig, shapes) -> float:
    """Model FLOPs of one pair's forward and backward pass, from the shapes of the weights.

    A weight matrix costs 2 x tokens x its size forward and twice that backward; attention adds its two products. The
    loss's own product, of all pictures with all captions, is not among it.
    """
    total = 0.0
    for name, tower, tokens in (
        ("image", config.image, config.image.tokens),
        ("text", config.text, config.text.length),
    ):
        weights = shapes[name]
        pool = weights.get("pool", {})
        # One vector a picture or caption; of a pool all but the keys and values that its query attends to.
        once = _matrices({part: pool[part] for part in ("query", "out", "mlp") if part in pool})
        once += _matrices(weights.get("projection", {}))
        if name == "image":
            total += 2.0 * tokens * _matrices(shapes.get("pixels", {}))
        total += 2.0 * (once + tokens * (_matrices(weights) - once)) + 4.0 * tower.depth * tower.width * tokens**2
    return 3.0 * total


def _matrices(tree) -> int:
    return sum(leaf.size for path, leaf in jax.tree.leaves_with_path(tree) if path[-1].key == "kernel")
