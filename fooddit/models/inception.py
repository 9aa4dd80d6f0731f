"""Inception-v3 as the FID was published with: TensorFlow's 2015 graph, its weights as PyTorch tools name them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fooddit.models.module import Definition, define
from fooddit.models.torch_file import read_torch
from fooddit.models.weights import WeightsError

SIDE, FEATURES = 299, 2048
_EPSILON = 1e-3


class Conv(NamedTuple):
    """A convolution of a branch; a square kernel unless `width` says otherwise. Strides of 2 take no padding."""

    name: str
    outputs: int
    height: int = 1
    width: int = 0
    stride: int = 1


class Fork(NamedTuple):
    """Two convolutions of the same input, their channels side by side."""

    first: Conv
    second: Conv


# A branch is a run of convolutions and forks, or of poolings: "average", "maximum" (stride 1) and "halve" (stride 2).
Branch = tuple[Conv | Fork | str, ...]


def _block_a(pooled: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5)),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, 3), Conv("branch3x3dbl_3", 96, 3)),
        ("average", Conv("branch_pool", pooled)),
    )


def _block_c(inner: int) -> tuple[Branch, ...]:
    double = (
        Conv("branch7x7dbl_1", inner),
        Conv("branch7x7dbl_2", inner, 7, 1),
        Conv("branch7x7dbl_3", inner, 1, 7),
        Conv("branch7x7dbl_4", inner, 7, 1),
        Conv("branch7x7dbl_5", 192, 1, 7),
    )
    return (
        (Conv("branch1x1", 192),),
        (Conv("branch7x7_1", inner), Conv("branch7x7_2", inner, 1, 7), Conv("branch7x7_3", 192, 7, 1)),
        double,
        ("average", Conv("branch_pool", 192)),
    )


def _block_e(pooling: str) -> tuple[Branch, ...]:
    across, down = (1, 3), (3, 1)
    return (
        (Conv("branch1x1", 320),),
        (
            Conv("branch3x3_1", 384),
            Fork(Conv("branch3x3_2a", 384, *across), Conv("branch3x3_2b", 384, *down)),
        ),
        (
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, 3),
            Fork(Conv("branch3x3dbl_3a", 384, *across), Conv("branch3x3dbl_3b", 384, *down)),
        ),
        (pooling, Conv("branch_pool", 192)),
    )


_BLOCK_B = (
    (Conv("branch3x3", 384, 3, stride=2),),
    (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, 3), Conv("branch3x3dbl_3", 96, 3, stride=2)),
    ("halve",),
)
_BLOCK_D = (
    (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, 3, stride=2)),
    (
        Conv("branch7x7x3_1", 192),
        Conv("branch7x7x3_2", 192, 1, 7),
        Conv("branch7x7x3_3", 192, 7, 1),
        Conv("branch7x7x3_4", 192, 3, stride=2),
    ),
    ("halve",),
)
# The published graph pools by maximum in its last block, where the paper's network averages.
_BLOCKS = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _BLOCK_B,
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _BLOCK_D,
    "Mixed_7b": _block_e("average"),
    "Mixed_7c": _block_e("maximum"),
}
_STEM = (
    Conv("Conv2d_1a_3x3", 32, 3, stride=2),
    Conv("Conv2d_2a_3x3", 32, 3),
    Conv("Conv2d_2b_3x3", 64, 3),
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, 3),
)
# Padded like the blocks' convolutions; the stem's others take no padding.
_PADDED = "Conv2d_2b_3x3"


class Convolution(nnx.Module):
    """A convolution, the batch norm after it as a factor and an offset for each channel, and a ReLU."""

    def __init__(self, inputs: int, conv: Conv, padding: str, *, rngs: nnx.Rngs):
        shape = (conv.height, conv.width or conv.height, inputs, conv.outputs)
        self.stride, self.padding = conv.stride, padding
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape) * np.sqrt(2 / np.prod(shape[:3])))
        self.scale = nnx.Param(jnp.ones((conv.outputs,)))
        self.shift = nnx.Param(jnp.zeros((conv.outputs,)))

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch h w outputs"]:
        dimensions, strides = ("NHWC", "HWIO", "NHWC"), (self.stride, self.stride)
        x = jax.lax.conv_general_dilated(x, self.kernel[...], strides, self.padding, dimension_numbers=dimensions)
        return jax.nn.relu(x * self.scale[...] + self.shift[...])


class Mixed(nnx.Module):
    """Branches of one input, their channels side by side."""

    def __init__(self, inputs: int, branches: tuple[Branch, ...], *, rngs: nnx.Rngs):
        self.branches, self.outputs = branches, 0
        for branch in branches:
            channels = inputs
            for step in branch:
                for conv in step if isinstance(step, Fork) else (step,) if isinstance(step, Conv) else ():
                    padding = "VALID" if conv.stride == 2 else "SAME"
                    setattr(self, conv.name, Convolution(channels, conv, padding, rngs=rngs))
                if isinstance(step, Fork):
                    channels = step.first.outputs + step.second.outputs
                elif isinstance(step, Conv):
                    channels = step.outputs
            self.outputs += channels

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch h w outputs"]:
        return jnp.concatenate([self._run(branch, x) for branch in self.branches], axis=-1)

    def _run(self, branch: Branch, x: jax.Array) -> jax.Array:
        for step in branch:
            if isinstance(step, Fork):
                x = jnp.concatenate([getattr(self, conv.name)(x) for conv in step], axis=-1)
            else:
                x = getattr(self, step.name)(x) if isinstance(step, Conv) else _POOLINGS[step](x)
        return x


class Inception(nnx.Module):
    """Pixels to the 2048 features before the classifier, averaged over the picture (Szegedy et al. 2015,
    arXiv:1512.00567; as torch-fidelity and pytorch-fid compute the FID)."""

    def __init__(self, *, rngs: nnx.Rngs):
        channels = 3
        for conv in _STEM:
            padding = "SAME" if conv.name == _PADDED else "VALID"
            setattr(self, conv.name, Convolution(channels, conv, padding, rngs=rngs))
            channels = conv.outputs
        for name, branches in _BLOCKS.items():
            block = Mixed(channels, branches, rngs=rngs)
            setattr(self, name, block)
            channels = block.outputs

    def __call__(self, pixels: Float[Array, "batch 299 299 3"]) -> Float[Array, "batch 2048"]:
        """`pixels` in [0, 255], of the network's own size (`resize`)."""
        x = (pixels - 128) / 128
        for conv in _STEM:
            x = getattr(self, conv.name)(x)
            if conv.name in (_PADDED, _STEM[-1].name):
                x = _halve(x)
        for name in _BLOCKS:
            x = getattr(self, name)(x)
        return x.mean(axis=(1, 2))


def inception() -> Definition:
    """The network without its arrays."""
    return define(lambda rngs: Inception(rngs=rngs))


def resize(pixels: Float[Array, "batch height width 3"]) -> Float[Array, "batch 299 299 3"]:
    """Bilinear as TensorFlow 1 did it: the first pixel stays where it is, nothing is smoothed before it shrinks."""
    x = _interpolate(pixels, 2)
    return _interpolate(x, 1)


def load_inception(path: str | Path) -> tuple[dict, str]:
    """Parameters, and the sha256 of the file, from the published weights: `pt_inception-2015-12-05-6726825d.pth` of
    pytorch-fid, the same tensors from torch-fidelity, or either as safetensors. Their classifier is not used.

    Raises:
      FileNotFoundError: no such file; WeightsError: other tensors than those.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected Inception-v3's published FID weights")
    tensors = _read(path)
    params: dict = {}
    missing = []
    for parents, shape in _convolutions():
        prefix = ".".join(parents)
        try:
            folded = _fold(tensors, prefix)
        except KeyError as error:
            missing.append(str(error.args[0]))
            continue
        if folded["kernel"].shape != shape:
            raise WeightsError(f"{path}: {prefix}.conv.weight becomes {folded['kernel'].shape}, expected {shape}")
        node = params
        for name in parents[:-1]:
            node = node.setdefault(name, {})
        node[parents[-1]] = folded
    if missing:
        raise WeightsError(
            f"{path}: {len(missing)} tensors are missing ({', '.join(missing[:3])}, ...); expected those of "
            "pt_inception-2015-12-05-6726825d.pth"
        )
    return params, hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix in (".pth", ".pt"):
        return read_torch(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path}: expected a .pth file of tensors or safetensors: {error}") from error


def _convolutions() -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Where each convolution is, as in the weights' names, and its kernel's shape."""
    for path, leaf in jax.tree.leaves_with_path(inception().shapes):
        names = tuple(key.key for key in path)
        if names[-1] == "kernel":
            yield names[:-1], leaf.shape


def _fold(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    kernel = tensors[f"{prefix}.conv.weight"].astype(np.float32)
    gain, offset, mean, variance = (
        tensors[f"{prefix}.bn.{name}"].astype(np.float32) for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + np.float32(_EPSILON))
    return {"kernel": kernel.transpose(2, 3, 1, 0), "scale": scale, "shift": offset - mean * scale}


def _interpolate(x: jax.Array, axis: int) -> jax.Array:
    size = x.shape[axis]
    at = np.arange(SIDE, dtype=np.float32) * np.float32(size / SIDE)
    low = at.astype(np.int32)
    high = np.minimum(low + 1, size - 1)
    share = (at - low).reshape([-1 if i == axis else 1 for i in range(4)])
    before, after = (jnp.take(x, places, axis=axis) for places in (low, high))
    return before + (after - before) * share


def _halve(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def _maximum(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def _average(x: jax.Array) -> jax.Array:
    """Over 3 x 3 pixels; what lies outside the picture does not count."""
    window = ((1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, *window) / jax.lax.reduce_window(
        jnp.ones((1, *x.shape[1:3], 1)), 0.0, jax.lax.add, *window
    )


_POOLINGS = {"average": _average, "maximum": _maximum, "halve": _halve}
