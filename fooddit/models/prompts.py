"""What a model is asked with, on its way to features: captions and reference pictures, through whatever reads them."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from fooddit.data.captions import Caption
from fooddit.data.images import fit_image
from fooddit.data.tokenizer import Tokenizer
from fooddit.models.towers import Towers, TowerWidths

Encode = Callable[[str], tuple[np.ndarray, np.ndarray]]
# Captions, to know whether a model reads them whole.
LOOKED_AT = 1000


class Prompt(NamedTuple):
    """A caption ("" is none), and a picture to draw after."""

    text: str = ""
    image: UInt8[np.ndarray, "height width 3"] | None = None


class PromptReader(Protocol):
    """Reads captions and reference pictures for a model.

    Attributes:
      parts: frozen networks by name (`training.frozen.FrozenPart`).
      lengths: tokens of a caption for each of `encodes`.
      encodes: text to (ids, mask), by name; counts: text to the number of tokens it has, were none cut.
      reference_size: side of a reference picture in pixels; 0: no image prompts.
      widths: of features of frozen towers; None without any.
    """

    parts: Mapping[str, Any]
    lengths: Mapping[str, int]
    encodes: Mapping[str, Encode]
    counts: Mapping[str, Callable[[str], int]]
    reference_size: int
    widths: TowerWidths | None

    def features(self, params: Mapping[str, Any], batch: Mapping[str, Array]) -> dict[str, Array]:
        """Under jit: what `TextToImage.conditions` takes, of a batch with the arrays that `input_shapes` names."""


class LearnedText:
    """The reader of a model with a text transformer of its own: token ids are all there is to give it."""

    parts: Mapping[str, Any] = {}
    reference_size, widths = 0, None

    def __init__(self, length: int, tokenizer: Tokenizer | None = None):
        """`tokenizer`: None where nothing is read and only shapes are wanted."""
        self.lengths = {"text": length}
        self.encodes = {"text": lambda text: tokenizer.encode(text, length)}
        self.counts = {"text": lambda text: tokenizer.count(text)}

    def features(self, params: Mapping[str, Any], batch: Mapping[str, Array]) -> dict[str, Array]:
        return {name: batch[name] for name in ("text", "text_mask")}


def open_reader(config, tokenizer: Tokenizer | None = None) -> PromptReader:
    """The reader of an experiment: its frozen towers, or its text transformer with the tokenizer of the run."""
    if config.towers.names or config.model.image_tokens:
        return Towers(config.towers, image_prompts=config.model.image_tokens > 0, attention=config.model.attention)
    return LearnedText(config.text.length, tokenizer)


def reads_most(reader: PromptReader) -> str:
    """Of several towers the one that hears the end of a long caption; "" where nothing is read."""
    return max(reader.lengths, key=reader.lengths.get, default="")


def cut_captions(reader: PromptReader, captions: Iterable[Caption]) -> str:
    """What to say where some of the first captions are longer than the model reads; "" if none is."""
    name, texts = reads_most(reader), [caption.text for caption in itertools.islice(captions, LOOKED_AT)]
    length = reader.lengths.get(name, 0)
    longer = [n for n in map(reader.counts[name], texts) if n > length] if name else []
    if not longer:
        return ""
    key = {"text": "config.text.length", "t5": "config.towers.t5_length"}.get(name)
    return (
        f"{len(longer)} of the first {len(texts)} captions have more than the {length} tokens that the model reads "
        f"(up to {max(longer)}): their ends are cut" + (f"; {key} is how many it reads" if key else "")
    )


def input_shapes(reader: PromptReader, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Of what `features` takes for a batch: ids and masks by name; "reference" and "has_reference" of image prompts."""
    shape, found = jax.ShapeDtypeStruct, {}
    for name, length in reader.lengths.items():
        found |= {name: shape((batch, length), jnp.int32), f"{name}_mask": shape((batch, length), jnp.bool)}
    if size := reader.reference_size:
        found |= {"reference": shape((batch, size, size, 3), jnp.uint8), "has_reference": shape((batch,), jnp.bool)}
    return found


def encode_prompts(reader: PromptReader, prompts: Sequence[Prompt]) -> dict[str, np.ndarray]:
    """The arrays of `input_shapes` for prompts. "reference" is not among them if no prompt has a picture."""
    found = {}
    for name, encode in reader.encodes.items():
        ids, masks = zip(*(encode(prompt.text) for prompt in prompts), strict=True)
        found |= {name: np.stack(ids), f"{name}_mask": np.stack(masks)}
    pictures = [prompt.image for prompt in prompts]
    if any(picture is not None for picture in pictures):
        size = reader.reference_size
        black = np.zeros((size, size, 3), np.uint8)
        found["reference"] = np.stack([black if p is None else fit_reference(p, size) for p in pictures])
        found["has_reference"] = np.array([picture is not None for picture in pictures])
    return found


def fit_reference(image: UInt8[np.ndarray, "height width 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The middle square of a picture, as a reference is shown to the tower in training."""
    return fit_image(np.ascontiguousarray(image), size, size)
