from functools import partial

import jax
import numpy as np
import pytest

from fooddit.data.records import RecordError
from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.latent_statistics import (
    LatentStatistics,
    LatentSums,
    load_statistics,
    save_statistics,
    sums_of_moments,
)
from fooddit.models.picture_space import PictureSpace, SpaceConfig
from parity import autoencoders_made as made
from tests.data.made import picture


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    folder = made.write_kl(tmp_path_factory.mktemp("kl") / "plain", "plain", made.kl_shapes("plain"))
    return PictureSpace(SpaceConfig(str(folder), patch=1))


IMAGES = np.stack([picture(i, 32, 32) for i in range(7)])


def sums(space, images=IMAGES):
    params = space.load()
    return sums_of_moments(params, jax.jit(space.moments)(params, images))


def test_statistics_are_those_of_samples_of_the_latents(space):
    found = sums(space).statistics()
    model = space._autoencoder.definition.bind(space.load()["weights"])
    moments = np.asarray(jax.jit(model.encode)(pixels_from_bytes(IMAGES)), np.float64)
    mean, spread = moments[..., :4].reshape(-1, 4), np.exp(moments[..., 4:]).reshape(-1, 4)
    assert found.pictures == 7
    np.testing.assert_allclose(found.mean, mean.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.deviation, np.sqrt(mean.var(0) + spread.mean(0)), rtol=1e-5)
    # The posterior's own spread matters here: means alone would give something else.
    assert np.abs(np.array(found.deviation) / mean.std(0) - 1).max() > 0.01


def test_shares_of_the_records_add_up(space):
    whole, parts = sums(space), [sums(space, IMAGES[i::3]) for i in range(3)]
    total = parts[0] + parts[1] + parts[2]
    assert (total.positions, total.pictures) == (whole.positions, whole.pictures) == (7 * 16, 7)
    np.testing.assert_allclose(total.first, whole.first, rtol=1e-5)
    np.testing.assert_allclose(total.second, whole.second, rtol=1e-5)


def reconstruct(space, params, image):
    return space.decode(params, space.tokens(space.moments(params, image), 16).values, (4, 4))


def test_a_space_with_measured_statistics_has_standardised_latents(space):
    found = sums(space).statistics()
    other = space.standardised(found)
    assert other.description == space.description | {"statistics": found.to_dict()}
    assert LatentStatistics.from_dict(other.description["statistics"]) == found
    params, image = other.load(), IMAGES
    moments = jax.jit(other.moments)(params, image)
    # What is stored does not depend on them; what the model sees does.
    np.testing.assert_array_equal(moments, jax.jit(space.moments)(params, image))
    tokens = jax.jit(other.tokens, static_argnums=1)(moments, 16)
    seen = np.concatenate([tokens.values, tokens.log_variance], axis=-1)[:, None]
    again = sums_of_moments({"mean": np.zeros(4), "deviation": np.ones(4)}, seen).statistics()
    np.testing.assert_allclose(again.mean, 0, atol=1e-5)
    np.testing.assert_allclose(again.deviation, 1, atol=1e-5)
    # Whatever the scale, the pictures are the same.
    there_and_back = [jax.jit(partial(reconstruct, s))(s.load(), image).astype(int) for s in (other, space)]
    assert np.abs(there_and_back[0] - there_and_back[1]).max() <= 1
    with pytest.raises(ValueError, match="statistics of 2 channels for an autoencoder of 4"):
        space.standardised(LatentStatistics((0.0, 0.0), (1.0, 1.0), 1))


def test_they_are_kept_with_the_dataset_by_autoencoder_and_size(space, tmp_path):
    first, second = LatentStatistics((0.0,), (1.0,), 3), LatentStatistics((1.0,), (2.0,), 4)
    path = tmp_path / "latent_statistics.json"
    with pytest.raises(RecordError, match="json is not there; `fooddit prepare --cache` with this config"):
        load_statistics(path, space.description, 32)
    save_statistics(tmp_path, space.description, 32, first, "abc")
    save_statistics(tmp_path, space.description, 64, second, "abc")
    assert load_statistics(path, space.description, 32) == first
    assert load_statistics(path, space.description, 64) == second
    with pytest.raises(RecordError, match="at 16 pixels, found those of autoencoder .* at 32 pixels, of autoenc"):
        load_statistics(path, {"sha256": "f00"}, 16)
    path.write_text("{")
    with pytest.raises(RecordError, match="not JSON"):
        load_statistics(path, space.description, 32)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="no pictures to measure"):
        LatentSums(np.zeros(2), np.zeros(2), 0, 0).statistics()
    constant = jax.numpy.zeros((2, 4, 4, 2))
    with pytest.raises(ValueError, match=r"latent channels \[0\] are constant"):
        sums_of_moments({"mean": np.zeros(2), "deviation": np.ones(2)}, constant.at[0, ..., 1].set(1.0)).statistics()
