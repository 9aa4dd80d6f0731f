"""Weights for Inception-v3 in the published layout, of a seeded generator: parity tests make the same ones."""

import jax
import numpy as np

from fooddit.models.inception import inception
from tests.data.made import picture


def made_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """Every convolution and batch norm, so that features keep their size through the network."""
    rng, tensors = np.random.default_rng(seed), {}
    for path, leaf in jax.tree.leaves_with_path(inception().shapes):
        names = [key.key for key in path]
        if names[-1] != "kernel":
            continue
        prefix, (height, width, inputs, outputs) = ".".join(names[:-1]), leaf.shape
        deviation = np.float32(np.sqrt(2 / (height * width * inputs)))
        weight = rng.standard_normal((outputs, inputs, height, width), np.float32) * deviation
        tensors[f"{prefix}.conv.weight"] = weight
        for name, low, high in (("weight", 0.8, 1.3), ("bias", -0.1, 0.3), ("running_mean", -0.2, 0.2)):
            tensors[f"{prefix}.bn.{name}"] = rng.uniform(low, high, outputs).astype(np.float32)
        tensors[f"{prefix}.bn.running_var"] = rng.uniform(0.6, 1.4, outputs).astype(np.float32)
        tensors[f"{prefix}.bn.num_batches_tracked"] = np.zeros((), np.int64)
    return tensors


def made_pictures(height: int, width: int) -> np.ndarray:
    """Two pictures: a smooth one and noise."""
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return np.stack([picture(3, width, height), noise])
