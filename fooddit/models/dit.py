"""The Diffusion Transformer: adaLN-single, QK-norm, axial RoPE, cross-attention to named contexts, SwiGLU."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from fooddit.kernels import KERNEL_RESULT
from fooddit.kernels.rope import axial_frequencies
from fooddit.models.layers import DTYPES, CrossAttention, Linear, RMSNorm, SelfAttention, SwiGLU, rms_normalise
from fooddit.models.module import stack
from fooddit.parallel import shard_batch, shard_tokens

# name: (width, depth, head_dim). head_dim 128 fills a TPU's lanes; ti is for a CPU.
SIZES = {
    "ti": (128, 4, 32),
    "s": (384, 12, 128),
    "b": (768, 12, 128),
    "l": (1024, 24, 128),
    "xl": (1536, 28, 128),
    "g": (2048, 32, 128),
}
# "dots" keeps the fused kernels' results too: they are small, and to make them again is the whole of attention.
REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(KERNEL_RESULT),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}
ATTENTION = ("auto", "pallas_tpu", "cudnn", "xla")


@dataclass(frozen=True)
class DiTConfig:
    """Shape of the transformer. A `size` (ti, s, b, l, xl, g) is a name for a width, depth and head_dim; a field that
    is not 0 overrides it.

    Attributes:
      remat: what the backward pass recomputes of each block: "none", "dots" (all but matrix products
        and fused attention) or "full".
      scan_unroll: blocks to unroll in the scan over depth; the compile time grows with it, a CPU's step gets shorter.
      dtype: of the activations; parameters stay float32.
      image_tokens, image_width: number and width of an image prompt's tokens, which cross-attention takes beside text
        with keys and values of its own; 0: no image prompts.
      attention: "auto" (the accelerator's fused kernel), "pallas_tpu", "cudnn" or "xla"; the text transformer's too.
    """

    size: str = "ti"
    width: int = 0
    depth: int = 0
    head_dim: int = 0
    remat: str = field(default="none", metadata={"operational": True})
    scan_unroll: int = field(default=1, metadata={"operational": True})
    dtype: str = "float32"
    image_tokens: int = 0
    image_width: int = 1024
    attention: str = field(default="auto", metadata={"operational": True})

    def __post_init__(self):
        if self.size not in SIZES:
            raise ValueError(f"model.size: found {self.size!r}, expected one of {', '.join(SIZES)}")
        for name, value in zip(("width", "depth", "head_dim"), SIZES[self.size]):
            if getattr(self, name) == 0:
                object.__setattr__(self, name, value)
        for name in ("width", "depth", "head_dim", "scan_unroll"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, found {getattr(self, name)}")
        if self.width % self.head_dim or self.head_dim % 4:
            raise ValueError(
                "model: head_dim must be a multiple of 4 that divides the width, "
                f"found {self.head_dim} and {self.width}"
            )
        if self.image_tokens < 0 or self.image_width < 1:
            raise ValueError(
                "model: expected image_tokens of at least 0 and image_width of at least 1, "
                f"found {self.image_tokens} and {self.image_width}"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"model.dtype: found {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        if self.attention not in ATTENTION:
            raise ValueError(f"model.attention: found {self.attention!r}, expected one of {', '.join(ATTENTION)}")
        if self.remat not in REMAT_POLICIES:
            raise ValueError(f"model.remat: found {self.remat!r}, expected one of {', '.join(REMAT_POLICIES)}")


class Context(NamedTuple):
    """Tokens that the picture's tokens attend to; where the mask is False there is padding."""

    tokens: Float[Array, "batch context width"]
    mask: Bool[Array, "batch context"]


class ExtraTokens(NamedTuple):
    """Tokens appended to self-attention (references), with float positions in patch units."""

    tokens: Float[Array, "batch extra width"]
    positions: Float[Array, "batch extra 2"]
    mask: Bool[Array, "batch extra"]


class DiT(nnx.Module):
    """x_t, t and contexts -> a prediction for each token.

    The backbone of PixArt-alpha (Chen et al. 2023, arXiv 2310.00426: cross-attention, adaLN-single, sinusoids of each
    token's place, here through a matrix) with the block of LightningDiT (Yao et al. 2025, arXiv 2501.01423: RMSNorm,
    SwiGLU, RoPE, QK-norm). RoPE alone says how far apart two tokens are; where a token of pure noise stands on the
    canvas it says to nobody.
    """

    def __init__(self, config: DiTConfig, *, token_features: int, context_width: int, rngs: nnx.Rngs):
        width = config.width
        self.config = config
        self.embed = Linear(token_features, width, axes=("features", "embed"), rngs=rngs, bias=True)
        self.place = Linear(config.head_dim, width, axes=("features", "embed"), rngs=rngs)
        self.time = TimeEmbedding(width, rngs=rngs)
        self.pooled = Linear(context_width, width, axes=("context", "embed"), rngs=rngs)
        self.modulation = Linear(width, 6 * width, axes=("embed", "mlp"), rngs=rngs, scale=0.0, bias=True)
        self.context_norm = RMSNorm(context_width, axis="features")
        if config.image_tokens:
            self.image_norm = RMSNorm(config.image_width, axis="features")
        self.blocks = stack(lambda r: Block(config, context_width, rngs=r), config.depth, rngs)
        self.final_table = nnx.Param(jnp.zeros((2, width)), axes=("features", "embed"))
        self.out = Linear(width, token_features, axes=("embed", "features"), rngs=rngs, scale=0.0, bias=True)

    def __call__(
        self,
        tokens: Float[Array, "batch tokens features"],
        timestep: Float[Array, "batch"],
        *,
        positions: Float[Array, "*batch tokens 2"],
        mask: Bool[Array, "batch tokens"] | None = None,
        context: Sequence[Context] = (),
        pooled: Float[Array, "batch context_width"] | None = None,
        image: Context | None = None,
        image_scale: float | Float[Array, ""] | Float[Array, "batch"] = 1.0,
        extra_tokens: Sequence[ExtraTokens] = (),
        block_residuals: Float[Array, "depth batch tokens width"] | None = None,
    ) -> Float[Array, "batch tokens features"]:
        """Predicts for every token; `timestep` in [0, 1], `positions` (row, column) in patch units.

        `context` groups are joined along the sequence. `image` is an image prompt's tokens (`model.image_tokens`),
        heard `image_scale` times, a number or one per example; it needs a context beside it. `block_residuals[i]` is
        added to the picture's tokens after block i (a control branch).
        """
        dtype = jnp.dtype(self.config.dtype)
        count = tokens.shape[1]
        x = self.embed(tokens.astype(dtype)) + self.place(
            place_sinusoids(positions, self.config.head_dim).astype(dtype)
        )
        x, positions, mask = _append(x, positions, mask, extra_tokens)
        x = shard_tokens(x)
        condition = self.time(timestep)
        if pooled is not None:
            # A mean over many tokens is small; normalised, it speaks as loud as the time. No caption stays zero.
            condition = condition + self.pooled(rms_normalise(pooled.astype(condition.dtype)))
        condition = jax.nn.silu(condition)
        modulation = shard_batch(self.modulation(condition)).reshape(-1, 6, self.config.width).astype(dtype)
        joined = _join(context, dtype)
        if joined is not None:
            joined = Context(shard_batch(self.context_norm(joined.tokens)), joined.mask)
        if image is not None:
            image = Context(shard_batch(self.image_norm(image.tokens.astype(dtype))), image.mask)
        graph, parameters = nnx.split(self.blocks)

        def block(x, layer):
            parameters, residual = layer
            x = shard_tokens(
                nnx.merge(graph, parameters)(x, modulation, joined, image, image_scale, positions=positions, mask=mask)
            )
            if residual is not None:
                x = x.at[:, :count].add(residual.astype(x.dtype))
            return x, None

        policy = REMAT_POLICIES[self.config.remat]
        if policy is not None:
            block = jax.checkpoint(block, policy=policy, prevent_cse=False)
        unroll = min(self.config.scan_unroll, self.config.depth)
        x, _ = jax.lax.scan(block, x, (parameters, block_residuals), unroll=unroll)
        shift, scale = jnp.split(modulation[:, :2] + self.final_table[...].astype(dtype), 2, axis=1)
        return self.out(modulate(rms_normalise(x[:, :count]), shift, scale)).astype(jnp.float32)


class Block(nnx.Module):
    """Self-attention, cross-attention and SwiGLU, each a residual; the shared modulation plus this block's table."""

    def __init__(self, config: DiTConfig, context_width: int, *, rngs: nnx.Rngs):
        self.attention = SelfAttention(config.width, config.head_dim, rngs=rngs, implementation=config.attention)
        self.cross_norm = RMSNorm(config.width)
        self.cross = CrossAttention(
            config.width,
            context_width,
            config.head_dim,
            rngs=rngs,
            image_width=config.image_width if config.image_tokens else 0,
            implementation=config.attention,
        )
        self.mlp = SwiGLU(config.width, rngs=rngs)
        self.table = nnx.Param(jnp.zeros((6, config.width)), axes=("features", "embed"))

    def __call__(self, x, modulation, context: Context | None, image: Context | None, image_scale, *, positions, mask):
        table = modulation + self.table[...].astype(x.dtype)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(table, 6, axis=1)
        h = modulate(rms_normalise(x), shift_a, scale_a)
        # Gates are around one: it is the output projections that start at zero, so both learn from the first step.
        x = x + (1 + gate_a) * self.attention(h, positions=positions, mask=mask)
        if context is not None:
            image = Context(None, None) if image is None else image
            x = x + self.cross(self.cross_norm(x), *context, *image, image_scale)
        h = modulate(rms_normalise(x), shift_m, scale_m)
        return x + (1 + gate_m) * self.mlp(h)


class TimeEmbedding(nnx.Module):
    """Sinusoids of 1000 t, then a two-layer MLP (Peebles & Xie 2022, arXiv 2212.09748)."""

    frequencies = 128

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.hidden = Linear(2 * self.frequencies, width, axes=("features", "embed"), rngs=rngs, bias=True)
        self.out = Linear(width, width, axes=("embed", "heads"), rngs=rngs, bias=True)

    def __call__(self, timestep: Float[Array, "batch"]) -> Float[Array, "batch width"]:
        rates = jnp.exp(-jnp.log(10_000.0) * jnp.arange(self.frequencies) / self.frequencies)
        angles = 1000.0 * timestep.astype(jnp.float32)[:, None] * rates
        features = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        # A sinusoid has variance one half; muP's input layers want one.
        return self.out(jax.nn.silu(self.hidden(features * 2**0.5)))


def place_sinusoids(positions: Float[Array, "*batch tokens 2"], count: int) -> Float[Array, "*batch tokens count"]:
    """Sines and cosines of the row, then of the column, in float32, as a Vision Transformer's tokens have them (Peebles
    & Xie 2022, arXiv 2212.09748), with RoPE's frequencies, of variance one as muP's input layers want it.

    As many as a head is wide: buckets give every example positions of its own, and a full width of sines would cost a
    TPU more than the matrix behind these.
    """
    angles = positions.astype(jnp.float32)[..., None] * axial_frequencies(count)
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return 2**0.5 * waves.reshape(*positions.shape[:-1], count)


def modulate(x: Float[Array, "batch tokens width"], shift, scale) -> Float[Array, "batch tokens width"]:
    """x (1 + scale) + shift, with (batch, 1, width) shift and scale."""
    return x * (1 + scale) + shift


def _append(x, positions, mask, extra: Sequence[ExtraTokens]):
    if not extra:
        return x, positions, mask
    batch, count = x.shape[:2]
    positions = jnp.broadcast_to(positions, (batch, count, 2))
    mask = jnp.ones((batch, count), bool) if mask is None else mask
    return (
        jnp.concatenate([x, *(e.tokens.astype(x.dtype) for e in extra)], axis=1),
        jnp.concatenate([positions, *(e.positions for e in extra)], axis=1),
        jnp.concatenate([mask, *(e.mask for e in extra)], axis=1),
    )


def _join(context: Sequence[Context], dtype) -> Context | None:
    if not context:
        return None
    tokens = jnp.concatenate([group.tokens.astype(dtype) for group in context], axis=1)
    return Context(tokens, jnp.concatenate([group.mask for group in context], axis=1))
