import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.config import ConfigError
from fooddit.data.scenes import render_image, sample_spec
from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.picture_space import PictureSpace, SpaceConfig
from fooddit.models.tensors import TensorError
from fooddit.models.weights import load_weights
from fooddit.parallel import MeshConfig, make_mesh
from fooddit.training.frozen import Frozen
from parity import autoencoders_made as made


@pytest.fixture(scope="module")
def renders():
    return np.stack([render_image(sample_spec(3, i, "holdout"), 64) for i in range(64)])


@pytest.fixture(scope="module")
def latents():
    return PictureSpace(SpaceConfig(autoencoder="builtin:scenes", patch=2))


@pytest.fixture(scope="module")
def variational(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kl") / "flux"
    return PictureSpace(SpaceConfig(str(made.write_kl(folder, "flux", made.kl_shapes("flux"))), patch=2))


def encode(space, image, length):
    return space.tokens(space.moments(space.load(), image), length)


def noise(height, width, batch=2):
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)


@pytest.mark.parametrize("height, width", [(32, 32), (16, 48)])
def test_pixels_there_and_back_are_the_same_bytes(height, width):
    space, image = PictureSpace(SpaceConfig(patch=8)), noise(height, width)
    tokens = encode(space, image, length=20)
    rows, columns = space.shape(height, width)
    assert (rows, columns) == (height // 8, width // 8) and space.grid == 8 and space.features == 8 * 8 * 3
    assert tokens.values.shape == (2, 20, space.features)
    assert tokens.mask.tolist() == [True] * rows * columns + [False] * (20 - rows * columns)
    assert not np.any(tokens.values[:, rows * columns :])
    np.testing.assert_array_equal(space.decode(space.load(), tokens.values, (rows, columns)), image)


def test_tokens_are_row_major_with_their_positions():
    space, image = PictureSpace(SpaceConfig(patch=8)), np.zeros((1, 16, 24, 3), np.uint8)
    image[0, 8:, 16:] = 255
    tokens = encode(space, image, length=7)
    assert tokens.positions[:6].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert jnp.all(tokens.values[0, 5] == 1) and jnp.all(tokens.values[0, :5] == -1)


def test_latents_are_standardised_and_an_eighth_of_the_size(latents, renders):
    tokens = encode(latents, renders, length=16)
    assert latents.grid == 16 and tokens.values.shape == (64, 16, latents.features)
    channels = np.asarray(tokens.values).reshape(-1, latents.features // 4)
    np.testing.assert_allclose(channels.mean(0), 0, atol=0.15)
    np.testing.assert_allclose(channels.std(0), 1, atol=0.15)


def test_decoded_latents_look_like_the_picture(latents, renders):
    tokens = encode(latents, renders, length=16)
    decoded = np.asarray(latents.decode(latents.load(), tokens.values, (4, 4)))
    assert decoded.dtype == np.uint8 and decoded.shape == renders.shape
    assert np.mean(np.abs(decoded.astype(float) - renders)) < 15
    assert np.mean(np.abs(decoded.astype(float) - np.roll(renders, 1, axis=0))) > 30


def test_the_description_names_the_weights_by_their_hash(latents):
    assert PictureSpace(SpaceConfig()).description == {"autoencoder": "pixels"}
    assert latents.description == {"autoencoder": "builtin:scenes", "sha256": load_weights("builtin:scenes")[2]}


def test_the_type_that_it_computes_in_is_part_of_what_it_is(latents):
    other = PictureSpace(SpaceConfig("builtin:scenes", patch=2, dtype="bfloat16"))
    assert other.description == latents.description | {"dtype": "bfloat16"}


@pytest.mark.parametrize("height, width", [(64, 60), (60, 64), (0, 64), (-64, 64)])
def test_sides_that_are_not_multiples_of_a_token_are_refused(height, width):
    with pytest.raises(ValueError, match=f"{height} x {width} pixels: expected sides that are multiples of 8"):
        PictureSpace(SpaceConfig(patch=8)).shape(height, width)


def test_a_picture_with_more_tokens_than_the_model_is_refused():
    space = PictureSpace(SpaceConfig(patch=8))
    with pytest.raises(ValueError, match=r"\(4, 4\) tokens is longer than the model's 15"):
        encode(space, noise(32, 32), length=15)


def test_bad_configs_are_refused():
    with pytest.raises(ValueError, match="space.patch must be at least 1, found 0"):
        SpaceConfig(patch=0)
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        PictureSpace(SpaceConfig(autoencoder="none.safetensors"))


def test_moments_of_a_variational_autoencoder_are_scaled_as_its_makers_say(variational):
    params, image = variational.load(), made.made_picture(16, 24)
    network = variational._autoencoder.definition.bind(params["weights"])
    raw = np.asarray(jax.jit(network.encode)(pixels_from_bytes(image)))
    moments = np.asarray(jax.jit(variational.moments)(params, image))
    assert variational.variational and moments.shape == (2, 8, 12, 32) and variational.grid == 4
    np.testing.assert_allclose(moments[..., :16], (raw[..., :16] - 0.1159) * 0.3611, atol=1e-5)
    np.testing.assert_allclose(moments[..., 16:], raw[..., 16:] + 2 * np.log(0.3611), atol=1e-5)


def test_tokens_of_moments_hold_mean_and_log_variance_apart(variational):
    moments = np.arange(2 * 4 * 6 * 32, dtype=np.float16).reshape(2, 4, 6, 32) / 64
    tokens = variational.tokens(moments, length=8)
    assert tokens.values.shape == tokens.log_variance.shape == (2, 8, 64) and tokens.values.dtype == np.float32
    square = moments[:, :2, 2:4]
    np.testing.assert_array_equal(tokens.values[:, 1], square[..., :16].reshape(2, -1))
    np.testing.assert_array_equal(tokens.log_variance[:, 1], square[..., 16:].reshape(2, -1))
    assert not np.any(tokens.values[:, 6:]) and not np.any(tokens.log_variance[:, 6:])
    assert encode(PictureSpace(SpaceConfig(patch=8)), noise(16, 16), length=4).log_variance is None


def test_decoding_undoes_the_scale(variational):
    params = variational.load()
    latent = np.random.default_rng(0).normal(size=(1, 6, 64)).astype(np.float32)
    decoded = jax.jit(lambda p, x: variational.decode(p, x, (2, 3)))(params, latent)
    model = variational._autoencoder.definition.bind(params["weights"])
    grid = latent.reshape(1, 2, 3, 2, 2, 16).transpose(0, 1, 3, 2, 4, 5).reshape(1, 4, 6, 16)
    expected = np.asarray(jax.jit(model.decode)(grid / 0.3611 + 0.1159))
    np.testing.assert_allclose(pixels_from_bytes(decoded), expected.clip(-1, 1), atol=1 / 255 + 1e-3)


def test_a_folder_of_the_taesd_family_is_a_space(tmp_path):
    space = PictureSpace(SpaceConfig(str(made.write_taesd(tmp_path / "taef2", "taef2", ".pth")), patch=2))
    assert (space.grid, space.features, space.variational) == (16, 128, False)
    assert len(space.description["sha256"]) == 64
    assert jax.eval_shape(space.moments, space.shapes, jax.ShapeDtypeStruct((2, 32, 16, 3), np.uint8)).shape == (
        2,
        4,
        2,
        32,
    )


def test_arrays_have_their_shapes_and_lie_on_every_device(latents, variational):
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    for space in (latents, variational, PictureSpace(SpaceConfig())):
        placed = Frozen({"space": space}).load(mesh)["space"]
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), placed)
        assert shapes == space.shapes
        assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(placed))


def test_a_published_shape_can_be_compiled_for():
    space = PictureSpace(SpaceConfig("flux", patch=2))
    assert (space.grid, space.features) == (16, 64)
    assert space.description == {"autoencoder": "flux", "sha256": None}
    with pytest.raises(ConfigError, match="'flux' is a shape without weights"):
        space.load()


def test_a_folder_of_neither_kind_is_refused(tmp_path):
    with pytest.raises(TensorError, match="config.json: no such file"):
        PictureSpace(SpaceConfig(str(tmp_path)))
