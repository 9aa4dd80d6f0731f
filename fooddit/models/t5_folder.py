"""T5 encoders from folders in the Hugging Face layout: config.json, tokenizer.json, safetensors; and back to them."""

import dataclasses
import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tokenizers
from jaxtyping import Bool, Int

from fooddit.config import ConfigError
from fooddit.models.module import define
from fooddit.models.t5 import T5Config, T5EncoderStack
from fooddit.models.t5_names import decoder_sources, encoder_sources, t5_config, t5_settings
from fooddit.models.tensors import TensorError, TensorFolder, load_tree, save_folder, unused_tensors
from fooddit.models.weights import resolve_folder

TOKENIZER = "tokenizer.json"
# Where the one embedding of encoder and decoder may be: files written from tied tensors keep any one name of it.
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")

_LATER = {"head_dim": 64, "feed_forward": "gated-gelu"}
_SIZES = {
    "small": {"width": 512, "mlp": 1024, "depth": 8, "heads": 6},
    "base": {"width": 768, "mlp": 2048, "depth": 12, "heads": 12},
    "large": {"width": 1024, "mlp": 2816, "depth": 24, "heads": 16},
    "xl": {"width": 2048, "mlp": 5120, "depth": 24, "heads": 32},
    "xxl": {"width": 4096, "mlp": 10240, "depth": 24, "heads": 64},
}
_FAMILIES = {
    "t5-v1_1": (32128, False, ("small", "base", "large", "xl", "xxl")),
    "flan-t5": (32128, False, ("small", "base", "large", "xl", "xxl")),
    "mt5": (250112, False, ("small", "base", "large", "xl", "xxl")),
    "umt5": (256384, True, ("small", "base", "xl", "xxl")),
}
# The published shapes by name; their programs can be compiled without a file.
PUBLISHED = {
    f"{family}-{size}": T5Config(
        vocabulary=vocabulary,
        bias_in_every_layer=own_bias,
        decoder_depth=_SIZES[size]["depth"],
        **_SIZES[size],
        **_LATER,
    )
    for family, (vocabulary, own_bias, sizes) in _FAMILIES.items()
    for size in sizes
}


def open_t5(source: str, length: int, dtype: str = "bfloat16") -> "T5Encoder":
    """The encoder in a folder, or of a published shape (a name of PUBLISHED), which can be compiled and not loaded.

    Args:
      length: tokens of a text, the </s> at its end among them; longer ones are cut.
      dtype: of the features and of the matrices, "float32" or "bfloat16".

    Raises:
      ConfigError: neither a folder nor a known name, or another dtype.
      TensorError: a folder that is not a T5's, or has no tokenizer.json, or tensors that do not fit.
    """
    if length < 2:
        raise ConfigError(f"a text of {length} tokens: expected at least 2, one and the </s>")
    if resolve_folder(source).is_dir():
        folder = TensorFolder(resolve_folder(source))
        config = t5_config(folder.config, str(folder.path))
        encoder = T5Encoder(source, _in_dtype(config, dtype), length, folder, _Words(folder, config, length))
    elif source in PUBLISHED:
        encoder = T5Encoder(source, _in_dtype(PUBLISHED[source], dtype), length)
    else:
        raise ConfigError(
            f"a T5 encoder: found {source!r}, expected a folder with config.json, {TOKENIZER} and safetensors, or a "
            f"shape to compile: {', '.join(PUBLISHED)}"
        )
    return encoder


class T5Encoder:
    """A frozen encoder: what its arrays look like, how they are read, and how text becomes token ids.

    Attributes:
      config, length, width: of the encoder.
      shapes, axes: trees of its arrays' shapes and logical axis names. Matrices have the config's dtype; gains and
        position biases, which are few, stay float32.
    """

    def __init__(
        self,
        source: str,
        config: T5Config,
        length: int,
        folder: TensorFolder | None = None,
        words: "_Words | None" = None,
    ):
        self.source, self.config, self.length, self.width = source, config, length, config.width
        self._folder, self._words = folder, words
        definition = define(lambda rngs: T5EncoderStack(config, rngs=rngs))
        self.axes, self.bind = definition.axes, definition.bind
        self.shapes = jax.tree.map_with_path(lambda path, leaf: _stored(path, leaf, config.dtype), definition.shapes)

    @cached_property
    def description(self) -> dict[str, Any]:
        """Where it came from, with a hash of the weights and of the tokenizer; None for a shape without weights."""
        about = {"model": "t5", "source": self.source, "length": self.length, "dtype": self.config.dtype}
        if self._folder is None:
            return about | {"fingerprint": None}
        hashed = f"{self._folder.fingerprint} {self._words.fingerprint}".encode()
        return about | {"fingerprint": hashlib.sha256(hashed).hexdigest()}

    def load(self, shardings: Any = None) -> dict:
        """The arrays; with `shardings` (a tree as `shapes`) each device's part only is read.

        Raises:
          ConfigError: the encoder is the name of a shape; TensorError: tensors are missing or of another shape.
        """
        folder = self._with(self._folder)
        embedding = next((name for name in _EMBEDDINGS if name in folder.shapes), _EMBEDDINGS[0])
        sources = encoder_sources(self.config, embedding)
        known = [name for name in unused_tensors(folder, sources) if name.startswith("encoder.")]
        if strange := [name for name in known if name not in _EMBEDDINGS]:
            raise TensorError(
                f"{folder.path}: its config.json ({folder.config['model_type']}) has no place for {len(strange)} of "
                f"the encoder's tensors, such as {strange[0]}: is it another model's?"
            )
        return load_tree(folder, sources, self.shapes, shardings)

    def tokenize(self, text: str) -> tuple[Int[np.ndarray, "length"], Bool[np.ndarray, "length"]]:
        """Ids with </s> at the end and padding after it, and a mask that is True at tokens; for a text without any
        token, as a dropped caption is, padding alone.

        Raises:
          ConfigError: the encoder is the name of a shape.
        """
        return self._with(self._words)(text)

    def count(self, text: str) -> int:
        """How many tokens a text has, before any is cut."""
        return self._with(self._words).count(text)

    def _with(self, part):
        if part is None:
            raise ConfigError(
                f"{self.source} is a shape without weights and tokenizer; give the folder that holds them: "
                "--config.towers.t5=DIR"
            )
        return part


def save_t5(path: str | Path, config: T5Config, params: dict, words: tokenizers.Tokenizer) -> None:
    """Writes a trained T5, encoder and decoder (`t5_decoder.T5`), as `open_t5` and transformers read it.

    Raises:
      FileExistsError: the folder is there already.
    """
    sources = {"encoder": encoder_sources(config, _EMBEDDINGS[0]), "decoder": decoder_sources(config)}
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": words.id_to_token(0),
        "eos_token": words.id_to_token(1),
        "unk_token": words.id_to_token(2),
        "clean_up_tokenization_spaces": False,
    }
    texts = {
        TOKENIZER: words.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(about, indent=2, ensure_ascii=False) + "\n",
    }
    save_folder(path, t5_settings(config), sources, params, texts=texts)


class _Words:
    """A folder's tokenizer: text -> ids and mask of one length."""

    def __init__(self, folder: TensorFolder, config: T5Config, length: int):
        path = folder.path / TOKENIZER
        if not path.is_file():
            raise TensorError(f"{path}: no such file; {_conversion(folder.path)}")
        content = path.read_bytes()
        self.fingerprint, self._length = hashlib.sha256(content).hexdigest(), length
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
        except Exception as error:  # The library raises nothing more special.
            raise TensorError(f"{path}: cannot be read as a tokenizer: {error}; download it again") from error
        found = self._tokenizer.get_vocab_size()
        if found > config.vocabulary:
            raise TensorError(
                f"{path}: has {found:,} tokens, but the embedding that config.json tells of has {config.vocabulary:,}: "
                "they are of two models"
            )
        # A folder may bring settings of its own for these.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        end = folder.config.get("eos_token_id", 1)
        self._end = end[0] if isinstance(end, list) else end
        self._padding = folder.config.get("pad_token_id") or 0

    def count(self, text: str) -> int:
        found = len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return found + (found > 0)

    def __call__(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        found = self._tokenizer.encode(text, add_special_tokens=False).ids[: self._length - 1]
        found = [*found, self._end] if found else []
        ids = np.full(self._length, self._padding, np.int32)
        ids[: len(found)] = found
        return ids, np.arange(self._length) < len(found)


def _conversion(folder: Path) -> str:
    """What to do about a tokenizer that is not there."""
    if (folder / "spiece.model").is_file():
        script = f"T.from_pretrained('{folder}').save_pretrained('{folder}')"
        return (
            "it has spiece.model only. Convert it once, where transformers and sentencepiece are installed: "
            f'python -c "from transformers import T5Tokenizer as T; {script}"'
        )
    return (
        "copy the tokenizer.json that was published with these weights into the folder (of a pipeline it is in the "
        "folder tokenizer beside it)"
    )


def _in_dtype(config: T5Config, dtype: str) -> T5Config:
    try:
        return dataclasses.replace(config, dtype=dtype)
    except ValueError as error:
        raise ConfigError(f"a T5 encoder's {error}") from error


def _stored(path, leaf: jax.ShapeDtypeStruct, dtype: str) -> jax.ShapeDtypeStruct:
    matrix = path[-1].key in ("kernel", "embedding")
    return jax.ShapeDtypeStruct(leaf.shape, dtype if matrix else leaf.dtype)
