"""The TAESD family against golden outputs of a torch network (parity/test_autoencoders.py makes and compares them)."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.taesd import open_taesd
from fooddit.models.weights import WeightsError
from parity import autoencoders_made as made

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("kind, suffix", [("taef2", ".pth"), ("taesd", ".safetensors")])
def test_latents_and_decoding_are_those_of_torch(kind, suffix, tmp_path):
    found = open_taesd(str(made.write_taesd(tmp_path / kind, kind, suffix)))
    model = found.definition.bind(found.load())
    latent = jax.jit(model.encode)(pixels_from_bytes(made.made_picture(32, 48)))
    decoded = jax.jit(model.decode)(latent)
    stored = np.load(GOLDEN / f"{kind}.npz")
    np.testing.assert_allclose(latent[0, ::2, ::3], stored["moments"], atol=1e-4)
    np.testing.assert_allclose(decoded[0, ::4, 5:37], stored["decoded"], atol=1e-4)
    assert found.channels == made.TAESD[kind][0] and found.factor == 8 and not found.variational
    assert not found.mean.any() and (found.deviation == 1).all()


def test_both_kinds_of_file_hold_the_same(tmp_path):
    folders = [made.write_taesd(tmp_path / suffix[1:], "taesd", suffix) for suffix in (".pth", ".safetensors")]
    jax.tree.map(np.testing.assert_array_equal, *(open_taesd(str(folder)).load() for folder in folders))


def test_safetensors_are_preferred_and_other_weights_are_left_alone(tmp_path):
    folder = made.write_taesd(tmp_path / "both", "taesd", ".safetensors")
    for part in ("encoder", "decoder"):
        (folder / f"taesd_{part}.pth").write_bytes(b"damaged")
    (folder / "another_encoder.pth").write_bytes(b"without a decoder")
    assert open_taesd(str(folder)).channels == 4


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="expected NAME_encoder and NAME_decoder"):
        open_taesd(str(tmp_path / "empty"))
    two = made.write_taesd(tmp_path / "two", "taesd", ".safetensors")
    for part in ("encoder", "decoder"):
        shutil.copy(two / f"taesd_{part}.safetensors", two / f"taef1_{part}.safetensors")
    with pytest.raises(WeightsError, match="found taef1, taesd; expected the files of one autoencoder"):
        open_taesd(str(two))


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda t: t["decoder"].pop("12.weight"), r"decoder: 12.weight: found nothing, expected \(3, 3, 64, 64\)"),
        (lambda t: t["encoder"].update({"0.bias": np.ones(3, np.float16)}), r"encoder: 0.bias: found \(3,\), expected"),
        (
            lambda t: t["encoder"].update({"15.bias": np.ones(3, np.float16)}),
            "1 tensors that the network does not have",
        ),
    ],
)
def test_tensors_of_another_network_are_refused(change, expected, tmp_path):
    tensors = made.taesd_tensors("taesd")
    change(tensors)
    for part, named in tensors.items():
        made.write_torch(tmp_path / f"taesd_{part}.pth", named)
    with pytest.raises(WeightsError, match=expected):
        open_taesd(str(tmp_path))
