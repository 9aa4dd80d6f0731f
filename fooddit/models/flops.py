"""Model FLOPs of text to picture, from the shapes of the weights."""

from collections.abc import Mapping

import jax

from fooddit.models.dit import DiTConfig
from fooddit.models.text import TextConfig
from fooddit.models.towers import TowerWidths

# Parts of cross-attention that see the text's tokens, and an image prompt's.
_CONTEXTS = ("key", "value"), ("image_key", "image_value")


def flops_per_example(
    dit: DiTConfig, text: TextConfig, tokens: int, shapes, widths: TowerWidths | None = None
) -> float:
    """Of one example's forward and backward pass through what is trained; frozen towers and autoencoders not among it.

    A weight matrix costs 2 x tokens x its size forward and twice that backward; attention adds its two products. XLA's
    own count would see a scanned block once.
    """
    network, cross = shapes["dit"], shapes["dit"]["blocks"]["cross"]
    context, image = ({name: cross[name] for name in names if name in cross} for names in _CONTEXTS)
    length = text.length if widths is None else sum(widths.tokens.values())
    per_example = {name: network[name] for name in ("time", "modulation", "pooled")}
    per_token = {name: network[name] for name in ("embed", "blocks", "out")}
    products = _matrices(per_token, tokens) - _matrices((context, image), tokens)
    products += _matrices(context, length) + _matrices(image, dit.image_tokens) + _matrices(per_example, 1)
    attention = 4.0 * dit.depth * dit.width * tokens * (tokens + length + dit.image_tokens)
    before = _learned(text, shapes["text"]) if widths is None else _towers(dit, widths, shapes)
    return 3.0 * (products + attention + before)


def _learned(text: TextConfig, shapes) -> float:
    return _matrices(shapes, text.length) + 4.0 * text.depth * text.width * text.length**2


def _towers(dit: DiTConfig, widths: TowerWidths, shapes) -> float:
    projections = shapes["towers"]
    total = sum(_matrices(projections[name], length) for name, length in widths.tokens.items())
    total += _matrices({"pooled": projections.get("pooled", {})}, 1)
    if dit.image_tokens:
        blocks = shapes["resampler"]["blocks"]
        of_patches = {name: blocks["attention"][name] for name in ("key", "value")}
        total += _matrices(blocks, dit.image_tokens) - _matrices(of_patches, dit.image_tokens)
        total += _matrices(of_patches, widths.patches)
        total += 4.0 * _depth(blocks) * dit.image_width * dit.image_tokens * widths.patches
    return total


def _depth(blocks: Mapping) -> int:
    return jax.tree.leaves(blocks)[0].shape[0]


def _matrices(tree, rows: int) -> float:
    kernels = [leaf.size for path, leaf in jax.tree.leaves_with_path(tree) if path[-1].key == "kernel"]
    return 2.0 * rows * sum(kernels)
