"""E-CLIP from a folder: our own exported one, or a published CLIP, SigLIP or SigLIP 2 in the Hugging Face layout."""

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tokenizers

from fooddit.config import ConfigError, build, to_dict
from fooddit.data.tokenizer import Tokenizer
from fooddit.models.clip_tables import PUBLISHED
from fooddit.models.eclip import Eclip
from fooddit.models.eclip_config import SIZES, EclipConfig
from fooddit.models.module import define
from fooddit.models.own_names import own_sources
from fooddit.models.tensors import TensorError, TensorFolder, load_tree, save_folder
from fooddit.models.weights import resolve_folder

OURS = "fooddit_eclip"
TOKENIZER = "tokenizer.json"


class EclipEncoder:
    """A frozen E-CLIP: shapes that a program can be compiled with, and arrays once they are asked for.

    Attributes:
      config: of the towers; shapes, axes: trees of its parameters' shapes and logical axis names.
      description: the source, with a hash of its weights, of its tokenizer and of how it takes pixels; for checkpoints.
      length, width: of the text tokens; image_size, image_tokens, image_width: of a square picture, in pixels, and its
        patches; embed: width of what is pooled.
      mean, deviation: of the pixels in [0, 1] that it was trained with; it applies them itself to pixels in [-1, 1].
    """

    def __init__(self, source: str, config: EclipConfig, folder: TensorFolder | None = None, sources=None):
        self.config, dtype = config, config.dtype
        self._source, self._folder, self._sources, self._reader = source, folder, sources, None
        definition = define(lambda rngs: Eclip(self.config, rngs=rngs))
        self.axes, self.bind = definition.axes, definition.bind
        self.shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), definition.shapes)
        self._dtype = dtype
        self.length, self.width, self.embed = config.text.length, config.text.width, config.embed
        self.image_size, self.image_tokens = config.image.image_size, config.image.tokens
        self.image_width, self.mean, self.deviation = config.image.width, config.image.mean, config.image.deviation

    @cached_property
    def description(self) -> dict:
        about = {"model": "eclip", "source": self._source, "dtype": self._dtype, "fingerprint": None}
        if self._folder is None:
            return about
        tokenizer = self._folder.path / TOKENIZER
        parts = [self._folder.fingerprint, f"{self.mean} {self.deviation}"]
        parts += [hashlib.sha256(tokenizer.read_bytes()).hexdigest()] if tokenizer.is_file() else []
        return about | {"fingerprint": hashlib.sha256(" ".join(parts).encode()).hexdigest()}

    def load(self, shardings: Any = None) -> Any:
        """The arrays, each device's part only where shardings are given.

        Raises:
          ConfigError: the source is the name of a size; TensorError: tensors that are missing or of another shape.
        """
        return load_tree(self._found(), self._sources, self.shapes, shardings)

    def tokenize(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 (length,) and mask bool (length,), False at padding. ConfigError as from `load`."""
        return self._tokenizer().encode(text, self.length)

    def count(self, text: str) -> int:
        """How many tokens a text has, before any is cut; those that mark its start and end among them."""
        return self._tokenizer().count(text)

    def _tokenizer(self):
        if self._reader is None:
            self._reader = _open_tokenizer(self._found())
        return self._reader

    def _found(self) -> TensorFolder:
        if self._folder is None:
            raise ConfigError(
                f"{self._source} is the name of a size, which can be compiled with and has no weights; give a folder: "
                "--config.towers.eclip=DIR"
            )
        return self._folder


def open_eclip(source: str, dtype: str = "float32", attention: str = "auto") -> EclipEncoder:
    """An encoder of a folder, or of a size of ours by name ("eclip-l"), which can be compiled with but not loaded.

    A folder is what `save_eclip` wrote, or a published model whose config.json says "clip", "siglip" or "siglip2".
    dtype: of the arrays and the activations. attention: the kernel, as `EclipConfig.attention`.

    Raises:
      ConfigError: neither; TensorError: a folder of another model, or one that lacks files.
    """
    run = {"dtype": dtype, "attention": attention}
    if source in SIZES:
        return EclipEncoder(source, replace(SIZES[source], **run))
    if not resolve_folder(source).is_dir():
        raise ConfigError(f"E-CLIP {source!r}: no such folder; expected one, or one of {', '.join(SIZES)}")
    folder = TensorFolder(resolve_folder(source))
    kind = folder.config.get("model_type")
    if kind == OURS:
        values = {name: value for name, value in folder.config.items() if name != "model_type"}
        config = replace(build(EclipConfig, values, f"{folder.path / 'config.json'}"), **run)
        return EclipEncoder(source, config, folder, own_sources(define(lambda r: Eclip(config, rngs=r)).shapes))
    if kind in PUBLISHED:
        config, sources = PUBLISHED[kind](folder.config, _preprocessing(folder.path))
        return EclipEncoder(source, replace(config, **run), folder, sources)
    raise TensorError(
        f"{folder.path / 'config.json'}: model_type is {kind!r}, expected one of {', '.join((OURS, *PUBLISHED))}"
    )


def save_eclip(path: str | Path, config: EclipConfig, params: Any, tokenizer: Tokenizer, dtype=None) -> None:
    """Writes the folder that `open_eclip` reads; exact if `dtype` (None: the arrays' own) holds the values.

    Tensors have torch's names and layout: a block's number in the name, a Linear's weight as (out, in). The tokenizer
    is this package's own, normalisation included, and not for the `tokenizers` library alone.

    Raises:
      FileExistsError: `path` is there already.
    """
    definition = define(lambda rngs: Eclip(config, rngs=rngs))
    described = {"model_type": OURS, **to_dict(config)}
    texts = {TOKENIZER: tokenizer.to_json()}
    save_folder(path, described, own_sources(definition.shapes), params, dtype=dtype, texts=texts)


def _preprocessing(folder: Path) -> dict:
    """What the folder says of how pixels are prepared; {} if it says nothing."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text(encoding="utf-8"))
            return found.get("image_processor", found)
    return {}


def _open_tokenizer(folder: TensorFolder) -> "Tokenizer | PublishedTokenizer":
    path = folder.path / TOKENIZER
    if not path.is_file():
        raise TensorError(
            f"{path}: no such file; write it with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    return Tokenizer.load(path) if folder.config["model_type"] == OURS else PublishedTokenizer(path, folder.config)


class PublishedTokenizer:
    """A published tokenizer.json, with its own special tokens. "" is no caption."""

    def __init__(self, path: Path, config: dict):
        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        beside = path.with_name("tokenizer_config.json")
        said = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
        padding = said.get("pad_token")
        padding = padding.get("content") if isinstance(padding, dict) else padding
        number = None if padding is None else self._tokenizer.token_to_id(padding)
        text = config.get("text_config") or {}
        self._padding = text.get("pad_token_id", 1) if number is None else number
        # SigLIP was trained on lower case, the first one without punctuation as well; CLIP's file lowers by itself.
        self._lower = config["model_type"] != "clip"
        self._bare = said.get("tokenizer_class") == "SiglipTokenizer"

    def encode(self, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 (length,) and mask bool (length,), cut before the token that ends it, padded on the right."""
        found = self._ids(text)
        if len(found) > length:
            end = found[-1:] if self._tokenizer.num_special_tokens_to_add(False) else []
            found = found[: length - len(end)] + end
        ids = np.full(length, self._padding, np.int32)
        ids[: len(found)] = found
        return ids, np.arange(length) < len(found)

    def count(self, text: str) -> int:
        return len(self._ids(text))

    def _ids(self, text: str) -> list[int]:
        text = text.lower() if self._lower else text
        if self._bare:
            text = " ".join(text.translate(_PUNCTUATION).split())
        return self._tokenizer.encode(text).ids if text.strip() else []


_PUNCTUATION = str.maketrans("", "", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
