"""Weights that a seeded generator makes, the same here and in parity/: by name, so that the order does not matter."""

import json
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def made_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 values of a size that keeps activations near one: kernels by their fan-in, gains near one."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = rng.normal(size=shape)
    if len(shape) > 1:
        return (values * np.prod(shape[1:]) ** -0.5).astype(np.float32)
    return (0.1 * values + (1.0 if name.endswith("weight") else 0.0)).astype(np.float32)


def made_picture(height: int, width: int, batch: int = 2) -> np.ndarray:
    """uint8 (batch, height, width, 3): smooth colours with edges and noise."""
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack(
        [
            np.sin(rows / (5 + 3 * i))[..., None] * np.cos(columns[..., None] / (4.0 + np.arange(3) + i))
            for i in range(batch)
        ]
    )
    edges = ((rows // 8 + columns // 12) % 2)[None, :, :, None]
    return np.clip(127 + 70 * waves + 30 * edges + rng.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)


def write_folder(path: Path, config: dict, shapes: dict[str, tuple[int, ...]], stem: str) -> Path:
    """A folder in the Hugging Face layout with made tensors of these names."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file({name: made_tensor(name, shape) for name, shape in shapes.items()}, str(path / f"{stem}.safetensors"))
    return path
