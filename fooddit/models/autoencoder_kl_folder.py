"""Folders of AutoencoderKL in the diffusers layout, read and written."""

from dataclasses import fields
from pathlib import Path

import jax
import numpy as np

from fooddit.config import ConfigError
from fooddit.models.autoencoder import FrozenAutoencoder
from fooddit.models.autoencoder_kl import KLConfig, autoencoder_kl
from fooddit.models.latent_statistics import LatentStatistics
from fooddit.models.tensors import Source, TensorError, TensorFolder, load_tree, save_folder, unused_tensors

STEM = "diffusion_pytorch_model"
# Of well-known published weights, as their config.json has them: shapes that can be compiled without the weights.
_FLUX = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
PUBLISHED = {
    "sd": {"scaling_factor": 0.18215},
    "sdxl": {"scaling_factor": 0.13025},
    "sd3": _FLUX | {"scaling_factor": 1.5305, "shift_factor": 0.0609},
    "flux": _FLUX | {"scaling_factor": 0.3611, "shift_factor": 0.1159},
}


def read_config(values: dict, where: str) -> KLConfig:
    """The part of a diffusers config.json that says what is computed, `where` for the messages.

    Raises:
      TensorError: a model of another class, or one with parts that AutoencoderKL does not have.
    """
    if values.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        raise TensorError(f"{where}: a {values['_class_name']}, expected an AutoencoderKL")
    for key, expected in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if set(values.get(key, [expected])) != {expected}:
            raise TensorError(f"{where}: {key} is {values[key]}, expected {expected} alone")
    for key, expected in (("act_fn", "silu"), ("in_channels", 3), ("out_channels", 3)):
        if values.get(key, expected) != expected:
            raise TensorError(f"{where}: {key} is {values[key]!r}, expected {expected!r}")
    # What a config.json leaves out is as diffusers' class has it: other defaults than ours.
    known = {"block_out_channels": (64,), "layers_per_block": 1} | values
    given = {field.name: known[field.name] for field in fields(KLConfig) if field.name in known}
    try:
        return KLConfig(**given | {"block_out_channels": tuple(given["block_out_channels"])})
    except ValueError as error:
        raise TensorError(f"{where}: {error}") from error


def latent_scale(values: dict, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel by a diffusers config.json: (z - mean) / deviation is what diffusion sees.

    shift_factor and scaling_factor, or latents_mean and latents_std (a vector each) with scaling_factor.
    """
    mean = values.get("latents_mean") or values.get("shift_factor") or 0.0
    deviation = np.asarray(values.get("latents_std") or 1.0, np.float32) / values.get("scaling_factor", 0.18215)
    return tuple(np.broadcast_to(np.asarray(x, np.float32), (channels,)) for x in (mean, deviation))


def sources(shapes: dict, deprecated: bool = False) -> dict:
    """Where each parameter is in a diffusers file. `deprecated`: attention by the names it had before 2023."""
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"} if deprecated else {}

    def source(path, shape):
        *parents, leaf = [entry.key for entry in path]
        module = ".".join(parents)
        for ours, theirs in renamed.items():
            module = module.replace(f".{ours}", f".{theirs}")
        name = f"{module}.{'bias' if leaf == 'bias' else 'weight'}"
        return Source(name, {4: (2, 3, 1, 0), 2: (1, 0)}.get(len(shape.shape)))

    return jax.tree.map_with_path(source, shapes)


def open_kl(path: str) -> FrozenAutoencoder:
    """An autoencoder from a folder in the diffusers layout, or one of PUBLISHED without its weights.

    Raises:
      TensorError: no such folder, or one of another model.
    """
    if path in PUBLISHED:
        known = {name: value for name, value in PUBLISHED[path].items() if not name.endswith("factor")}
        return _frozen(KLConfig(**known), PUBLISHED[path], {"autoencoder": path, "sha256": None}, None)
    folder = TensorFolder(path, STEM)
    config = read_config(folder.config, str(Path(path) / "config.json"))
    description = {"autoencoder": path, "sha256": folder.fingerprint}
    return _frozen(config, folder.config, description, folder)


def save_kl(path: Path, config: KLConfig, params: dict, statistics: LatentStatistics) -> None:
    """Writes an autoencoder of ours as a new folder in the diffusers layout, with its latents' statistics.

    Raises:
      FileExistsError: `path` is there already.
    """
    widths = len(config.block_out_channels)
    values = {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "act_fn": "silu",
        "down_block_types": ["DownEncoderBlock2D"] * widths,
        "up_block_types": ["UpDecoderBlock2D"] * widths,
        **{field.name: getattr(config, field.name) for field in fields(config)},
        "scaling_factor": 1.0,
        "latents_mean": list(statistics.mean),
        "latents_std": list(statistics.deviation),
    }
    shapes = autoencoder_kl(config).shapes
    save_folder(path, values, sources(shapes), params, stem=STEM)


def _frozen(config: KLConfig, values: dict, description: dict, folder: TensorFolder | None) -> FrozenAutoencoder:
    definition = autoencoder_kl(config)
    mean, deviation = latent_scale(values, config.latent_channels)

    def load(shardings=None):
        if folder is None:
            raise ConfigError(
                f"config.space.autoencoder: {description['autoencoder']!r} is a shape without weights, which can be "
                "compiled and not run; give a folder in the diffusers layout"
            )
        old = "encoder.mid_block.attentions.0.query.weight" in folder.shapes
        places = sources(definition.shapes, deprecated=old)
        if extra := unused_tensors(folder, places):
            raise TensorError(f"{folder.path}: {len(extra)} tensors that the model does not have, such as {extra[0]}")
        return load_tree(folder, places, definition.shapes, shardings)

    return FrozenAutoencoder(
        definition=definition,
        load=load,
        factor=config.factor,
        channels=config.latent_channels,
        variational=True,
        mean=mean,
        deviation=deviation,
        description=description,
    )
