"""Pictures to features: the networks that distances between sets of pictures are measured with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, UInt8
from PIL import Image

from fooddit.evaluation.real_pictures import BLOCK, in_blocks
from fooddit.evaluation.scene_reader import classifier, fit
from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.scene_classifier import SceneClassifier
from fooddit.models.weights import load_weights
from fooddit.parallel import batch_sharding, batch_shares
from fooddit.parallel.placement import place_whole, replicate

# The scene reader's features have a root mean square of 15.6 on scenes and 14.3 on photos. KID's kernel takes features
# of size 1, as Inception's are: its cube of larger ones sees little but the largest.
_READER_SCALE = 16.0

KINDS = "builtin:scene_reader, inception:FILE, inception-clean:FILE or eclip:FOLDER"


class Features(Protocol):
    """A network that distances are measured with.

    Attributes:
      name: for people; dimension: features of a picture.
      description: JSON that names the network and its weights: values compare only where it is the same.
    """

    name: str
    dimension: int
    description: dict

    def __call__(self, images: UInt8[np.ndarray, "n height width 3"]) -> Float[np.ndarray, "n dimension"]:
        """float32, the same for a picture whatever it is given with."""


class Network:
    """A jitted function of a batch of arrays, always of one size, spread over the devices of the mesh in context.

    Every process of a run calls it with the same arrays and is given the same result.
    """

    def __init__(self, function: Callable[..., jax.Array], load: Callable[[Any], Any], batch_size: int):
        """`function`: (params, *arrays) -> array, all with a leading dimension; `load`: a sharding for every parameter
        (None: where JAX puts it) -> params."""
        self._run = jax.jit(lambda params, *arrays: replicate(function(params, *arrays)))
        self._load, self._batch_size = load, batch_size
        self._placed: dict[Mesh | None, Any] = {}

    @property
    def batch_size(self) -> int:
        """Rows that it takes at once under the mesh in context."""
        mesh, size = _mesh(), self._batch_size
        return size if mesh is None else size + -size % batch_shares(mesh)

    def __call__(self, *arrays: np.ndarray) -> Float[np.ndarray, "n dimension"]:
        mesh, size = _mesh(), self.batch_size
        if mesh not in self._placed:
            self._placed[mesh] = self._load(None if mesh is None else NamedSharding(mesh, PartitionSpec()))
        parts = []
        for start in range(0, len(arrays[0]), size):
            batch = [_filled(array[start : start + size], size, mesh) for array in arrays]
            parts.append(np.asarray(self._run(self._placed[mesh], *batch), np.float32))
        return np.concatenate(parts)[: len(arrays[0])]


def _mesh() -> Mesh | None:
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else mesh


def _filled(rows: np.ndarray, size: int, mesh: Mesh | None) -> np.ndarray | jax.Array:
    rows = np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])
    return rows if mesh is None else place_whole(rows, batch_sharding(mesh))


class NetworkFeatures:
    """Features of a network that takes pictures of one size."""

    def __init__(self, name: str, dimension: int, description: dict, network: Network, prepare: Callable):
        """`prepare`: uint8 pictures -> the array that the network is given."""
        self.name, self.dimension, self.description = name, dimension, description
        self._network, self._prepare = network, prepare

    def __call__(self, images: UInt8[np.ndarray, "n height width 3"]) -> Float[np.ndarray, "n dimension"]:
        if not len(images):
            return np.zeros((0, self.dimension), np.float32)
        # Prepared pictures are several times as large as pictures: only so many as the network takes are there at once.
        blocks = in_blocks(images, self._network.batch_size)
        return np.concatenate([self._network(self._prepare(np.stack(block))) for block in blocks])


class ClipFeatures(NetworkFeatures):
    """Features of a CLIP's image tower, and its text tower's in the same space."""

    def __init__(self, name, dimension, description, network, prepare, text_network: Network, tokenize: Callable):
        super().__init__(name, dimension, description, network, prepare)
        self._text_network, self._tokenize = text_network, tokenize

    def text(self, prompts: Sequence[str]) -> Float[np.ndarray, "n dimension"]:
        """The pooled features of prompts."""
        ids, mask = zip(*map(self._tokenize, prompts))
        return self._text_network(np.stack(ids), np.stack(mask))


def open_features(source: str) -> Features:
    """The network that `source` names: builtin:scene_reader, inception:FILE, inception-clean:FILE or eclip:FOLDER.

    inception resizes pictures as the first FID did (and torch-fidelity does), inception-clean as clean-fid does. Only
    these two with the published weights give values that compare with published ones.

    Raises:
      ValueError: another form, or a file of another kind; FileNotFoundError: no such file.
    """
    kind, _, where = source.partition(":")
    if source == "builtin:scene_reader":
        return scene_reader_features()
    if kind in ("inception", "inception-clean") and where:
        return inception_features(where, clean=kind == "inception-clean")
    if kind == "eclip" and where:
        return eclip_features(where)
    raise ValueError(f"features {source!r}: expected {KINDS}")


def scene_reader_features() -> NetworkFeatures:
    """128 features of the scene reader that ships with the package, which knows made-up dishes only."""
    params, _, digest = load_weights("builtin:scene_reader")
    definition = classifier()

    def run(params, images):
        return definition.bind(params).features(pixels_from_bytes(images)) / _READER_SCALE

    network = Network(run, _placing(params), BLOCK)
    description = {"network": "builtin:scene_reader", "scale": 1 / _READER_SCALE, "sha256": digest}
    return NetworkFeatures("scene reader", 128, description, network, lambda images: fit(images, SceneClassifier.size))


def inception_features(path: str | Path, *, clean: bool = False, batch_size: int = 32) -> NetworkFeatures:
    """The 2048 features of the FID, from the published weights (`models.inception.load_inception`).

    clean: pictures are resized as Parmar et al. 2022 (arXiv:2104.11222) do, with smoothing, else as TensorFlow 1 did.
    """
    from fooddit.models.inception import FEATURES, inception, load_inception, resize

    params, digest = load_inception(path)
    definition = inception()

    def run(params, images):
        pixels = images.astype(np.float32)
        return definition.bind(params)(pixels if clean else resize(pixels))

    name = "Inception-v3, clean resizing" if clean else "Inception-v3"
    description = {"network": "inception-v3", "resize": "clean-fid" if clean else "tensorflow-1", "sha256": digest}
    prepare = resize_clean if clean else lambda images: images
    return NetworkFeatures(name, FEATURES, description, Network(run, _placing(params), batch_size), prepare)


def eclip_features(folder: str | Path, batch_size: int = 32) -> ClipFeatures:
    """Pooled features of an E-CLIP folder's towers, or of a published CLIP, SigLIP or SigLIP2 folder's."""
    from fooddit.models.eclip_folder import open_eclip

    encoder = open_eclip(str(folder))

    def load(sharding):
        return encoder.load(None if sharding is None else jax.tree.map(lambda _: sharding, encoder.shapes))

    def see(params, images):
        return encoder.bind(params).encode_image(pixels_from_bytes(images)).pooled.astype(np.float32)

    def read(params, ids, mask):
        return encoder.bind(params).encode_text(ids, mask).pooled.astype(np.float32)

    dimension = jax.eval_shape(
        see, encoder.shapes, jax.ShapeDtypeStruct((1, encoder.image_size, encoder.image_size, 3), np.uint8)
    ).shape[-1]
    return ClipFeatures(
        f"E-CLIP {Path(folder).name}",
        dimension,
        {"network": "eclip", **encoder.description},
        Network(see, load, batch_size),
        lambda images: resize_bicubic(images, encoder.image_size),
        Network(read, load, batch_size),
        encoder.tokenize,
    )


def resize_clean(images: UInt8[np.ndarray, "n height width 3"]) -> Float[np.ndarray, "n 299 299 3"]:
    """To Inception's size, bicubic with smoothing, channel by channel and without rounding (clean-fid)."""
    from fooddit.models.inception import SIDE

    resized = np.empty((len(images), SIDE, SIDE, 3), np.float32)
    for i, image in enumerate(images):
        for c in range(3):
            channel = Image.fromarray(image[..., c].astype(np.float32))
            resized[i, ..., c] = np.asarray(channel.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return resized.clip(0, 255)


def resize_bicubic(images: UInt8[np.ndarray, "n height width 3"], side: int) -> UInt8[np.ndarray, "n side side 3"]:
    """To a square, as published CLIPs' image processors do."""
    if images.shape[1:3] == (side, side):
        return images
    return np.stack([np.asarray(Image.fromarray(i).resize((side, side), Image.Resampling.BICUBIC)) for i in images])


def _placing(params: dict) -> Callable[[Any], Any]:
    """Loads parameters that are in memory."""
    return lambda sharding: jax.tree.map(lambda x: x if sharding is None else place_whole(x, sharding), params)
