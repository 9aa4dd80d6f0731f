"""E-CLIP: an image tower and a text tower with one space for both; published CLIP, SigLIP and SigLIP 2 fit it too."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from fooddit.models.autoencoder import patch_positions, patchify
from fooddit.models.clip_layers import AttentionPool, Block, Norm, mean_over, resize_table
from fooddit.models.dit import REMAT_POLICIES
from fooddit.models.eclip_config import EclipConfig, ImageTowerConfig, TextTowerConfig, TowerConfig
from fooddit.models.layers import Linear
from fooddit.models.module import stack
from fooddit.models.text import TextFeatures
from fooddit.parallel import shard_tokens


class ImageFeatures(NamedTuple):
    """What the image tower gives: a vector a patch (after the final norm; no class token), and one a picture."""

    tokens: Float[Array, "batch patches width"]
    pooled: Float[Array, "batch embed"]


class Eclip(nnx.Module):
    """Pictures and captions to one space: `pooled` is projected there and of length one.

    Trained by Zhai et al. 2023 (arXiv 2303.15343) with a sigmoid for each pair; first by Radford et al. 2021
    (arXiv 2103.00020) with a softmax.
    """

    def __init__(self, config: EclipConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.image = ImageTower(config.image, config, rngs=rngs)
        self.text = TextTower(config.text, config, rngs=rngs)
        # SigLIP's start: nearly all pairs are negative.
        self.logit_scale = nnx.Param(jnp.log(jnp.full((), 10.0)), axes=())
        self.logit_bias = nnx.Param(jnp.full((), -10.0), axes=()) if config.logit_bias else None

    def encode_image(self, pixels: Float[Array, "batch height width 3"]) -> ImageFeatures:
        """Pixels in [-1, 1], of any size that is a multiple of the patch. ValueError for another one."""
        return self.image(pixels)

    def encode_text(self, ids: Int[Array, "batch length"], mask: Bool[Array, "batch length"]) -> TextFeatures:
        """Token ids and which of them are text; without any, `pooled` is exactly zero."""
        return self.text(ids, mask)

    def scale_and_bias(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """A logit is scale x (image . text) + bias."""
        bias = jnp.zeros(()) if self.logit_bias is None else self.logit_bias[...].astype(jnp.float32)
        return jnp.exp(self.logit_scale[...].astype(jnp.float32)), bias

    def logits(self, image: Float[Array, "pictures embed"], text: Float[Array, "captions embed"]) -> Array:
        """(pictures, captions), of pooled vectors."""
        scale, bias = self.scale_and_bias()
        return scale * jnp.einsum("ie,te->it", image, text, precision="highest") + bias


class ImageTower(nnx.Module):
    """Patches, blocks, final norm, pooling, projection."""

    def __init__(self, config: ImageTowerConfig, whole: EclipConfig, *, rngs: nnx.Rngs):
        self.config, self.whole, self.interpolation = config, whole, config.interpolation
        features, width = 3 * config.patch**2, config.width
        bias = config.bias and not config.pre_norm
        self.patches = Linear(features, width, axes=("features", "embed"), rngs=rngs, bias=bias)
        has_class = config.pooling == "class"
        self.class_token = nnx.Param(jax.random.normal(rngs.params(), (width,)), axes=("embed",)) if has_class else None
        self.table = _table(config, config.tokens + has_class, rngs)
        self.pre_norm = Norm(config) if config.pre_norm else None
        self.blocks = stack(lambda r: Block(config, rngs=r, attention=whole.attention), config.depth, rngs)
        self.norm = Norm(config)
        self.pool = AttentionPool(config, rngs=rngs) if config.pooling == "attention" else None
        self.projection = _projection(config, whole.embed, rngs)

    def __call__(self, pixels: Float[Array, "batch height width 3"]) -> ImageFeatures:
        shape = self.shape(*pixels.shape[1:3])
        table = None if self.table is None else self.position_table(shape)
        patches = patchify(pixels, self.config.patch)
        return self.encode_patches(patches, jnp.asarray(patch_positions(shape)), table=table)

    def position_table(self, shape: tuple[int, int]) -> Float[Array, "n width"]:
        """The learned positions of a picture of (rows, columns) of patches."""
        # The class token's entry comes first.
        return resize_table(self.table[...][-self.config.tokens :], shape, self.interpolation)

    def encode_patches(
        self,
        patches: Float[Array, "batch n features"],
        positions: Float[Array, "*batch n 2"],
        mask: Bool[Array, "batch n"] | None = None,
        table: Float[Array, "n width"] | None = None,
    ) -> ImageFeatures:
        """Features of `patchify`'s squares at (row, column); the mask is False at padding.

        A tower with learned positions needs their `table`, for pictures of one shape.
        """
        dtype = self.whole.dtype
        x = self.patches(self._normalise(patches).astype(dtype))
        if self.table is not None:
            x = x + table.astype(dtype)
        if self.class_token is not None:
            x, positions, mask = self._with_class_token(x, positions, mask)
        x = shard_tokens(x)
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        x = self.norm(run_blocks(self.blocks, x, self.config.depth, self.whole, positions=positions, mask=mask))
        if self.class_token is not None:
            return ImageFeatures(x[:, 1:], self._project(x[:, 0]))
        pooled = mean_over(x, mask) if self.pool is None else self.pool(x, mask)
        return ImageFeatures(x, self._project(pooled))

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of a picture. ValueError for sides that are not multiples of the patch."""
        patch = self.config.patch
        if height % patch or width % patch or min(height, width) < patch:
            raise ValueError(f"a picture of {height} x {width} pixels: expected sides that are multiples of {patch}")
        return height // patch, width // patch

    def _normalise(self, patches: Float[Array, "batch n features"]) -> Float[Array, "batch n features"]:
        mean, deviation = jnp.array(self.config.mean), jnp.array(self.config.deviation)
        pixels = patches.reshape(*patches.shape[:2], -1, 3) * (0.5 / deviation) + (0.5 - mean) / deviation
        return pixels.reshape(patches.shape)

    def _with_class_token(self, x, positions, mask):
        batch = x.shape[0]
        token = self.class_token[...].astype(x.dtype)
        if self.table is not None:
            token = token + self.table[...][0].astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (batch, 1, x.shape[2])), x], axis=1)
        # With RoPE it stands beside the top left corner.
        beside = jnp.full((*positions.shape[:-2], 1, 2), -1.0)
        positions = jnp.concatenate([beside, positions], axis=-2)
        return x, positions, None if mask is None else jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)

    def _project(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch embed"]:
        return unit_length(_projected(self.projection, pooled))


class TextTower(nnx.Module):
    """Embedding, blocks, final norm, pooling, projection."""

    def __init__(self, config: TextTowerConfig, whole: EclipConfig, *, rngs: nnx.Rngs):
        self.config, self.whole, self.end = config, whole, config.end
        embedding = jax.random.normal(rngs.params(), (config.vocabulary, config.width))
        self.embedding = nnx.Param(embedding, axes=("vocab", "embed"))
        self.table = _table(config, config.length, rngs)
        self.blocks = stack(
            lambda r: Block(config, rngs=r, causal=config.causal, attention=whole.attention), config.depth, rngs
        )
        self.norm = Norm(config)
        self.projection = _projection(config, whole.embed, rngs)

    def __call__(self, ids: Int[Array, "batch length"], mask: Bool[Array, "batch length"]) -> TextFeatures:
        length, dtype = ids.shape[1], self.whole.dtype
        x = self.embedding[...][ids].astype(dtype)
        if self.table is not None:
            x = x + self.table[...][:length].astype(dtype)
        # The rotary embedding is two-dimensional: a text runs along its diagonal.
        positions = jnp.repeat(jnp.arange(length, dtype=jnp.float32)[:, None], 2, axis=1)
        seen = None if self.config.pooling == "last" else mask
        x = run_blocks(self.blocks, shard_tokens(x), self.config.depth, self.whole, positions=positions, mask=seen)
        x = self.norm(x)
        pooled = unit_length(_projected(self.projection, self._pool(x, ids, mask)))
        return TextFeatures(x, mask, jnp.where(mask.any(axis=1, keepdims=True), pooled, 0))

    def _pool(self, x: Float[Array, "batch length width"], ids, mask) -> Float[Array, "batch width"]:
        if self.config.pooling == "mean":
            return mean_over(x, mask)
        if self.config.pooling == "last":
            return x[:, -1]
        end = jnp.argmax(ids == self.end, axis=1)
        return jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]


def run_blocks(blocks: Block, x, depth: int, config: EclipConfig, *, positions, mask):
    """Stacked blocks, one after the other."""
    graph, parameters = nnx.split(blocks)

    def block(x, parameters):
        return shard_tokens(nnx.merge(graph, parameters)(x, positions=positions, mask=mask)), None

    policy = REMAT_POLICIES[config.remat]
    if policy is not None:
        block = jax.checkpoint(block, policy=policy, prevent_cse=False)
    return jax.lax.scan(block, x, parameters, unroll=min(config.scan_unroll, depth))[0]


def unit_length(x: Float[Array, "... embed"]) -> Float[Array, "... embed"]:
    """x / |x|, in float32; zero stays zero."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def _table(config: TowerConfig, length: int, rngs: nnx.Rngs) -> nnx.Param | None:
    if config.positions != "learned":
        return None
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), (length, config.width)), axes=("features", "embed"))


def _projection(config: TowerConfig, embed: int, rngs: nnx.Rngs) -> Linear | None:
    if config.projection == "none":
        return None
    bias = config.projection == "affine"
    return Linear(config.width, embed, axes=("embed", "features"), rngs=rngs, bias=bias)


def _projected(projection: Linear | None, pooled: Float[Array, "batch width"]) -> Float[Array, "batch out"]:
    pooled = pooled.astype(jnp.float32)
    return pooled if projection is None else projection(pooled)
