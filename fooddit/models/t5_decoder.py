"""The whole of T5, encoder and decoder, as its span-denoising objective trains it."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from fooddit.models.module import stack
from fooddit.models.t5 import (
    T5Attention,
    T5Config,
    T5EncoderStack,
    T5FeedForward,
    T5Norm,
    bias_table,
    logit_bias,
    relative_buckets,
    scan_blocks,
)
from fooddit.parallel import shard_tokens


class T5(nnx.Module):
    """Logits of a target's tokens, each given those before it and the encoder's features of an input.

    One embedding is the encoder's, the decoder's and the output's, whose logits are then scaled by width ** -0.5
    (Raffel et al. 2020, arXiv 1910.10683; v1.1 and later have an output matrix of their own, which none of ours is
    large enough to need).
    """

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        self.encoder = T5EncoderStack(config, rngs=rngs)
        self.decoder = T5DecoderStack(config, rngs=rngs)

    def __call__(
        self,
        ids: Int[Array, "batch length"],
        mask: Bool[Array, "batch length"],
        target: Int[Array, "batch target_length"],
    ) -> Float[Array, "batch target_length vocabulary"]:
        table = self.encoder.embedding[...]
        # What stands before the first token is the padding, id 0.
        before = jnp.pad(target[:, :-1], ((0, 0), (1, 0)))
        x = self.decoder(table[before].astype(jnp.float32), self.encoder(ids, mask), mask)
        x = x * x.shape[-1] ** -0.5
        return jnp.einsum("btw,vw->btv", x, table.astype(x.dtype), preferred_element_type=jnp.float32)


class T5DecoderStack(nnx.Module):
    """Pre-norm blocks (causal attention, attention to the encoder's features, feed-forward), final norm."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        self.config = config
        self.position_bias = None if config.bias_in_every_layer else bias_table(config, rngs)
        self.blocks = stack(lambda r: T5DecoderBlock(config, rngs=r), config.decoder_depth, rngs)
        self.norm = T5Norm(config)

    def __call__(
        self,
        x: Float[Array, "batch target_length width"],
        features: Float[Array, "batch length width"],
        mask: Bool[Array, "batch length"],
    ) -> Float[Array, "batch target_length width"]:
        buckets = relative_buckets(x.shape[1], self.config, bidirectional=False)
        bias = None if self.position_bias is None else logit_bias(self.position_bias[...], buckets)
        causal = jnp.tri(x.shape[1], dtype=bool)[None, None]

        def call(block, x):
            return shard_tokens(
                block(x, features, buckets=buckets, bias=bias, causal=causal, mask=mask[:, None, None, :])
            )

        return self.norm(scan_blocks(self.blocks, call, shard_tokens(x), self.config.scan_unroll))


class T5DecoderBlock(nnx.Module):
    """One decoder block."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        self.attention_norm = T5Norm(config)
        self.attention = T5Attention(config, own_bias=config.bias_in_every_layer, rngs=rngs)
        self.cross_norm = T5Norm(config)
        self.cross = T5Attention(config, own_bias=False, rngs=rngs)
        self.mlp_norm = T5Norm(config)
        self.mlp = T5FeedForward(config, rngs=rngs)

    def __call__(self, x: Float[Array, "batch target_length width"], features, *, buckets, bias, causal, mask):
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, buckets=buckets, bias=bias, mask=causal)
        x = x + self.cross(self.cross_norm(x), features, mask=mask)
        return x + self.mlp(self.mlp_norm(x))
