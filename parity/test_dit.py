"""Our DiT and text transformer equal torch 2.13.0 implementations of the same equations, on the same random weights.

The time embedding is diffusers 0.42.1's; norms, attention and activations are torch.nn.functional's; blocks are a loop.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch.nn import functional

from fooddit.models.dit import Context, DiT, DiTConfig, ExtraTokens
from fooddit.models.module import define
from fooddit.models.text import TextConfig, TextTransformer
from parity.torch_attention import attention

BATCH, TOKENS, FEATURES, CONTEXT, WIDTH, DEPTH, HEAD_DIM = 3, 20, 12, 48, 64, 3, 16
TOLERANCE = 1e-4
TEXT = TextConfig(width=CONTEXT, depth=2, head_dim=16, vocabulary=300, length=11)


def random_weights(definition, seed: int) -> dict:
    """The model's own start, moved everywhere: what starts at zero (outputs, tables) must count too."""
    leaves, tree = jax.tree.flatten(definition.init(jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    return tree.unflatten(np.asarray(x) + 0.1 * rng.normal(size=x.shape).astype(np.float32) for x in leaves)


def dit_inputs(extended: bool) -> dict:
    """Padding in the picture, in the context and a caption that was dropped whole (the last example)."""
    rng = np.random.default_rng(1)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    inputs = {
        "tokens": normal(BATCH, TOKENS, FEATURES),
        "timestep": np.array([0.25, 0.625, 0.875], np.float32),
        "positions": rng.uniform(-3, 9, size=(BATCH, TOKENS, 2)).astype(np.float32),
        "mask": np.arange(TOKENS) < np.array([[TOKENS], [13], [7]]),
        "context": [(normal(BATCH, n, CONTEXT), np.arange(n) < np.array([[n], [n // 2], [0]])) for n in (9, 4)],
        "pooled": normal(BATCH, CONTEXT) * np.array([[1.0], [0.1], [0.0]], np.float32),
    }
    if extended:
        where = rng.uniform(-20, -10, size=(BATCH, 5, 2)).astype(np.float32)
        inputs["extra_tokens"] = [(normal(BATCH, 5, WIDTH), where, np.arange(5) < np.array([[5], [2], [0]]))]
        inputs["block_residuals"] = normal(DEPTH, BATCH, TOKENS, WIDTH)
    return inputs


def torch_dit(p: dict, x: dict):
    """The network written again from its description, one block after the other."""
    hidden, positions, mask = linear(x["tokens"], p["embed"]), x["positions"], x["mask"]
    hidden = hidden + linear(place(positions), p["place"])
    for tokens, where, seen in x.get("extra_tokens", ()):
        hidden, positions, mask = (torch.cat(pair, 1) for pair in ((hidden, tokens), (positions, where), (mask, seen)))
    sinusoids = get_timestep_embedding(1000 * x["timestep"], 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    condition = linear(functional.silu(linear(sinusoids * 2**0.5, p["time"]["hidden"])), p["time"]["out"])
    condition = functional.silu(condition + linear(norm(x["pooled"]), p["pooled"]))
    modulation = linear(condition, p["modulation"]).unflatten(-1, (6, WIDTH))
    context = norm(torch.cat([tokens for tokens, _ in x["context"]], 1), p["context_norm"]["gain"])
    context_mask = torch.cat([seen for _, seen in x["context"]], 1)
    for i in range(DEPTH):
        block = pick(p["blocks"], i)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (modulation + block["table"]).split(1, dim=1)
        h = norm(hidden) * (1 + scale_a) + shift_a
        hidden = hidden + (1 + gate_a) * attend(h, h, block["attention"], positions=positions, mask=mask)
        h = norm(hidden, block["cross_norm"]["gain"])
        hidden = hidden + attend(h, context, block["cross"], mask=context_mask)
        h = norm(hidden) * (1 + scale_m) + shift_m
        hidden = hidden + (1 + gate_m) * swiglu(h, block["mlp"])
        if "block_residuals" in x:
            hidden = torch.cat([hidden[:, :TOKENS] + x["block_residuals"][i], hidden[:, TOKENS:]], dim=1)
    shift, scale = (modulation[:, :2] + p["final_table"]).split(1, dim=1)
    return linear(norm(hidden[:, :TOKENS]) * (1 + scale) + shift, p["out"])


def place(positions):
    """Sinusoids of the row, then of the column, of variance one."""
    quarter = HEAD_DIM // 4
    rates = 100.0 ** -(torch.arange(quarter) / quarter)
    row, column = (positions[..., i : i + 1] * rates for i in range(2))
    return 2**0.5 * torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], -1)


def torch_text(p: dict, ids, mask):
    """Token features and their mean over each caption's own tokens."""
    x = functional.embedding(ids, p["embedding"])
    positions = torch.arange(ids.shape[1])[:, None].repeat(1, 2)
    for i in range(TEXT.depth):
        block = pick(p["blocks"], i)
        h = norm(x, block["attention_norm"]["gain"])
        x = x + attend(h, h, block["attention"], positions=positions, mask=mask)
        x = x + swiglu(norm(x, block["mlp_norm"]["gain"]), block["mlp"])
    x = norm(x, p["norm"]["gain"])
    pooled = [row[seen].mean(0) if seen.any() else torch.zeros(TEXT.width) for row, seen in zip(x, mask)]
    return x, torch.stack(pooled)


def linear(x, p):
    return functional.linear(x, p["kernel"].T, p.get("bias"))


def norm(x, gain=None):
    return functional.rms_norm(x, x.shape[-1:], gain, eps=1e-6)


def swiglu(x, p):
    return linear(functional.silu(linear(x, p["gate"])) * linear(x, p["up"]), p["down"])


def attend(x, context, p, *, mask, positions=None):
    q, k, v = linear(x, p["query"]), linear(context, p["key"]), linear(context, p["value"])
    return linear(attention(q, k, v, p["query_norm"], p["key_norm"], positions=positions, mask=mask), p["out"])


def pick(tree, i):
    return {name: pick(value, i) if isinstance(value, dict) else value[i] for name, value in tree.items()}


def to_torch(tree):
    """The same tree of torch tensors, the floating ones of which keep their gradient."""
    return jax.tree.map(lambda x: torch.tensor(x, requires_grad=np.issubdtype(x.dtype, np.floating)), tree)


def close(found, expected, name=""):
    expected = expected.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max(), err_msg=name)


def close_gradients(found: dict, parameters: dict):
    """Each parameter's gradient to 1e-4 of its own largest value."""
    leaves = jax.tree.leaves_with_path(found)
    assert len(leaves) == len(jax.tree.leaves(parameters))
    for (path, gradient), leaf in zip(leaves, jax.tree.leaves(parameters)):
        assert leaf.grad.abs().max() > 0, path
        close(gradient, leaf.grad, jax.tree_util.keystr(path))


@pytest.mark.parametrize("extended", [False, True], ids=["plain", "references and control"])
def test_dit_equals_torch(extended):
    config = DiTConfig(width=WIDTH, depth=DEPTH, head_dim=HEAD_DIM)
    definition = define(lambda r: DiT(config, token_features=FEATURES, context_width=CONTEXT, rngs=r))
    weights, inputs = random_weights(definition, seed=0), dit_inputs(extended)
    cotangent = np.random.default_rng(2).normal(size=(BATCH, TOKENS, FEATURES)).astype(np.float32)
    # Outputs at padding are nobody's business.
    cotangent *= inputs["mask"][..., None]

    def ours(params):
        x = {**inputs, "context": [Context(*group) for group in inputs["context"]]}
        x["extra_tokens"] = [ExtraTokens(*group) for group in inputs.get("extra_tokens", ())]
        return definition.bind(params)(x.pop("tokens"), x.pop("timestep"), **x)

    found, pullback = jax.vjp(jax.jit(ours), jax.tree.map(jnp.asarray, weights))
    parameters = to_torch(weights)
    expected = torch_dit(parameters, to_torch(inputs))
    expected.backward(torch.from_numpy(cotangent))
    seen = inputs["mask"]
    assert expected.abs().max() > 0.3
    close(np.asarray(found)[seen], expected[torch.from_numpy(seen)])
    close_gradients(pullback(jnp.asarray(cotangent))[0], parameters)


def test_text_transformer_equals_torch():
    definition = define(lambda r: TextTransformer(TEXT, rngs=r))
    weights, rng = random_weights(definition, seed=3), np.random.default_rng(4)
    ids = rng.integers(1, TEXT.vocabulary, size=(BATCH, TEXT.length)).astype(np.int32)
    mask = np.arange(TEXT.length) < np.array([[TEXT.length], [4], [0]])
    tokens_cotangent = rng.normal(size=(BATCH, TEXT.length, CONTEXT)).astype(np.float32) * mask[..., None]
    pooled_cotangent = rng.normal(size=(BATCH, CONTEXT)).astype(np.float32)

    def ours(params):
        features = definition.bind(params)(jnp.asarray(ids), jnp.asarray(mask))
        return features.tokens, features.pooled

    (tokens, pooled), pullback = jax.vjp(jax.jit(ours), jax.tree.map(jnp.asarray, weights))
    parameters = to_torch(weights)
    expected = torch_text(parameters, torch.from_numpy(ids), torch.from_numpy(mask))
    torch.autograd.backward(expected, [torch.from_numpy(tokens_cotangent), torch.from_numpy(pooled_cotangent)])
    close(np.asarray(tokens)[mask], expected[0][torch.from_numpy(mask)])
    close(pooled, expected[1])
    assert not np.any(np.asarray(pooled)[2])
    close_gradients(pullback((jnp.asarray(tokens_cotangent), jnp.asarray(pooled_cotangent)))[0], parameters)
