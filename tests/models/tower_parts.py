"""Towers for tests: a T5 and an E-CLIP of random tables, that need no folder."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from fooddit.models.text import TextFeatures

LENGTHS, WIDTHS, POOLED, PATCHES, PATCH_WIDTH, SIZE = {"t5": 7, "eclip": 5}, {"t5": 24, "eclip": 20}, 18, 9, 16, 12


class Part:
    """A tower: a table of random vectors, one a character; pictures are cut into patches times a matrix."""

    def __init__(self, name: str):
        self.name, self.length, self.width = name, LENGTHS[name], WIDTHS[name]
        self.embed, self.image_tokens, self.image_width, self.image_size = POOLED, PATCHES, PATCH_WIDTH, SIZE
        rng = np.random.default_rng(len(name))
        self.table = rng.normal(size=(50, self.width)).astype(np.float32)
        self.matrix = rng.normal(size=(48, PATCH_WIDTH)).astype(np.float32)
        self.shapes, self.axes = {"table": jax.ShapeDtypeStruct((50, self.width), jnp.float32)}, {"table": None}
        self.description = {"source": name}

    def load(self, shardings=None):
        return {"table": jnp.asarray(self.table)}

    def count(self, text):
        return len(text)

    def tokenize(self, text):
        ids = np.zeros(self.length, np.int32)
        codes = [1 + ord(letter) % 49 for letter in text[: self.length - 1]] + [1]
        ids[: len(codes)] = codes
        return ids, np.arange(self.length) < len(codes)

    def bind(self, params):
        def of_text(ids, mask):
            return params["table"][ids]

        def encode_text(ids, mask):
            tokens = params["table"][ids]
            return TextFeatures(tokens, mask, tokens.sum(axis=1)[:, :POOLED])

        def encode_image(pixels):
            cut = pixels.reshape(len(pixels), 3, 4, 3, 4, 3).swapaxes(2, 3).reshape(len(pixels), PATCHES, 48)
            return SimpleNamespace(tokens=cut @ self.matrix)

        if self.name == "t5":
            return of_text
        return SimpleNamespace(encode_text=encode_text, encode_image=encode_image)


def patch_towers(monkeypatch) -> None:
    """Every config names these, whatever its folders are."""
    monkeypatch.setattr("fooddit.models.t5_folder.open_t5", lambda source, length, dtype: Part("t5"))
    monkeypatch.setattr("fooddit.models.eclip_folder.open_eclip", lambda source, dtype, attention: Part("eclip"))
