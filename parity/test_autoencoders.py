"""Our autoencoders equal torch 2.13.0's on the same weights: diffusers 0.42.1's AutoencoderKL and AutoencoderTiny, and
TAEF2's layout written again in torch from its description.

`python parity/test_autoencoders.py` writes the golden files that the suite compares with, from the references.
"""

import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import nn

from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.picture_space import open_autoencoder
from fooddit.models.torch_file import read_torch
from parity import autoencoders_made as made

GOLDEN = Path(__file__).parents[1] / "tests/models/golden"
TOLERANCE = 1e-4
PICTURE = made.made_picture(32, 48)


def nchw(x) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x, np.float32), -1, 1)))


def nhwc(x: torch.Tensor) -> np.ndarray:
    return np.moveaxis(x.detach().numpy(), 1, -1)


def kl_reference(folder: Path, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments of a picture, and its decoding from their mean, by diffusers from the same folder."""
    model = AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).eval()
    with torch.no_grad():
        posterior = model.encode(nchw(pixels_from_bytes(picture))).latent_dist
        decoded = model.decode(posterior.mean).sample
    return np.concatenate([nhwc(posterior.mean), nhwc(posterior.logvar)], axis=-1), nhwc(decoded)


class Pooled(nn.Module):
    """One block: three convolutions beside the identity; `pool` adds what the whole picture says first."""

    def __init__(self, pooled: bool):
        super().__init__()
        conv = lambda: nn.Conv2d(64, 64, 3, padding=1)
        self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())
        if pooled:
            wide, narrow = nn.Conv2d(64, 256, 1, bias=False), nn.Conv2d(256, 64, 1, bias=False)
            self.pool = nn.Sequential(wide, nn.GroupNorm(4, 256), nn.ReLU(), narrow)

    def forward(self, x):
        x = x + self.pool(x) if hasattr(self, "pool") else x
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x):
        return 3 * torch.tanh(x / 3)


def torch_taesd(channels: int, pooled: bool) -> dict[str, nn.Sequential]:
    """Encoder and decoder from the description in their README."""
    halve = lambda: nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
    double = lambda: (nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1, bias=False))
    blocks = lambda count, pooled=False: [Pooled(pooled) for _ in range(count)]
    encoder = [nn.Conv2d(3, 64, 3, padding=1), *blocks(1), halve(), *blocks(3), halve(), *blocks(3), halve()]
    encoder += [*blocks(3, pooled), nn.Conv2d(64, channels, 3, padding=1)]
    decoder = [Clamp(), nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU(), *blocks(3, pooled)]
    for count in (3, 3, 1):
        decoder += [*double(), *blocks(count)]
    decoder.append(nn.Conv2d(64, 3, 3, padding=1))
    return {"encoder": nn.Sequential(*encoder), "decoder": nn.Sequential(*decoder)}


def taesd_reference(kind: str, tensors: dict, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    networks = torch_taesd(*made.TAESD[kind])
    for part, network in networks.items():
        network.load_state_dict({name: torch.from_numpy(x).float() for name, x in tensors[part].items()})
    with torch.no_grad():
        latent = networks["encoder"]((nchw(pixels_from_bytes(picture)) + 1) / 2)
        return nhwc(latent), nhwc(networks["decoder"](latent)) * 2 - 1


def ours(folder: Path, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments, and the decoding of their mean."""
    found = open_autoencoder(str(folder))
    model = found.definition.bind(found.load())
    moments = jax.jit(model.encode)(pixels_from_bytes(picture))
    return np.asarray(moments), np.asarray(jax.jit(model.decode)(moments[..., : found.channels]))


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and np.abs(b).max() > 0.5
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", made.KL)
def test_kl_equals_diffusers(kind, tmp_path):
    shapes = {name: tuple(x.shape) for name, x in AutoencoderKL(**made.KL[kind] | blocks(kind)).state_dict().items()}
    assert made.kl_shapes(kind) == shapes
    folder = made.write_kl(tmp_path / kind, kind, shapes)
    expected = kl_reference(folder, PICTURE)
    close(ours(folder, PICTURE), expected)
    check_golden(f"kl_{kind}", expected)


def test_kl_of_stable_diffusions_size_equals_diffusers(tmp_path, monkeypatch):
    """The deep stack, 84 M parameters, and attention in parts."""
    monkeypatch.setattr("fooddit.models.autoencoder_kl.QUERIES", 20)
    sd = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4}
    monkeypatch.setitem(made.KL, "full", sd | {"norm_num_groups": 32})
    shapes = made.kl_shapes("full")
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 83_653_863
    folder, picture = made.write_kl(tmp_path / "sd", "full", shapes), made.made_picture(32, 48, 1)
    close(ours(folder, picture), kl_reference(folder, picture))


def test_kl_gradients_equal_diffusers(tmp_path):
    """Of every parameter, for one random cotangent of the decoding of a given latent and of the moments."""
    folder = made.write_kl(tmp_path / "sd", "sd", made.kl_shapes("sd"))
    found = open_autoencoder(str(folder))
    rng = np.random.default_rng(3)
    latent = rng.normal(size=(2, 8, 12, 4)).astype(np.float32)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 8, 12, 8), (2, 32, 48, 3))]

    def scalar(params):
        model = found.definition.bind(params)
        outputs = model.encode(pixels_from_bytes(PICTURE)), model.decode(latent)
        return sum(jnp.sum(output * weight) for output, weight in zip(outputs, weights))

    gradients = jax.jit(jax.grad(scalar))(found.load())
    model = AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False)
    posterior = model.encode(nchw(pixels_from_bytes(PICTURE))).latent_dist
    outputs = torch.cat([posterior.mean, posterior.logvar], 1), model.decode(nchw(latent)).sample
    sum((output * nchw(weight)).sum() for output, weight in zip(outputs, weights)).backward()
    expected = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    stored = stored_gradients(gradients)
    assert sorted(stored) == sorted(expected)
    for name, gradient in expected.items():
        bound = TOLERANCE * max(np.abs(gradient).max(), 1.0)
        np.testing.assert_allclose(stored[name], gradient, rtol=0, atol=bound, err_msg=name)


def stored_gradients(gradients) -> dict[str, np.ndarray]:
    from fooddit.models.autoencoder_kl_folder import sources
    from fooddit.models.tensors import stored_tensors

    return stored_tensors(sources(gradients), gradients)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", made.TAESD)
def test_taesd_equals_torch(kind, suffix, tmp_path):
    folder = made.write_taesd(tmp_path / kind, kind, suffix)
    expected = taesd_reference(kind, made.taesd_tensors(kind), PICTURE)
    close(ours(folder, PICTURE), expected)
    check_golden(kind, expected)


def test_taesd_equals_diffusers(tmp_path):
    folder = made.write_taesd(tmp_path / "taesd", "taesd", ".safetensors")
    tensors = made.taesd_tensors("taesd")
    # diffusers has no layer for the clamp.
    named = {f"encoder.layers.{name}": x for name, x in tensors["encoder"].items()}
    for name, x in tensors["decoder"].items():
        number, _, rest = name.partition(".")
        named[f"decoder.layers.{int(number) - 1}.{rest}"] = x
    model = AutoencoderTiny(latent_channels=4).eval()
    model.load_state_dict({name: torch.from_numpy(x).float() for name, x in named.items()})
    with torch.no_grad():
        latent = model.encode(nchw(pixels_from_bytes(PICTURE))).latents
        close(ours(folder, PICTURE), (nhwc(latent), nhwc(model.decode(latent).sample)))


@pytest.mark.skipif("FOODDIT_WEIGHTS" not in os.environ, reason="FOODDIT_WEIGHTS is not set: a folder with TAEF2")
def test_published_taef2_equals_torch():
    folder = Path(os.environ["FOODDIT_WEIGHTS"])
    files = {part: folder / f"taef2_{part}.pth" for part in ("encoder", "decoder")}
    tensors = {part: read_torch(file) for part, file in files.items()}
    for part, file in files.items():
        theirs = torch.load(file, map_location="cpu", weights_only=True)
        assert list(theirs) == list(tensors[part])
        assert all(np.array_equal(theirs[name].numpy(), x) for name, x in tensors[part].items())
    close(ours(folder, PICTURE), taesd_reference("taef2", tensors, PICTURE))


def test_files_of_torch_save_are_read(tmp_path):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "whole": base,
        "transposed": base.T,
        "part of a shared storage": base[1:, ::2],
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3, dtype=torch.int64),
        "bfloat16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "bool": torch.tensor([True, False]),
        "parameter's data": nn.Linear(2, 3).weight.data,
    }
    torch.save(tensors, tmp_path / "a.pth")
    found = read_torch(tmp_path / "a.pth")
    assert list(found) == list(tensors)
    for name, x in tensors.items():
        np.testing.assert_array_equal(found[name].astype(np.float64), x.double().numpy(), err_msg=name)
    made.write_torch(tmp_path / "b.pth", {"x": np.ones((2, 3), np.float16)})
    assert torch.load(tmp_path / "b.pth", weights_only=True)["x"].equal(torch.ones(2, 3).half())


def blocks(kind: str) -> dict:
    config = made.kl_config(kind)
    return {name: config[name] for name in ("down_block_types", "up_block_types")}


def check_golden(name: str, expected):
    stored = np.load(GOLDEN / f"{name}.npz")
    moments, decoded = golden(expected)
    np.testing.assert_allclose(stored["moments"], moments, rtol=0, atol=1e-5)
    np.testing.assert_allclose(stored["decoded"], decoded, rtol=0, atol=1e-5)


def golden(expected) -> tuple[np.ndarray, np.ndarray]:
    """Some moments of the first picture, and a part of its decoding."""
    moments, decoded = expected
    return moments[0, ::2, ::3], decoded[0, ::4, 5:37]


def write_golden() -> None:
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            f"kl_{k}": kl_reference(made.write_kl(Path(folder) / k, k, made.kl_shapes(k)), PICTURE) for k in made.KL
        }
    found |= {kind: taesd_reference(kind, made.taesd_tensors(kind), PICTURE) for kind in made.TAESD}
    for name, expected in found.items():
        moments, decoded = golden(expected)
        np.savez(GOLDEN / f"{name}.npz", moments=moments, decoded=decoded)


if __name__ == "__main__":
    write_golden()
