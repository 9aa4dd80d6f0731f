"""Styled scenes: hue and texture can be seen and are never said, a dish is one style, no split and no look changes."""

import colorsys
import itertools
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest

from fooddit.data.catalogue import CatalogueError, is_rendered, open_catalogue
from fooddit.data.images import decode_image
from fooddit.data.prepare import prepare
from fooddit.data.records import open_dataset
from fooddit.data.scene_stream import SceneStreamConfig
from fooddit.data.scenes import (
    LANGUAGES,
    NAMED,
    PICTURES,
    TEXTURES,
    Segment,
    StyledSpec,
    combination_held_out,
    contradict,
    render_styled,
    render_styled_image,
    sample_styled,
    style_held_out,
    styled_captions,
    styled_prompt,
)
from fooddit.data.scenes.textures import tabletop
from fooddit.data.style_stream import StyleBatches, style_batch_shapes
from tests.data.test_scenes import WORDS, difference, widen

PLAIN = StyledSpec(200.0, "waves", "sushi", "oval", 2, "flower", "right", "evening", seed=11)
FROZEN_THUMBNAIL = np.array(
    [
        [[121, 90, 79], [139, 126, 113], [131, 127, 115], [143, 130, 118]],
        [[107, 61, 53], [136, 105, 76], [135, 109, 57], [161, 124, 90]],
        [[107, 62, 52], [121, 107, 83], [118, 123, 83], [153, 105, 97]],
        [[136, 112, 87], [132, 119, 107], [130, 118, 107], [144, 129, 116]],
    ]
)
SHAPE_WORDS = {
    "en": {name: f" {name} glazed " for name in NAMED["vessel_shape"]},
    "zh": {"round": "釉面圆", "square": "釉面方", "oval": "釉面椭圆"},
}


def small(texture, shift=(-1.0, -1.0)):
    return cv2.resize(tabletop(texture, 256, shift), (64, 64), interpolation=cv2.INTER_AREA)


def spectrum(texture):
    """What a texture's lines do, whatever its colours, its contrast and its place."""
    grey = small(texture).astype(float) @ (0.3, 0.6, 0.1)
    found = np.abs(np.fft.fft2(grey - grey.mean())).ravel()
    return found / np.linalg.norm(found)


def test_textures_differ_in_geometry_and_not_only_in_colour():
    spectra = np.stack([spectrum(texture) for texture in TEXTURES])
    alike = spectra @ spectra.T - np.eye(len(TEXTURES))
    assert len(TEXTURES) == 16 and alike.max() < 0.93
    # A quarter of each texture's pixels at least is not of its commonest colour.
    for texture in TEXTURES:
        _, counts = np.unique(tabletop(texture, 256, (-1, -1)).reshape(-1, 3), axis=0, return_counts=True)
        assert counts.max() / counts.sum() < 0.8, texture


@pytest.mark.parametrize("texture", TEXTURES)
def test_a_texture_is_one_seamless_tile_that_moves(texture):
    canvas = tabletop(texture, 256, (-1, -1))
    np.testing.assert_array_equal(canvas[:128, :128], canvas[128:, 128:])
    moved = tabletop(texture, 256, (0.3, -0.5))
    assert not np.array_equal(canvas, moved)
    np.testing.assert_array_equal(moved, np.roll(canvas, (32, 83), axis=(0, 1)))
    for axis in (0, 1):
        steps = np.abs(np.diff(canvas[:129, :129].astype(int), axis=axis)).mean(axis=(1 - axis, 2))
        assert steps[-1] <= steps[:-1].max() * 1.01 + 1e-9


@pytest.mark.parametrize("size", [16, 17, 64, 129, 300])
def test_tables_of_any_size_have_the_same_look(size):
    for texture in TEXTURES:
        image = render_styled_image(replace(PLAIN, texture=texture), size)
        assert image.shape == (size, size, 3)
        if size >= 128:
            reduced = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
            assert difference(reduced, render_styled_image(replace(PLAIN, texture=texture))).mean() < 12


def test_hue_changes_only_vessel_pixels_and_texture_only_the_table():
    for i in range(30):
        spec = sample_styled(5, i)
        base, recoloured = render_styled(spec), render_styled(replace(spec, hue=(spec.hue + 90) % 360))
        vessel = base.segmentation == Segment.VESSEL
        changed = difference(base.image, recoloured.image) > 0
        # A sliver of the vessel between two pieces may lie between pixel centres.
        assert changed[~widen(vessel)].sum() <= 8 and changed[vessel].mean() > 0.7
        other = TEXTURES[(spec.texture_index + 5) % len(TEXTURES)]
        table = base.segmentation == Segment.TABLE
        # Gaps of cutlery are narrower than a pixel; beyond the frame there is table again.
        allowed = widen(np.pad(table, 1, constant_values=True))[1:-1, 1:-1] | (base.segmentation == Segment.CUTLERY)
        assert not difference(base.image, render_styled_image(replace(spec, texture=other)))[~allowed].any()


def test_every_texture_is_seen_at_64_pixels_wherever_the_dish_stands():
    for placement, (i, a) in itertools.product(NAMED["placement"], enumerate(TEXTURES)):
        spec = replace(sample_styled(6, i), placement=placement, texture=a)
        table = render_styled(spec).segmentation == Segment.TABLE
        assert table.mean() > 0.2
        for b in TEXTURES[:i]:
            seen = difference(render_styled_image(spec), render_styled_image(replace(spec, texture=b)))
            assert (seen[table] > 24).mean() > 0.3, (a, b)


@pytest.mark.parametrize("light", NAMED["light"])
@pytest.mark.parametrize("shape", NAMED["vessel_shape"])
def test_ten_degrees_of_hue_are_seen_under_every_light(light, shape):
    hues = np.arange(0, 360, 10)
    spec = replace(PLAIN, kind="donut", count=1, vessel_shape=shape, light=light)
    scenes = [render_styled(replace(spec, hue=float(hue))) for hue in hues]
    colours = np.array([np.median(scene.image[scene.segmentation == Segment.VESSEL], axis=0) for scene in scenes])
    assert np.linalg.norm(colours - np.roll(colours, 1, axis=0), axis=1).min() > 9
    # No light is so bright that a channel is cut off and takes hues with it.
    assert colours.max() < 250
    if light == "noon":
        read = np.array([colorsys.rgb_to_hsv(*(colour / 255))[0] * 360 for colour in colours])
        assert np.abs((read - hues + 180) % 360 - 180).max() < 3


def test_the_look_is_frozen():
    """The shipped reader was trained on these pixels."""
    thumbnail = cv2.resize(render_styled_image(PLAIN), (4, 4), interpolation=cv2.INTER_AREA)
    assert np.abs(thumbnail.astype(int) - FROZEN_THUMBNAIL).max() <= 2
    scene = render_styled(PLAIN)
    np.testing.assert_array_equal(scene.image, render_styled_image(PLAIN))


def test_what_is_held_out_never_changes():
    sizes = [range(len(values)) for values in NAMED.values()]
    combinations = [indices for indices in itertools.product(*sizes) if combination_held_out(indices)]
    assert len(combinations) == 415
    assert combinations[:2] == [(0, 0, 0, 3, 1, 2), (0, 0, 1, 0, 0, 2)] and combinations[-1] == (11, 2, 2, 3, 1, 2)
    bands = np.array([[style_held_out(10.0 * band + 9.99, texture) for texture in TEXTURES] for band in range(36)])
    assert bands.sum() == 58 and set(bands.sum(axis=0)) == {3, 4} and set(bands.sum(axis=1)) == {1, 2}
    assert bands[0, TEXTURES.index("planks")] and bands[0, TEXTURES.index("waves")]


def test_a_dish_is_one_style_and_its_pictures_share_nothing_else():
    for split in ("train", "holdout"):
        specs = [sample_styled(1, i, split) for i in range(2000)]
        assert specs[17] == sample_styled(1, 17, split) != sample_styled(2, 17, split)
        dishes = [specs[i : i + PICTURES] for i in range(0, len(specs), PICTURES)]
        assert all(len({(spec.hue, spec.texture) for spec in dish}) == 1 for dish in dishes)
        assert len({dish[0].hue for dish in dishes}) == len(dishes)
        assert all(style_held_out(s.hue, s.texture) == (split == "holdout") for s in specs)
        assert all(combination_held_out(s.indices) == (split == "holdout") for s in specs)
        assert len({spec.seed for spec in specs}) == len(specs)
        for name, values in NAMED.items():
            # Between two pictures of a dish each attribute is the same as often as chance has it.
            same = np.mean([getattr(dish[0], name) == getattr(dish[1], name) for dish in dishes])
            assert abs(same - 1 / len(values)) < 0.12, (split, name, same)
    assert sample_styled(0, 0) == StyledSpec(
        231.7092239598474, "diagonal", "donut", "square", 1, "cilantro", "centre", "noon", seed=487869500
    )


def test_samples_are_uniform():
    specs = [sample_styled(3, i, pictures=1) for i in range(3200)]
    textures = np.bincount([spec.texture_index for spec in specs], minlength=16)
    hues = np.histogram([spec.hue for spec in specs], 12, (0, 360))[0]
    assert np.abs(textures / 200 - 1).max() < 0.35 and np.abs(hues / 3200 * 12 - 1).max() < 0.25
    indices = np.array([spec.indices for spec in specs])
    for column, values in zip(indices.T, NAMED.values()):
        counts = np.bincount(column, minlength=len(values))
        assert np.abs(counts / len(specs) * len(values) - 1).max() < 0.25


def test_no_caption_depends_on_the_style():
    for i in range(100):
        spec, other = sample_styled(10, i), sample_styled(11, i)
        restyled = replace(spec, hue=other.hue, texture=other.texture)
        assert styled_captions(spec) == styled_captions(restyled)
        assert all(styled_prompt(spec, language) == styled_prompt(restyled, language) for language in LANGUAGES)


def test_dense_captions_say_all_named_attributes():
    for i in range(200):
        spec = sample_styled(12, i)
        dense = [caption for caption in styled_captions(spec) if caption.style == "dense"]
        assert len({caption.text for caption in dense}) == 10
        for caption in dense:
            text = f" {caption.text.lower()}"
            for name, values in NAMED.items():
                words = (WORDS[caption.language] | {"vessel_shape": SHAPE_WORDS[caption.language]})[name]
                assert [value for value in values if words[value] in text] == [getattr(spec, name)], (name, text)
        for language in LANGUAGES:
            assert styled_prompt(spec, language) in [c.text for c in dense if c.language == language]


def test_captions_read_naturally():
    spec = StyledSpec(30.0, "dots", "dumplings", "round", 3, "cilantro", "left", "morning", seed=0)
    assert styled_prompt(spec) == (
        "Three dumplings on a round glazed plate, garnished with a sprig of cilantro, "
        "on the left of a patterned tabletop in cool morning light."
    )
    assert styled_prompt(spec, "zh") == "花纹桌面左侧摆着釉面圆盘，盛着三只饺子，以香菜点缀，清晨的冷光。"
    short = [caption.text for caption in styled_captions(spec) if caption.style == "short"]
    assert short == [
        "dumplings",
        "three dumplings",
        "three dumplings on a glazed plate",
        "饺子",
        "三只饺子",
        "三只饺子，釉面盘",
    ]


@pytest.mark.parametrize("split", ["train", "holdout"])
def test_a_contradiction_keeps_the_style_and_differs_in_every_name(split):
    found = []
    for i in range(120):
        reference = sample_styled(13, i, split)
        edit = contradict(reference)
        assert (edit.hue, edit.texture) == (reference.hue, reference.texture)
        assert all(a != b for a, b in zip(edit.indices, reference.indices)) and edit.seed != reference.seed
        assert combination_held_out(edit.indices) == (split == "holdout")
        assert edit == contradict(reference) != contradict(reference, seed=1)
        found.append(edit)
    assert len({edit.kind for edit in found}) == len(NAMED["kind"])


def test_a_contradiction_in_some_names_leaves_the_others():
    for i, name in itertools.product(range(20), NAMED):
        reference = sample_styled(14, i)
        edit = contradict(reference, [name])
        assert [n for n in NAMED if getattr(edit, n) != getattr(reference, n)] == [name]
    for names in ([], ["hue"], "kind"):
        with pytest.raises(ValueError, match="must be some of"):
            contradict(PLAIN, names)


def test_specs_come_back_and_wrong_values_are_named():
    spec = sample_styled(0, 5)
    assert StyledSpec.from_indices(spec.hue, spec.texture_index, spec.indices, spec.seed) == spec
    assert StyledSpec.from_attributes(asdict(spec) | {"indices": [1]}) == spec
    for change, message in (
        ({"hue": 360.0}, "hue is 360.0.*degrees"),
        ({"hue": float("nan")}, "hue is nan"),
        ({"texture": "lava"}, "texture.*'lava'.*planks"),
        ({"count": 4}, "count is 4"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(spec, **change)
    with pytest.raises(ValueError, match="do not fit"):
        StyledSpec.from_indices(0.0, 16, spec.indices, 0)
    with pytest.raises(ValueError, match="split"):
        sample_styled(0, 0, "test")
    with pytest.raises(ValueError, match="pictures"):
        sample_styled(0, 0, pictures=0)
    with pytest.raises(ValueError, match="language"):
        styled_prompt(spec, "fr")


def test_the_catalogue_has_dishes_of_several_pictures_and_exact_attributes():
    assert is_rendered("styles:8") and is_rendered("scenes:8") and not is_rendered("styles") and not is_rendered("/x")
    catalogue = open_catalogue("styles:8", size=32)
    rows = list(catalogue)
    assert len(catalogue) == len(rows) and [row.split for row in rows] == ["train"] * 8 + ["holdout"] * 256
    assert len({row.dish_id for row in rows}) == 2 + 256 // PICTURES and rows[0].dish_id == rows[3].dish_id
    train, holdout = ({(r.attributes["hue"], r.attributes["texture"]) for r in part} for part in (rows[:8], rows[8:]))
    assert not train & holdout
    for row in (rows[0], rows[-1]):
        spec = StyledSpec.from_attributes(row.attributes)
        assert row.attributes["indices"] == list(spec.indices) and row.attributes["texture_index"] == spec.texture_index
        assert style_held_out(spec.hue, spec.texture) == (row.split == "holdout")
        np.testing.assert_array_equal(decode_image(row.load()), render_styled_image(spec, 32))
        assert {caption.style for caption in row.captions} == {"short", "dense"}
    for source in ("styles:", "styles:0", "styles:many"):
        with pytest.raises(CatalogueError, match="expected styles:N"):
            open_catalogue(source)


def test_records_of_styles_keep_dishes_and_attributes(tmp_path):
    prepare("styles:8", tmp_path / "out", size=32, progress=False)
    dataset = open_dataset(tmp_path / "out", "train")
    records = list(dataset)
    assert [record.cluster for record in records] == [records[0].cluster] * 4 + [records[4].cluster] * 4
    assert [StyledSpec.from_attributes(r.attributes) for r in records] == [sample_styled(0, i) for i in range(8)]


def test_the_stream_gives_a_style_a_picture_and_the_rows_that_are_wanted():
    config = SceneStreamConfig(batch_size=6, image_size=32)
    whole, part = StyleBatches(config, seed=4, position=2), StyleBatches(config, seed=4, rows=np.array([1, 4]))
    batch = next(whole)
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        name: (shape.shape, shape.dtype) for name, shape in style_batch_shapes(config).items()
    }
    assert len(set(batch["hue"].tolist())) == 6 and whole.position == 3
    for _ in range(3):
        rows = next(part)
    for name, value in rows.items():
        np.testing.assert_array_equal(value, batch[name][[1, 4]])
    whole.close()
    part.close()
