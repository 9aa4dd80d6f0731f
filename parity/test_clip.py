"""Published CLIP, SigLIP and SigLIP 2 in our module equal transformers 5.24.0 (torch 2.13.0) on the same weights.

Tokens, pooled vectors and logits, of several configs, with padding and at other sizes. The folders are those that
transformers saved itself, and ours with seeded weights, whose outputs the suite has as golden files
(FOODDIT_WRITE_GOLDEN=1 writes them anew).
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from fooddit.models.eclip_folder import PublishedTokenizer, open_eclip
from tests.models.eclip_cases import CASES, GOLDEN, inputs, write

MODELS = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
SHAPES = [(16, 16), (24, 16), (12, 32), (8, 8)]


def close(found, expected, name=""):
    """To 1e-5 of the largest value, float32."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), 1), err_msg=name)


def torch_model(folder, kind: str):
    return getattr(transformers, MODELS[kind]).from_pretrained(folder, attn_implementation="eager").eval()


@torch.no_grad()
def reference(model, encoder, kind: str, x: dict) -> dict[str, np.ndarray]:
    """What transformers gives for our inputs: its pixels are normalised, and SigLIP 2's are already patches."""
    mean, deviation = torch.tensor(encoder.mean), torch.tensor(encoder.deviation)
    pixels = ((torch.from_numpy(x["pixels"]) + 1) / 2 - mean) / deviation
    pixels, patch = pixels.permute(0, 3, 1, 2), encoder.config.image.patch
    given = {"pixel_values": pixels, "interpolate_pos_encoding": True}
    if kind == "siglip2":
        patches = torch.from_numpy(np.stack([convert_image_to_patches(image, patch) for image in pixels.numpy()]))
        shapes = torch.tensor([[pixels.shape[2] // patch, pixels.shape[3] // patch]] * len(pixels))
        seen = torch.ones(patches.shape[:2], dtype=torch.int32)
        given = {"pixel_values": patches, "spatial_shapes": shapes, "pixel_attention_mask": seen}
    # SigLIP's texts are padded and not masked.
    mask = {"attention_mask": torch.from_numpy(x["mask"]).int()} if kind == "clip" else {}
    out = model(input_ids=torch.from_numpy(x["ids"]).long(), **mask, **given)
    tokens = out.vision_model_output.last_hidden_state
    if kind == "clip":
        # Ours are after the final norm, and without the class token.
        tokens = model.vision_model.post_layernorm(tokens)[:, 1:]
    found = {
        "image_tokens": tokens,
        "text_tokens": out.text_model_output.last_hidden_state,
        "image": out.image_embeds,
        "text": out.text_embeds,
        "logits": out.logits_per_image,
    }
    return {name: value.numpy() for name, value in found.items()}


def ours(encoder, x: dict) -> dict[str, np.ndarray]:
    @jax.jit
    def run(params, pixels, ids, mask):
        model = encoder.bind(params)
        image, text = model.encode_image(pixels), model.encode_text(ids, mask)
        logits = model.logits(image.pooled, text.pooled)
        return {
            "image_tokens": image.tokens,
            "text_tokens": text.tokens,
            "image": image.pooled,
            "text": text.pooled,
            "logits": logits,
        }

    return jax.tree.map(np.asarray, run(encoder.load(), **{name: jnp.asarray(value) for name, value in x.items()}))


def compare(found: dict, expected: dict, x: dict, kind: str) -> None:
    for name, value in expected.items():
        # Tokens at a masked position are nobody's business.
        rows = x["mask"] if name == "text_tokens" and kind == "clip" else slice(None)
        close(found[name][rows], value[rows], name)


def perturbed(model):
    """What starts at zero or one must count, too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_folder_that_transformers_saved(name, shape, tmp_path):
    kind = CASES[name]["model_type"]
    torch.manual_seed(0)
    values = {key: value for key, value in CASES[name].items() if key != "model_type"}
    config = getattr(transformers, MODELS[kind].replace("Model", "Config"))(**values)
    model = perturbed(getattr(transformers, MODELS[kind])(config).eval())
    model.save_pretrained(tmp_path)
    encoder, x = open_eclip(str(tmp_path)), inputs(name, shape)
    compare(ours(encoder, x), reference(model, encoder, kind, x), x, kind)


@pytest.mark.parametrize("name", CASES)
def test_seeded_weights_and_the_golden_file(name, tmp_path):
    kind, x = CASES[name]["model_type"], inputs(name, (20, 16))
    folder = write(name, tmp_path / "published")
    encoder = open_eclip(str(folder))
    expected = reference(torch_model(folder, kind), encoder, kind, x)
    assert np.abs(expected["logits"]).max() > 0.5 and np.ptp(expected["logits"]) > 0.5
    compare(ours(encoder, x), expected, x, kind)
    kept = {key: value[:1] if value.ndim == 3 else value for key, value in expected.items()}
    if os.environ.get("FOODDIT_WRITE_GOLDEN"):
        np.savez_compressed(GOLDEN / f"eclip-{name}.npz", **kept)
    golden = np.load(GOLDEN / f"eclip-{name}.npz")
    for key, value in kept.items():
        close(golden[key], value, key)


@pytest.mark.skipif("FOODDIT_TOKENIZERS" not in os.environ, reason="FOODDIT_TOKENIZERS is not set")
def test_the_tokenizer_of_clip(tmp_path):
    """Made of CLIP's own merges, as transformers writes it."""
    lines = Path(os.environ["FOODDIT_TOKENIZERS"], "clip_merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines[1:48895]]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    theirs = transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    theirs.save_pretrained(tmp_path)
    ours = PublishedTokenizer(tmp_path / "tokenizer.json", {"model_type": "clip"})
    texts = ["A photo of Kung Pao chicken, it's hot!", "两只饺子", "crème brûlée  \n x2", "noodles " * 90, "."]
    expected = theirs(texts, padding="max_length", truncation=True, max_length=77)
    assert expected["input_ids"][0][:3] == [49406, 320, 1125]
    for text, ids, mask in zip(texts, expected["input_ids"], expected["attention_mask"]):
        found, seen = ours.encode(text, 77)
        assert found.tolist() == ids and seen.tolist() == [bool(m) for m in mask]
    assert ours.count("noodles " * 90) == 92 and not ours.encode("", 77)[1].any()


def test_padded_patches_of_siglip_2(tmp_path):
    """Pictures of two shapes in one batch, as its NaFlex form takes them."""
    folder = write("siglip2", tmp_path / "published")
    model, encoder, length = torch_model(folder, "siglip2"), open_eclip(str(folder)), 24
    shapes, rng = np.array([[3, 6], [4, 4]]), np.random.default_rng(2)
    seen = np.arange(length) < shapes.prod(axis=1)[:, None]
    patches = rng.uniform(-1, 1, size=(2, length, 48)).astype(np.float32)
    given = (torch.from_numpy(patches), torch.from_numpy(seen).int(), torch.from_numpy(shapes))
    with torch.no_grad():
        expected = model.vision_model(*given)
    module = encoder.bind(encoder.load())
    for i, shape in enumerate(shapes.tolist()):
        table = jnp.pad(module.image.position_table(tuple(shape)), ((0, length - shape[0] * shape[1]), (0, 0)))
        one, mask = jnp.asarray(patches[i : i + 1]), jnp.asarray(seen[i : i + 1])
        features = module.image.encode_patches(one, jnp.zeros((length, 2)), mask, table)
        close(features.tokens[0][seen[i]], expected.last_hidden_state[i][torch.from_numpy(seen[i])])
        pooled = expected.pooler_output[i]
        close(features.pooled[0], pooled / pooled.norm())
