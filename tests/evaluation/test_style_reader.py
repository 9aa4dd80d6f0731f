import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.data.scenes import NAMED, TEXTURES, contradict, render_styled_image, sample_styled
from fooddit.evaluation import style_reader
from fooddit.evaluation.style_reader import StyleReader, StyleReading, accuracy, chance, hue_distance, recovered
from fooddit.tasks.read_styles import von_mises

SPECS = [sample_styled(11, i, "holdout", pictures=1) for i in range(128)]


@pytest.fixture(scope="module")
def reader():
    return StyleReader()


def render(specs, size=64):
    return np.stack([render_styled_image(spec, size) for spec in specs])


def read_right(reader, specs, images=None):
    return recovered(reader.read(render(specs) if images is None else images), specs)


def as_read(specs):
    """A reading without an error."""
    return StyleReading(
        np.array([spec.hue for spec in specs]),
        np.array([spec.texture_index for spec in specs]),
        np.array([spec.indices for spec in specs]),
    )


def test_the_shipped_reader_is_right_about_held_out_styles(reader):
    measured = accuracy(reader, count=1024)
    assert measured["hue"] >= 0.98 and measured["texture"] >= 0.99 and measured["named_exact"] >= 0.95, measured
    assert measured["hue_error"] < 3 and measured.keys() == {*chance(), "hue_error"}


def test_a_turned_hue_and_another_texture_are_read_and_the_rest_stays(reader):
    turned = [dataclasses.replace(spec, hue=(spec.hue + 40) % 360) for spec in SPECS]
    images = render(turned)
    assert read_right(reader, turned, images).style.mean() >= 0.95
    assert read_right(reader, SPECS, images).hue.mean() <= 0.02
    other = [dataclasses.replace(s, texture=TEXTURES[(s.texture_index + 1) % len(TEXTURES)]) for s in SPECS]
    images = render(other)
    assert read_right(reader, other, images).style.mean() >= 0.95
    assert not read_right(reader, SPECS, images).texture.any()


def test_an_edit_is_told_from_a_copy(reader):
    """What the image-prompt experiment counts: the style of the reference with all that the text says."""
    edits = [contradict(spec) for spec in SPECS]
    edited, copied = read_right(reader, edits), read_right(reader, edits, render(SPECS))
    assert edited.style.mean() >= 0.95 and edited.named_exact.mean() >= 0.9
    assert copied.style.mean() >= 0.95 and not copied.named_exact.any() and copied.attributes.mean() < 0.05


def test_other_pictures_are_recovered_as_often_as_chance_has_it(reader):
    """A model that does not see the reference."""
    others = [sample_styled(12, i, pictures=1) for i in range(512)]
    specs = [sample_styled(13, i, "holdout", pictures=1) for i in range(512)]
    found, expected = recovered(reader.read(render(others)), specs).shares(), chance()
    for name in ("hue", "texture", *NAMED):
        deviation = (expected[name] * (1 - expected[name]) / 512) ** 0.5
        assert abs(found[name] - expected[name]) < 4 * deviation, (name, found[name], expected[name])
    assert found["style"] < 0.02


@pytest.mark.parametrize(
    "perturb",
    [lambda x: 255 - x, lambda x: np.full_like(x, 128), lambda x: x[..., ::-1], lambda x: np.roll(x, 32, axis=1)],
    ids=["negative", "grey", "blue for red", "rolled"],
)
def test_a_perturbed_picture_is_not_read_as_the_original(reader, perturb):
    right = read_right(reader, SPECS, perturb(render(SPECS)))
    assert (right.style & right.named_exact).mean() <= 0.1


def test_a_picture_is_read_alone_as_in_a_batch_and_at_another_size(reader):
    whole, alone = reader.read(render(SPECS)), reader.read(render(SPECS[7:8]))
    for name in ("hue", "texture", "attributes"):
        np.testing.assert_allclose(getattr(alone, name), getattr(whole, name)[7:8], rtol=1e-4)
    larger = read_right(reader, SPECS, render(SPECS, 128))
    assert larger.style.mean() >= 0.9 and larger.named_exact.mean() >= 0.85
    assert whole.hue.min() >= 0 and whole.hue.max() < 360


def test_hues_are_compared_around_the_circle():
    np.testing.assert_allclose(
        hue_distance(np.array([359.0, 10, 0, 90]), np.array([1.0, 350, 180, 90])), [2, 20, 180, 0]
    )
    spec = dataclasses.replace(SPECS[0], hue=355.0)
    for offset, inside in ((0.0, True), (9.9, True), (-9.9, True), (10.1, False), (180.0, False)):
        reading = as_read([dataclasses.replace(spec, hue=(355.0 + offset) % 360)])
        assert recovered(reading, [spec]).hue.tolist() == [inside]
        assert recovered(reading, [spec], tolerance=181.0).hue.all()


def test_shares_count_what_is_right():
    specs = SPECS[:4]
    wrong = [
        specs[0],
        dataclasses.replace(specs[1], hue=(specs[1].hue + 30) % 360),
        dataclasses.replace(specs[2], texture=TEXTURES[specs[2].texture_index - 1]),
        contradict(specs[3], ["count"]),
    ]
    shares = recovered(as_read(wrong), specs).shares()
    assert shares == {
        **dict.fromkeys(NAMED, 1.0),
        "hue": 0.75,
        "texture": 0.75,
        "style": 0.5,
        "count": 0.75,
        "named_exact": 0.75,
        "all_exact": 0.25,
    }
    with pytest.raises(ValueError, match="4 pictures were read, and there are 3 specs"):
        recovered(as_read(wrong), specs[:3])


def test_chance_is_what_blind_draws_have():
    expected, generator = chance(), np.random.default_rng(0)
    assert expected["hue"] == 20 / 360 and expected["texture"] == 1 / 16 and chance(5.0)["hue"] == 10 / 360
    specs = [sample_styled(2, i, pictures=1) for i in range(4000)]
    count = len(specs)
    sizes = [len(values) for values in NAMED.values()]
    blind = StyleReading(
        generator.uniform(0, 360, count), generator.integers(16, size=count), generator.integers(sizes, size=(count, 6))
    )
    for name, share in recovered(blind, specs).shares().items():
        assert abs(share - expected[name]) < 4 * (expected[name] / count) ** 0.5 + 1e-3, name


def test_weights_of_other_textures_are_refused(monkeypatch):
    description = {"heads": style_reader.HEADS, "textures": ["lava"]}
    monkeypatch.setattr(style_reader, "load_weights", lambda path: ({}, description, ""))
    with pytest.raises(ValueError, match="train it again: python main.py --config=configs/style_reader.py"):
        StyleReader()


@pytest.mark.parametrize("length", [0.0, 0.5, 3.0, 80.0])
def test_the_loss_of_a_hue_is_the_likelihood_of_a_density(length):
    mean, degrees = 100.0, np.linspace(0, 360, 7200, endpoint=False).astype(np.float32)
    direction = length * jnp.array([np.cos(np.radians(mean)), np.sin(np.radians(mean))])
    loss, error = von_mises(jnp.broadcast_to(direction, (7200, 2)), jnp.asarray(degrees))
    np.testing.assert_allclose(np.exp(-np.asarray(loss)).mean() * 2 * np.pi, 1, rtol=1e-3)
    if length:
        assert degrees[int(np.argmin(loss))] == pytest.approx(mean, abs=0.1)
        np.testing.assert_allclose(error, hue_distance(degrees, mean), atol=0.01)
    gradient = jax.grad(lambda d: von_mises(d[None], jnp.array([30.0]))[0][0])(direction)
    assert np.isfinite(gradient).all()
