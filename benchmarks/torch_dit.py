"""The peers of `train_step.py`: fooddit's DiT in torch, and diffusers' PixArt transformer, with AdamW and an EMA.

Our DiT's equations with torch's own fused operations (rms_norm, scaled_dot_product_attention, fused AdamW, foreach
EMA); weights are exchanged as (in, out) matrices under our names and kept as torch likes them, (out, in).
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

THETA = 100.0


class Attention(nn.Module):
    """QK-normed attention; `rope` is (cos, sin) of (tokens, head_dim) for self-attention, None for cross-attention."""

    def __init__(self, width: int, context_width: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(context_width, width, bias=False)
        self.value = nn.Linear(context_width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm = nn.Parameter(torch.ones(head_dim))
        self.key_norm = nn.Parameter(torch.ones(head_dim))

    def forward(self, x, context, rope=None, mask=None):
        heads = lambda y: y.unflatten(-1, (-1, self.head_dim))
        q = functional.rms_norm(heads(self.query(x)), (self.head_dim,), self.query_norm, eps=1e-6)
        k = functional.rms_norm(heads(self.key(context)), (self.head_dim,), self.key_norm, eps=1e-6)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        q, k, v = (y.transpose(1, 2) for y in (q, k, heads(self.value(context))))
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(out.transpose(1, 2).flatten(-2))


class SwiGLU(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, width: int, context_width: int, head_dim: int, inner: int):
        super().__init__()
        self.attention = Attention(width, width, head_dim)
        self.cross_norm = nn.Parameter(torch.ones(width))
        self.cross = Attention(width, context_width, head_dim)
        self.mlp = SwiGLU(width, inner)
        self.table = nn.Parameter(torch.zeros(6, width))

    def forward(self, x, modulation, context, rope, mask):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (modulation + self.table).split(1, dim=1)
        h = torch.addcmul(shift_a, norm(x), 1 + scale_a)
        x = torch.addcmul(x, 1 + gate_a, self.attention(h, h, rope))
        x = x + self.cross(norm(x, self.cross_norm), context, mask=mask)
        h = torch.addcmul(shift_m, norm(x), 1 + scale_m)
        return torch.addcmul(x, 1 + gate_m, self.mlp(h))


class DiT(nn.Module):
    """Our DiT; forward(x_t, t, context, mask, pooled) with a mask that sees at least one token of every example."""

    def __init__(self, *, width, depth, head_dim, features, context_width, inner, positions):
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.place = nn.Linear(head_dim, width, bias=False)
        self.time_hidden = nn.Linear(256, width)
        self.time_out = nn.Linear(width, width)
        self.pooled = nn.Linear(context_width, width, bias=False)
        self.modulation = nn.Linear(width, 6 * width)
        self.context_norm = nn.Parameter(torch.ones(context_width))
        self.blocks = nn.ModuleList(Block(width, context_width, head_dim, inner) for _ in range(depth))
        self.final_table = nn.Parameter(torch.zeros(2, width))
        self.out = nn.Linear(width, features)
        cos, sin = rope_tables(positions, head_dim)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)
        self.register_buffer("sinusoids", place_sinusoids(positions, head_dim))
        self.register_buffer("rates", torch.exp(-np.log(10_000.0) * torch.arange(128) / 128))

    def forward(self, x, t, context, mask, pooled):
        angles = 1000.0 * t[:, None] * self.rates
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=-1) * 2**0.5
        condition = self.time_out(functional.silu(self.time_hidden(sinusoids))) + self.pooled(norm(pooled))
        modulation = self.modulation(functional.silu(condition)).unflatten(-1, (6, -1))
        context, mask = norm(context, self.context_norm), mask[:, None, None, :]
        x = self.embed(x) + self.place(self.sinusoids)
        for block in self.blocks:
            x = block(x, modulation, context, (self.cos, self.sin), mask)
        shift, scale = (modulation[:, :2] + self.final_table).split(1, dim=1)
        return self.out(torch.addcmul(shift, norm(x), 1 + scale))


class PixArt(nn.Module):
    """diffusers' PixArtTransformer2DModel on the same tokens: a square grid of features seen as an image of patch 1."""

    def __init__(self, *, width, depth, head_dim, features, context_width, side):
        from diffusers import PixArtTransformer2DModel

        super().__init__()
        self.side = side
        self.model = PixArtTransformer2DModel(
            num_attention_heads=width // head_dim,
            attention_head_dim=head_dim,
            in_channels=features,
            out_channels=features,
            num_layers=depth,
            cross_attention_dim=width,
            caption_channels=context_width,
            sample_size=side,
            patch_size=1,
        )

    def forward(self, x, t, context, mask, pooled):
        grid = x.transpose(1, 2).unflatten(-1, (self.side, self.side))
        out = self.model(
            grid, context, timestep=1000.0 * t, encoder_attention_mask=mask, return_dict=False,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        )[0]  # fmt: skip
        return out.flatten(2).transpose(1, 2)


def norm(x, gain=None):
    return functional.rms_norm(x, x.shape[-1:], gain, eps=1e-6)


def rotate(x, cos, sin):
    """Pairs (i, i + head_dim / 2) of (batch, tokens, heads, head_dim), the sign in the sine."""
    return x * cos + torch.roll(x, x.shape[-1] // 2, dims=-1) * sin


def place_sinusoids(positions: np.ndarray, count: int):
    """Sines and cosines of each token's row, then of its column, (tokens, count)."""
    quarter = count // 4
    angles = positions[..., None] * THETA ** (-np.arange(quarter) / quarter)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(positions), count)
    return torch.tensor(2**0.5 * waves, dtype=torch.float32)


def rope_tables(positions: np.ndarray, head_dim: int):
    quarter = head_dim // 4
    frequencies = THETA ** (-np.arange(quarter) / quarter)
    angles = (positions[..., None] * frequencies).reshape(len(positions), 1, head_dim // 2)
    cos, sin = np.cos(angles), np.sin(angles)
    tables = np.concatenate([cos, cos], -1), np.concatenate([-sin, sin], -1)
    return tuple(torch.tensor(table, dtype=torch.float32) for table in tables)


def load(model: DiT, weights: dict[str, np.ndarray]) -> dict[str, str]:
    """Copies weights under our names ("blocks/mlp/up/kernel", stacked by block) into the model; its name -> our name.

    Raises:
      ValueError: a parameter of either side has no match.
    """
    left, names = dict(model.named_parameters()), {}
    for name, value in weights.items():
        parts = name.split("/")
        for i in range(len(value)) if parts[0] == "blocks" else [None]:
            array = value if i is None else value[i]
            path = ".".join(parts if i is None else ["blocks", str(i), *parts[1:]])
            path = path.replace("time.", "time_").replace(".kernel", ".weight").replace(".gain", "")
            parameter, names[path] = left.pop(path), name
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(array.T if name.endswith("kernel") else array))
    if left:
        raise ValueError(f"the torch model has parameters that ours does not have: {sorted(left)}")
    return names


class Trainer:
    """A step: loss, gradients, clipping, AdamW, EMA.

    Args:
      rates: step -> learning rate; `groups(name, parameter)` -> (multiplier of the rate, weight decay).
    """

    def __init__(self, model, rates, groups, *, b1, b2, clip, ema, compiled: bool):
        self.model, self.rates, self.clip, self.ema, self.step_count = model, rates, clip, ema, 0
        self.parameters = list(model.parameters())
        by_group: dict = {}
        for name, parameter in model.named_parameters():
            by_group.setdefault(groups(name, parameter), []).append(parameter)
        self.multipliers = [multiplier for multiplier, _ in by_group]
        self.optimizer = torch.optim.AdamW(
            [{"params": p, "weight_decay": decay} for (_, decay), p in by_group.items()],
            lr=0.0, betas=(b1, b2), eps=1e-8, fused=True,
        )  # fmt: skip
        self.average = [p.detach().clone() for p in self.parameters]
        self.loss = torch.compile(self._loss) if compiled else self._loss

    def _loss(self, x0, noise, t, context, mask, pooled):
        time = t[:, None, None]
        x_t = (1 - time) * x0 + time * noise
        return functional.mse_loss(self.model(x_t, t, context, mask, pooled), noise - x0)

    def __call__(self, batch) -> torch.Tensor:
        for group, multiplier in zip(self.optimizer.param_groups, self.multipliers):
            group["lr"] = self.rates[self.step_count] * multiplier
        loss = self.loss(**batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step_count += 1
        rate = min(self.ema, (1 + self.step_count) / (10 + self.step_count))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - rate)
        return loss.detach()
