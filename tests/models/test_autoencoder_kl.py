"""AutoencoderKL against golden outputs of diffusers 0.42.1 (parity/test_autoencoders.py makes and compares them)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.aot.operations import flops
from fooddit.config import ConfigError
from fooddit.models import autoencoder_kl as module
from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.autoencoder_kl import KLConfig, autoencoder_kl, multiplications
from fooddit.models.autoencoder_kl_folder import latent_scale, open_kl, save_kl
from fooddit.models.latent_statistics import LatentStatistics
from fooddit.models.tensors import TensorError
from fooddit.parallel import MeshConfig, make_mesh, parameter_shardings
from parity import autoencoders_made as made

GOLDEN = Path(__file__).parent / "golden"
SMALL = KLConfig(block_out_channels=(8, 16), layers_per_block=1, latent_channels=2, norm_num_groups=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("kl")
    return {kind: made.write_kl(root / kind, kind, made.kl_shapes(kind)) for kind in made.KL}


@pytest.mark.parametrize("kind", made.KL)
def test_moments_and_decoding_are_those_of_diffusers(kind, folders):
    found, picture = open_kl(str(folders[kind])), pixels_from_bytes(made.made_picture(32, 48))
    model = found.definition.bind(found.load())
    moments = jax.jit(model.encode)(picture)
    decoded = jax.jit(model.decode)(moments[..., : found.channels])
    stored = np.load(GOLDEN / f"kl_{kind}.npz")
    np.testing.assert_allclose(moments[0, ::2, ::3], stored["moments"], atol=1e-4)
    np.testing.assert_allclose(decoded[0, ::4, 5:37], stored["decoded"], atol=1e-4)
    assert 32 // found.factor == moments.shape[1]


def test_every_device_is_given_its_part_of_the_weights(folders):
    found = open_kl(str(folders["sd"]))
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    axes = jax.tree.map(lambda s: ("embed",) + ("features",) * (len(s.shape) - 1), found.definition.shapes)
    shardings = parameter_shardings(mesh, found.definition.shapes, axes)
    placed, whole = found.load(shardings), found.load()
    kernel = placed["encoder"]["mid_block"]["attentions"]["0"]["to_q"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (4, 32)
    jax.tree.map(np.testing.assert_array_equal, placed, whole)


def test_attention_by_its_names_of_old_is_the_same(folders, tmp_path):
    shapes = made.kl_shapes("sd")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(name):
        for new, before in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        return name

    folder = made.write_kl(tmp_path / "old", "sd", {rename(name): shape for name, shape in shapes.items()})
    params = open_kl(str(folder)).load()["decoder"]["mid_block"]["attentions"]["0"]
    stored = made.made_tensor("decoder.mid_block.attentions.0.query.weight", (32, 32))
    np.testing.assert_array_equal(params["to_q"]["kernel"], stored.T)


def test_attention_in_parts_equals_attention_at_once(monkeypatch):
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 30, 8))
    at_once = module._attend(q, k, v)
    monkeypatch.setattr(module, "QUERIES", 8)
    np.testing.assert_allclose(module._attend(q, k, v), at_once, atol=1e-6)
    weights = jax.nn.softmax(q @ k.swapaxes(1, 2) / 8**0.5)
    np.testing.assert_allclose(weights @ v, at_once, atol=1e-6)


def test_a_saved_folder_is_opened_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), autoencoder_kl(SMALL).shapes)
    save_kl(tmp_path / "ours", SMALL, params, LatentStatistics((0.5, -1.0), (2.0, 3.0), 10))
    found = open_kl(str(tmp_path / "ours"))
    jax.tree.map(np.testing.assert_array_equal, found.load(), params)
    assert found.mean.tolist() == [0.5, -1.0] and found.deviation.tolist() == [2.0, 3.0]
    assert found.factor == 2 and found.channels == 2 and found.variational
    with pytest.raises(FileExistsError):
        save_kl(tmp_path / "ours", SMALL, params, LatentStatistics((0.0, 0.0), (1.0, 1.0), 1))


@pytest.mark.parametrize(
    "values, mean, deviation",
    [
        ({"scaling_factor": 0.5}, [0, 0], [2, 2]),
        ({"scaling_factor": 0.5, "shift_factor": 0.25}, [0.25, 0.25], [2, 2]),
        ({"scaling_factor": 0.5, "shift_factor": None, "latents_mean": None}, [0, 0], [2, 2]),
        ({"scaling_factor": 0.5, "latents_mean": [1.0, 2.0], "latents_std": [3.0, 4.0]}, [1, 2], [6, 8]),
        ({}, [0, 0], [1 / 0.18215] * 2),
    ],
)
def test_latents_are_scaled_as_diffusers_pipelines_do(values, mean, deviation):
    found = latent_scale(values, 2)
    np.testing.assert_allclose(found[0], mean)
    np.testing.assert_allclose(found[1], deviation, rtol=1e-6)


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"_class_name": "AutoencoderKLFlux2"}, "config.json: a AutoencoderKLFlux2, expected an AutoencoderKL"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, "down_block_types is .*, expected DownEncoderBlock2D"),
        ({"act_fn": "relu"}, "act_fn is 'relu', expected 'silu'"),
        ({"norm_num_groups": 5}, r"block_out_channels: found \(16, 32, 32\), expected multiples of norm_num_groups, 5"),
        ({"block_out_channels": [16, 32, 64]}, "tensors are not those of the model in its config.json"),
        ({"use_quant_conv": False}, "2 tensors that the model does not have, such as quant_conv.bias"),
    ],
)
def test_folders_of_other_models_are_refused(change, expected, folders, tmp_path):
    folder = tmp_path / "changed"
    folder.mkdir()
    (folder / "diffusion_pytorch_model.safetensors").symlink_to(folders["sd"] / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(made.kl_config("sd") | change))
    with pytest.raises(TensorError, match=expected):
        open_kl(str(folder)).load()


@pytest.mark.parametrize("name, channels", [("sdxl", 4), ("flux", 16)])
def test_published_shapes_can_be_compiled_and_not_loaded(name, channels):
    found = open_kl(name)
    assert found.channels == channels and found.factor == 8
    moments = jax.eval_shape(
        lambda p, x: found.definition.bind(p).encode(x),
        found.definition.shapes,
        jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),
    )
    assert moments.shape == (1, 8, 8, 2 * channels)
    with pytest.raises(ConfigError, match="a shape without weights"):
        found.load()


@pytest.mark.parametrize("config", [SMALL, KLConfig((8, 16, 16), 2, 3, 4, False, False, False)])
def test_multiplications_are_those_of_the_program(config):
    definition = autoencoder_kl(config)

    def run(params, x):
        model = definition.bind(params)
        return model.decode(model.encode(x)[..., : config.latent_channels])

    jaxpr = jax.make_jaxpr(run)(definition.shapes, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    assert 2 * multiplications(config, 32) == flops(jaxpr.jaxpr)
