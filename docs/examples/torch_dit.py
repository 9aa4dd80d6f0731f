"""The DiT of a model that `fooddit export` wrote, in plain torch. Copy this file; it needs torch and safetensors alone.

    dit, config = load("OUT")
    prediction = dit(tokens, timestep, positions, context=(text, text_mask), pooled=pooled)

tokens (batch, n, features) at a time in [0, 1], 1 being noise; positions (n, 2), row and column of each token in
patches. Without a context it is the model that has heard no caption. What the prediction is of, the velocity or the
picture's own tokens, says config["experiment"]["objective"]["prediction"]. torch_conditions.py makes context, pooled
and image of captions and pictures. `python torch_dit.py OUT` loads a folder and predicts once.
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

THETA, EPSILON = 100.0, 1e-6


def read(folder):
    """(tensors by name, in float32; what config.json says) of a folder, in one file or several."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    weights = {}
    for file in sorted(Path(folder).glob("model*.safetensors")):
        weights |= {name: tensor.float() for name, tensor in load_file(file).items()}
    return weights, config


def load(folder):
    """(DiT, config)"""
    weights, config = read(folder)
    width, features = weights["dit.embed.weight"].shape
    dit = DiT(config["experiment"]["model"], features, context_width=weights["dit.pooled.weight"].shape[1])
    load_part(dit, weights, "dit")
    return dit.eval(), config


def load_part(module, weights, part):
    """The module's parameters, of which none may be missing or left over."""
    module.load_state_dict(
        {name.removeprefix(f"{part}."): x for name, x in weights.items() if name.startswith(f"{part}.")}
    )


def linear(inputs, outputs, bias=False):
    return nn.Linear(inputs, outputs, bias=bias)


def norm(width):
    return nn.RMSNorm(width, eps=EPSILON)


def gain(width):
    return nn.Parameter(torch.ones(width))


class Attention(nn.Module):
    """RMS-normed queries and keys. Tokens attend to themselves, with a rotary embedding, or to a context; beside it to
    an image prompt, with keys, values and a softmax of its own."""

    def __init__(self, width, head_dim, context_width=None, image_width=0):
        super().__init__()
        self.head_dim = head_dim
        self.query, self.out = linear(width, width), linear(width, width)
        self.key, self.value = (linear(context_width or width, width) for _ in range(2))
        self.query_norm, self.key_norm = gain(head_dim), gain(head_dim)
        if image_width:
            self.image_key, self.image_value = linear(image_width, width), linear(image_width, width)
            self.image_key_norm = gain(head_dim)

    def forward(self, x, mask=None, rope=None, context=None, image=None, image_scale=1.0):
        source = x if context is None else context
        query = self.heads(self.query(x), self.query_norm, rope)
        key = self.heads(self.key(source), self.key_norm, rope)
        out = attend(query, key, self.heads(self.value(source)), mask)
        if image is not None:
            tokens, seen = image
            key, value = self.heads(self.image_key(tokens), self.image_key_norm), self.heads(self.image_value(tokens))
            out = out + image_scale * attend(query, key, value, seen)
        return self.out(out.transpose(1, 2).flatten(2))

    def heads(self, x, scale=None, rope=None):
        x = x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        if scale is not None:
            x = functional.rms_norm(x, (self.head_dim,), scale, EPSILON)
        if rope is not None:
            x = x * rope[0] + x.roll(self.head_dim // 2, -1) * rope[1]
        return x


def attend(query, key, value, mask=None):
    """A mask (batch, keys) is True where there is a key; a query that has none gets 0, where torch would give NaN."""
    if mask is None:
        return functional.scaled_dot_product_attention(query, key, value)
    has_key = mask.any(1)[:, None, None, None]
    seen = mask[:, None, None] | ~has_key
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen) * has_key


def rotary(positions, head_dim):
    """Cosines and sines of (n, 2) or (batch, n, 2) positions for pairs (i, i + head_dim / 2): the first half of them
    turns with the row, the second with the column. The sign of a rotation is in the sine."""
    quarter = head_dim // 4
    rates = THETA ** -(torch.arange(quarter, device=positions.device) / quarter)
    angles = (positions[..., None] * rates).flatten(-2).unsqueeze(-3)
    return torch.cat([angles.cos()] * 2, -1), torch.cat([-angles.sin(), angles.sin()], -1)


def sinusoids(positions, count):
    """What tells a token where it stands: sines and cosines of its row, then of its column."""
    quarter = count // 4
    angles = positions[..., None] * THETA ** -(torch.arange(quarter, device=positions.device) / quarter)
    return 2**0.5 * torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)


class SwiGLU(nn.Module):
    def __init__(self, width):
        super().__init__()
        multiple = 128 if width >= 384 else 16
        inner = -(-8 * width // (3 * multiple)) * multiple
        self.gate, self.up, self.down = linear(width, inner), linear(width, inner), linear(inner, width)

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Shifts, scales and gates are those of the time, which all blocks share, plus the block's own table."""

    def __init__(self, width, head_dim, context_width, image_width):
        super().__init__()
        self.attention = Attention(width, head_dim)
        self.cross_norm, self.cross = norm(width), Attention(width, head_dim, context_width, image_width)
        self.mlp, self.table = SwiGLU(width), nn.Parameter(torch.zeros(6, width))

    def forward(self, x, modulation, mask, rope, context, image, image_scale):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (modulation + self.table).split(1, dim=1)
        x = x + (1 + gate_a) * self.attention(modulate(x, shift_a, scale_a), mask, rope)
        if context is not None:
            tokens, seen = context
            x = x + self.cross(self.cross_norm(x), seen, context=tokens, image=image, image_scale=image_scale)
        return x + (1 + gate_m) * self.mlp(modulate(x, shift_m, scale_m))


def modulate(x, shift, scale):
    return functional.rms_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift


class TimeEmbedding(nn.Module):
    def __init__(self, width, frequencies=128):
        super().__init__()
        self.frequencies, self.hidden, self.out = (
            frequencies,
            linear(2 * frequencies, width, True),
            linear(width, width, True),
        )

    def forward(self, timestep):
        steps = torch.arange(self.frequencies, device=timestep.device) / self.frequencies
        angles = 1000 * timestep[:, None] * torch.exp(-math.log(10_000) * steps)
        return self.out(functional.silu(self.hidden(2**0.5 * torch.cat([angles.cos(), angles.sin()], -1))))


class DiT(nn.Module):
    def __init__(self, config, features, context_width):
        super().__init__()
        width, image_width = config["width"], config["image_width"] if config["image_tokens"] else 0
        self.head_dim, self.time = config["head_dim"], TimeEmbedding(width)
        self.embed, self.out = linear(features, width, True), linear(width, features, True)
        self.place = linear(self.head_dim, width)
        self.pooled, self.modulation = linear(context_width, width), linear(width, 6 * width, True)
        self.context_norm = norm(context_width)
        if image_width:
            self.image_norm = norm(image_width)
        blocks = (Block(width, self.head_dim, context_width, image_width) for _ in range(config["depth"]))
        self.blocks, self.final_table = nn.ModuleList(blocks), nn.Parameter(torch.zeros(2, width))

    def forward(self, x, timestep, positions, mask=None, context=None, pooled=None, image=None, image_scale=1.0):
        """context and image are pairs of tokens and mask; mask (batch, n) is False at padding of the picture."""
        condition = self.time(timestep)
        if pooled is not None:
            condition = condition + self.pooled(functional.rms_norm(pooled, pooled.shape[-1:], eps=EPSILON))
        modulation = self.modulation(functional.silu(condition)).unflatten(-1, (6, -1))
        if context is not None:
            context = self.context_norm(context[0]), context[1]
        if image is not None:
            image = self.image_norm(image[0]), image[1]
        x = self.embed(x) + self.place(sinusoids(positions, self.head_dim))
        rope = rotary(positions, self.head_dim)
        for block in self.blocks:
            x = block(x, modulation, mask, rope, context, image, image_scale)
        shift, scale = (modulation[:, :2] + self.final_table).split(1, dim=1)
        return self.out(modulate(x, shift, scale))


if __name__ == "__main__":
    dit, config = load(sys.argv[1])
    side = 8
    positions = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float32)] * 2)
    noise = torch.randn(1, len(positions), dit.out.out_features)
    with torch.no_grad():
        prediction = dit(noise, torch.ones(1), positions)
    print(f"{sum(p.numel() for p in dit.parameters()):,} parameters; {tuple(noise.shape)} -> {tuple(prediction.shape)}")
