"""AutoencoderKL in the diffusers layout: Stable Diffusion's, SDXL's, SD3's and FLUX's, and our own of that kind."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fooddit.models.convolution import Conv, GroupNorm, numbered, run, upsample
from fooddit.models.layers import Linear
from fooddit.models.module import Definition, define
from fooddit.parallel import shard_batch

# Queries of attention that are compared with all keys at once: of a 1024-pixel picture, 64 MB of logits and not 1 GB.
QUERIES = 1024


@dataclass(frozen=True)
class KLConfig:
    """The keys of a diffusers config.json that say what is computed, under their names there.

    Attributes:
      block_out_channels: channels of each resolution, the full one first; each further one has half the side.
      layers_per_block: residual blocks a resolution in the encoder; the decoder has one more.
      latent_channels: of a latent; the encoder gives twice as many, mean and log-variance.
      norm_num_groups: of the group norms.
      mid_block_add_attention: self-attention at the lowest resolution.
      use_quant_conv, use_post_quant_conv: 1 x 1 convolutions behind the encoder and before the decoder.
    """

    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True

    def __post_init__(self):
        for name in ("layers_per_block", "latent_channels", "norm_num_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        channels, groups = self.block_out_channels, self.norm_num_groups
        if not channels or any(width < 1 or width % groups for width in channels):
            raise ValueError(f"block_out_channels: found {channels}, expected multiples of norm_num_groups, {groups}")

    @property
    def factor(self) -> int:
        """Pixels a side of one latent position."""
        return 2 ** (len(self.block_out_channels) - 1)


class AutoencoderKL(nnx.Module):
    """The variational autoencoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752), NHWC, in x's dtype.

    Parameters go by diffusers' names. Norms and softmax are float32; in float32 throughout nothing overflows, which is
    what a config's force_upcast asks for.
    """

    def __init__(self, config: KLConfig, *, rngs: nnx.Rngs):
        latent = config.latent_channels
        self.factor = config.factor
        self.encoder = Encoder(config, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs)
        self.quant_conv = Conv(2 * latent, 2 * latent, 1, rngs=rngs) if config.use_quant_conv else None
        self.post_quant_conv = Conv(latent, latent, 1, rngs=rngs) if config.use_post_quant_conv else None

    def encode(self, image: Float[Array, "batch height width 3"]) -> Float[Array, "batch h w moments"]:
        """Pixels in [-1, 1] to mean and log-variance (in [-30, 20]) of the posterior, side by side."""
        moments = self.encoder(image)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return jnp.concatenate([mean, jnp.clip(log_variance, -30, 20)], axis=-1)

    def decode(self, latent: Float[Array, "batch h w channels"]) -> Float[Array, "batch height width 3"]:
        """Latents to pixels, about [-1, 1] (not clipped)."""
        return self.decoder(latent if self.post_quant_conv is None else self.post_quant_conv(latent))


class Encoder(nnx.Module):
    """Pixels to twice the latent's channels at the lowest resolution."""

    def __init__(self, config: KLConfig, *, rngs: nnx.Rngs):
        widths, groups = config.block_out_channels, config.norm_num_groups
        inputs = (widths[0], *widths)
        self.conv_in = Conv(3, widths[0], 3, rngs=rngs)
        self.down_blocks = numbered(
            [
                DownBlock(a, b, groups, config.layers_per_block, halve=i < len(widths) - 1, rngs=rngs)
                for i, (a, b) in enumerate(zip(inputs, widths))
            ]
        )
        self.mid_block = MidBlock(widths[-1], groups, config.mid_block_add_attention, rngs=rngs)
        self.conv_norm_out = GroupNorm(widths[-1], groups)
        self.conv_out = Conv(widths[-1], 2 * config.latent_channels, 3, rngs=rngs)

    def __call__(self, x):
        x = self.mid_block(run(self.down_blocks, self.conv_in(x)))
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class Decoder(nnx.Module):
    """Latents to pixels; one residual block more at every resolution than the encoder has."""

    def __init__(self, config: KLConfig, *, rngs: nnx.Rngs):
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        inputs = (widths[0], *widths)
        self.conv_in = Conv(config.latent_channels, widths[0], 3, rngs=rngs)
        self.mid_block = MidBlock(widths[0], groups, config.mid_block_add_attention, rngs=rngs)
        self.up_blocks = numbered(
            [
                UpBlock(a, b, groups, config.layers_per_block + 1, double=i < len(widths) - 1, rngs=rngs)
                for i, (a, b) in enumerate(zip(inputs, widths))
            ]
        )
        self.conv_norm_out = GroupNorm(widths[-1], groups)
        self.conv_out = Conv(widths[-1], 3, 3, rngs=rngs)

    def __call__(self, x):
        x = run(self.up_blocks, self.mid_block(self.conv_in(x)))
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class DownBlock(nnx.Module):
    """Residual blocks, then half the side by a strided convolution."""

    def __init__(self, inputs: int, outputs: int, groups: int, layers: int, *, halve: bool, rngs: nnx.Rngs):
        self.resnets = _resnets(inputs, outputs, groups, layers, rngs)
        self.downsamplers = numbered([Resample(outputs, halve=True, rngs=rngs)] if halve else [])

    def __call__(self, x):
        return run(self.downsamplers, run(self.resnets, x))


class UpBlock(nnx.Module):
    """Residual blocks, then twice the side, nearest, and a convolution."""

    def __init__(self, inputs: int, outputs: int, groups: int, layers: int, *, double: bool, rngs: nnx.Rngs):
        self.resnets = _resnets(inputs, outputs, groups, layers, rngs)
        self.upsamplers = numbered([Resample(outputs, halve=False, rngs=rngs)] if double else [])

    def __call__(self, x):
        return run(self.upsamplers, run(self.resnets, x))


class Resample(nnx.Module):
    """A 3 x 3 convolution that halves the side, or one behind a doubling."""

    def __init__(self, channels: int, *, halve: bool, rngs: nnx.Rngs):
        self.halve = halve
        self.conv = Conv(channels, channels, 3, rngs=rngs, stride=2 if halve else 1)

    def __call__(self, x):
        return self.conv(x if self.halve else upsample(x))


class MidBlock(nnx.Module):
    """Residual block, attention if wanted, residual block, at the lowest resolution."""

    def __init__(self, width: int, groups: int, attention: bool, *, rngs: nnx.Rngs):
        self.resnets = _resnets(width, width, groups, 2, rngs)
        self.attentions = numbered([Attention(width, groups, rngs=rngs)] if attention else [])

    def __call__(self, x):
        return self.resnets["1"](run(self.attentions, self.resnets["0"](x)))


class ResnetBlock(nnx.Module):
    """shortcut(x) + conv(silu(norm(conv(silu(norm x))))); the shortcut is a 1 x 1 convolution where channels change.

    The second convolution starts near zero and not at it, as all weights do in what is trained elsewhere.
    """

    def __init__(self, inputs: int, outputs: int, groups: int, *, rngs: nnx.Rngs):
        self.norm1 = GroupNorm(inputs, groups)
        self.conv1 = Conv(inputs, outputs, 3, rngs=rngs, scale=1.5)
        self.norm2 = GroupNorm(outputs, groups)
        self.conv2 = Conv(outputs, outputs, 3, rngs=rngs, scale=0.1)
        self.conv_shortcut = Conv(inputs, outputs, 1, rngs=rngs) if inputs != outputs else None

    def __call__(self, x):
        y = self.conv1(jax.nn.silu(self.norm1(x)))
        y = self.conv2(jax.nn.silu(self.norm2(y)))
        # With fsdp XLA would let pictures follow the kernels' layout.
        return shard_batch(y + (x if self.conv_shortcut is None else self.conv_shortcut(x)))


class Attention(nnx.Module):
    """x + single-head self-attention over all positions of the group norm of x."""

    def __init__(self, width: int, groups: int, *, rngs: nnx.Rngs):
        linear = lambda scale=1.0: Linear(  # noqa: E731
            width, width, axes=("features", "features"), rngs=rngs, bias=True, scale=scale
        )
        self.group_norm = GroupNorm(width, groups)
        self.to_q, self.to_k, self.to_v = linear(), linear(), linear()
        self.to_out = numbered([linear(0.1)])

    def __call__(self, x):
        batch, height, width, channels = x.shape
        y = self.group_norm(x).reshape(batch, height * width, channels)
        attended = _attend(self.to_q(y), self.to_k(y), self.to_v(y))
        return x + run(self.to_out, attended).reshape(x.shape)


def _attend(query, key, value):
    """softmax(q k / sqrt(width)) v, QUERIES at a time: all logits would be (h w)^2 numbers a picture."""
    tokens, width = query.shape[1:]

    def one(query):
        logits = jnp.einsum("bc,bkc->bk", query, key, preferred_element_type=jnp.float32) * width**-0.5
        return jnp.einsum("bk,bkc->bc", jax.nn.softmax(logits).astype(value.dtype), value)

    if tokens <= QUERIES:
        return jax.vmap(one, in_axes=1, out_axes=1)(query)
    return jnp.moveaxis(jax.lax.map(one, jnp.moveaxis(query, 1, 0), batch_size=QUERIES), 0, 1)


def _resnets(inputs: int, outputs: int, groups: int, count: int, rngs: nnx.Rngs) -> nnx.Dict:
    return numbered([ResnetBlock(inputs if i == 0 else outputs, outputs, groups, rngs=rngs) for i in range(count)])


def autoencoder_kl(config: KLConfig) -> Definition:
    """The model of a config, without its arrays."""
    return define(lambda rngs: AutoencoderKL(config, rngs=rngs))


def multiplications(config: KLConfig, side: int) -> int:
    """Of encoding and decoding one square picture: each kernel at the resolution where it works, and attention."""
    lowest, total = side // config.factor, 0
    for path, leaf in jax.tree.leaves_with_path(autoencoder_kl(config).shapes):
        if path[-1].key == "kernel":
            total += _side([entry.key for entry in path], side, lowest) ** 2 * leaf.size
    attended = 2 * lowest**4 * config.block_out_channels[-1]
    return total + (2 * attended if config.mid_block_add_attention else 0)


def _side(names: list[str], side: int, lowest: int) -> int:
    """Side of the output of the layer at a path."""
    part, block, *rest = names
    if block in ("down_blocks", "up_blocks"):
        level = int(rest[0]) + (rest[1] in ("downsamplers", "upsamplers"))
        return side >> level if block == "down_blocks" else lowest << level
    full = (part, block) in (("encoder", "conv_in"), ("decoder", "conv_out"))
    return side if full else lowest
