"""The TAESD family of tiny autoencoders: TAESD, TAESDXL, TAESD3, TAEF1 and TAEF2, from the files they come in."""

import hashlib
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fooddit.models.autoencoder import FrozenAutoencoder, place
from fooddit.models.convolution import Conv, GroupNorm, upsample
from fooddit.models.module import Definition, define
from fooddit.models.torch_file import read_torch
from fooddit.models.weights import WeightsError

WIDTH = 64
SUFFIXES = (".safetensors", ".pth")


class Taesd(nnx.Module):
    """A distilled stand-in for a large autoencoder, in its latent space as diffusion sees it: no scaling is needed.

    Parameters go by their numbers in the published sequences of layers, where activations and doublings count, too.
    Layout: madebyollin/taesd (MIT).
    """

    factor = 8

    def __init__(self, channels: int, pooled: bool, *, rngs: nnx.Rngs):
        """`pooled`: blocks at the lowest resolution begin with `Pool` (TAEF2)."""
        conv = lambda a, b, **options: Conv(a, b, 3, rngs=rngs, padding=1, **options)  # noqa: E731
        block = lambda pooled=False: Block(pooled, rngs=rngs)  # noqa: E731
        halve = lambda: conv(WIDTH, WIDTH, stride=2, bias=False)  # noqa: E731
        double = lambda: conv(WIDTH, WIDTH, bias=False)  # noqa: E731
        stages = [halve(), block(), block(), block(), halve(), block(), block(), block(), halve()]
        lowest = [block(pooled), block(pooled), block(pooled)]
        self.encoder = _by_number([conv(3, WIDTH), block(), *stages, *lowest, conv(WIDTH, channels)])
        # None is what has no parameters: a clamp before the first convolution, ReLU behind it, doublings.
        first = [None, conv(channels, WIDTH), None, block(pooled), block(pooled), block(pooled)]
        stages = [None, double(), block(), block(), block(), None, double(), block(), block(), block()]
        self.decoder = _by_number([*first, *stages, None, double(), block(), conv(WIDTH, 3)])

    def encode(self, image: Float[Array, "batch height width 3"]) -> Float[Array, "batch h w channels"]:
        """Pixels in [-1, 1], sides multiples of 8, to latents of about unit variance."""
        x = (image + 1) / 2
        for number in sorted(self.encoder, key=int):
            x = self.encoder[number](x)
        return x

    def decode(self, latent: Float[Array, "batch h w channels"]) -> Float[Array, "batch height width 3"]:
        """Latents to pixels, about [-1, 1] (not clipped); latents beyond 3 are drawn in smoothly."""
        x = jax.nn.relu(self.decoder["1"](3 * jax.numpy.tanh(latent / 3)))
        for number in sorted(self.decoder, key=int)[1:]:
            layer = self.decoder[number]
            doubles = isinstance(layer, Conv) and layer.bias is None
            x = layer(upsample(x) if doubles else x)
        return 2 * x - 1


class Block(nnx.Module):
    """relu(x + conv(relu(conv(relu(conv x))))), before which a pooled block adds `Pool` of x to x."""

    def __init__(self, pooled: bool, *, rngs: nnx.Rngs):
        conv = lambda: Conv(WIDTH, WIDTH, 3, rngs=rngs, padding=1)  # noqa: E731
        self.conv = _by_number([conv(), None, conv(), None, conv()])
        self.pool = Pool(rngs=rngs) if pooled else None

    def __call__(self, x):
        if self.pool is not None:
            x = x + self.pool(x)
        y = jax.nn.relu(self.conv["0"](x))
        return jax.nn.relu(x + self.conv["4"](jax.nn.relu(self.conv["2"](y))))


class Pool(nnx.Module):
    """A position's channels, four times as many, seen by the whole picture through a group norm."""

    def __init__(self, *, rngs: nnx.Rngs):
        wide = 4 * WIDTH
        self.layers = _by_number(
            [
                Conv(WIDTH, wide, 1, rngs=rngs, bias=False),
                GroupNorm(wide, 4, epsilon=1e-5),
                None,
                Conv(wide, WIDTH, 1, rngs=rngs, bias=False),
            ]
        )

    def __call__(self, x):
        return self.layers["3"](jax.nn.relu(self.layers["1"](self.layers["0"](x))))


def taesd(channels: int, pooled: bool) -> Definition:
    """The model, without its arrays."""
    return define(lambda rngs: Taesd(channels, pooled, rngs=rngs))


def taesd_files(folder: Path) -> tuple[Path, Path] | None:
    """A folder's NAME_encoder and NAME_decoder files, .safetensors or else .pth; None if there is no such pair.

    Raises:
      WeightsError: there are several pairs.
    """
    found = {}
    for suffix in SUFFIXES:
        for encoder in sorted(folder.glob(f"*_encoder{suffix}")):
            name = encoder.name.removesuffix(f"_encoder{suffix}")
            decoder = folder / f"{name}_decoder{suffix}"
            if decoder.is_file():
                found.setdefault(name, (encoder, decoder))
    if len(found) > 1:
        raise WeightsError(f"{folder}: found {', '.join(found)}; expected the files of one autoencoder")
    return next(iter(found.values()), None)


def open_taesd(folder: str) -> FrozenAutoencoder:
    """A tiny autoencoder from its two files (`taesd_files`).

    Raises:
      WeightsError: files that are damaged, or of another network.
    """
    files = taesd_files(Path(folder))
    if files is None:
        raise WeightsError(f"{folder}: expected NAME_encoder and NAME_decoder, .safetensors or .pth, as TAESD has them")
    stored = {part: _read(file) for part, file in zip(("encoder", "decoder"), files)}
    channels = len(stored["encoder"].get("14.weight", ()))
    definition = taesd(channels, pooled="11.pool.0.weight" in stored["encoder"])
    weights = _as_tree(stored, definition.shapes, folder)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return FrozenAutoencoder(
        definition=definition,
        load=lambda shardings=None: place(weights, shardings),
        factor=Taesd.factor,
        channels=channels,
        variational=False,
        mean=np.zeros(channels, np.float32),
        deviation=np.ones(channels, np.float32),
        description={"autoencoder": folder, "sha256": digest},
    )


def _read(file: Path) -> dict[str, np.ndarray]:
    if file.suffix == ".pth":
        return read_torch(file)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise WeightsError(f"{file}: cannot be read as safetensors: {error}") from error


def _as_tree(stored: dict, shapes: dict, folder: str) -> dict:
    """The files' tensors as our tree, float32. WeightsError for names or shapes that are not those of the network."""
    left = {part: dict(tensors) for part, tensors in stored.items()}

    def take(path, shape):
        part, *parents, leaf = [entry.key for entry in path]
        name = ".".join([parent for parent in parents if parent != "layers"] + ["bias" if leaf == "bias" else "weight"])
        array = left[part].pop(name, None)
        if array is not None and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        if array is None or array.shape != shape.shape:
            found = "nothing" if array is None else array.shape
            raise WeightsError(f"{folder}: {part}: {name}: found {found}, expected {shape.shape} (as transposed here)")
        return array.astype(np.float32)

    tree = jax.tree.map_with_path(take, shapes)
    if extra := [f"{part}: {name}" for part, names in left.items() for name in names]:
        raise WeightsError(f"{folder}: {len(extra)} tensors that the network does not have, such as {extra[0]}")
    return tree


def _by_number(layers: list) -> nnx.Dict:
    return nnx.Dict({str(i): layer for i, layer in enumerate(layers) if layer is not None})
