"""Prepare: the split keeps dishes and near-duplicates together, the output is the same bytes each time."""

import io
import json
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from fooddit.data.duplicates import components, difference_hash, near_duplicates, thumbnail
from fooddit.data.images import decode_image, encode_jpeg, encode_png, fit_image, normalize_picture
from fooddit.data.prepare import prepare
from fooddit.data.records import open_dataset
from fooddit.data.rows import CatalogueError
from tests.data.made import jpeg, picture

WIDTH, HEIGHT = 120, 90


@pytest.fixture
def menu(tmp_path):
    """40 pictures: 30 dishes of one, 3 dishes of three, and a smaller copy of picture 0 under another dish's name."""
    root = tmp_path / "menu"
    root.mkdir()
    rows = []
    for number in range(39):
        dish = f"dish {number}" if number < 30 else f"shared {number // 3}"
        (root / f"{number}.jpg").write_bytes(jpeg(number, WIDTH, HEIGHT))
        shot = "step" if number % 10 == 9 else "finished"
        rows.append({"file_name": f"{number}.jpg", "title": dish, "category": "made", "dish_id": dish, "shot": shot})
    copy = cv2.resize(picture(0, WIDTH, HEIGHT), (80, 60), interpolation=cv2.INTER_AREA)
    (root / "copy.jpg").write_bytes(encode_jpeg(copy, 70))
    rows.append({"file_name": "copy.jpg", "title": "stolen", "dish_id": "other", "shot": "finished"})
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return root


def read(folder):
    return {split: list(open_dataset(folder, split)) for split in ("train", "holdout")}


def test_nothing_is_lost_and_dishes_and_copies_stay_together(menu, tmp_path):
    for seed in range(6):
        summary = prepare(str(menu), tmp_path / f"out{seed}", holdout=0.3, seed=seed, progress=False)
        found = read(tmp_path / f"out{seed}")
        names = {split: {r.id for r in records} for split, records in found.items()}
        assert summary.records == {split: len(records) for split, records in found.items()}
        assert len(names["train"] | names["holdout"]) == 40 and not names["train"] & names["holdout"]
        assert len(names["holdout"]) == 12
        for key in ("dish_id", "cluster"):
            sides = [{getattr(r, key) for r in records} for records in found.values()]
            assert not sides[0] & sides[1]
        assert ("0.jpg" in names["train"]) == ("copy.jpg" in names["train"])


def test_dishes_and_twins_are_numbered(menu, tmp_path):
    prepare(str(menu), tmp_path / "out", holdout=0.3, progress=False)
    names, dishes, twins = [], [], []
    for split in ("train", "holdout"):
        found = open_dataset(tmp_path / "out", split)
        assert found.dishes.dtype == found.twins.dtype == np.int64
        for number, row in enumerate(found):
            names.append((row.id, row.dish_id))
            dishes.append(int(found.dishes[number])), twins.append(int(found.twins[number]))
    of_dish = {}
    for (_, dish_id), dish in zip(names, dishes, strict=True):
        of_dish.setdefault(dish, set()).add(dish_id)
    # A dish is a dish, whatever its pictures look like; the copy of picture 0 is the one twin, under another dish.
    assert len(of_dish) == 34 and all(len(ids) == 1 for ids in of_dish.values())
    assert len({*twins}) == 39
    of_id = {id: (dish, twin) for (id, _), dish, twin in zip(names, dishes, twins, strict=True)}
    assert of_id["0.jpg"][1] == of_id["copy.jpg"][1] and of_id["0.jpg"][0] != of_id["copy.jpg"][0]
    assert of_id["30.jpg"][0] == of_id["31.jpg"][0] and of_id["30.jpg"][1] != of_id["31.jpg"][1]


def test_pictures_are_kept_as_they_are(menu, tmp_path):
    prepare(str(menu), tmp_path / "out", progress=False)
    for records in read(tmp_path / "out").values():
        for found in records:
            assert found.image == (menu / found.id).read_bytes()
            assert decode_image(found.image).shape == (found.height, found.width, 3)


def test_same_input_same_bytes(menu, tmp_path):
    first = prepare(str(menu), tmp_path / "a", progress=False, threads=1)
    second = prepare(str(menu), tmp_path / "b", progress=False, threads=7)
    assert first.fingerprint == second.fingerprint
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_filter_size_and_shards(menu, tmp_path):
    where = {"shot": "finished"}
    summary = prepare(str(menu), tmp_path / "out", size=48, where=where, shard_bytes=20000, progress=False)
    assert sum(summary.records.values()) == 37 and summary.filtered == 3
    assert len(list((tmp_path / "out").glob("train-*.array_record"))) > 1
    assert all(min(r.width, r.height) == 48 for records in read(tmp_path / "out").values() for r in records)
    with pytest.raises(CatalogueError, match="--where: no row has the column shoot; columns: "):
        prepare(str(menu), tmp_path / "other", where={"shoot": "finished"}, progress=False)


def test_card_counts_what_was_rejected(menu, tmp_path):
    (menu / "3.jpg").write_bytes(b"not a picture")
    (menu / "4.jpg").write_bytes(jpeg(4, WIDTH, HEIGHT)[:500])
    (menu / "5.jpg").unlink()
    summary = prepare(str(menu), tmp_path / "out", progress=False)
    assert summary.rejected == {"picture cannot be read": 2, "file missing": 1}
    assert "rejected       2 picture cannot be read" in str(summary)
    data = json.loads((tmp_path / "out/dataset_card.json").read_text(encoding="utf-8"))
    assert data["rejected"]["file missing"]["examples"] == ["metadata.jsonl:6: 5.jpg"]
    assert data["categories"] == {"made": 36, "(none)": 1}
    assert sum(data["shorter_side"].values()) == sum(data["aspect"].values()) == 37
    assert data["captions"]["en short"] == 36 * 2 + 1
    card = (tmp_path / "out/dataset_card.md").read_text(encoding="utf-8")
    assert "| picture cannot be read | 2 | 3.jpg: " in card and "| holdout | 4 |" in card
    with Image.open(tmp_path / "out/contact_sheet.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(1 << 24)) > 1000


def test_a_failed_run_leaves_nothing_under_the_name(menu, tmp_path, monkeypatch):
    monkeypatch.setattr("fooddit.data.card.write_contact_sheet", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(str(menu), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    prepare(str(menu), tmp_path / "out", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["menu", "out"]
    assert not (tmp_path / "out/spool.array_record").exists()
    with pytest.raises(FileExistsError, match="exists already"):
        prepare(str(menu), tmp_path / "out", progress=False)


def test_no_usable_row_is_an_error(menu, tmp_path):
    with pytest.raises(CatalogueError, match="--where: no row has shot=painted; found in shot: finished, step"):
        prepare(str(menu), tmp_path / "out", where={"shot": "painted"}, progress=False)
    with pytest.raises(CatalogueError, match="holdout 1.5"):
        prepare(str(menu), tmp_path / "out", holdout=1.5)


def test_scenes_become_records(tmp_path):
    scenes = pytest.importorskip("fooddit.data.scenes")
    summary = prepare("scenes:6", tmp_path / "out", size=32, progress=False)
    assert summary.records == {"train": 6, "holdout": 256}
    for found in (open_dataset(tmp_path / "out", "train")[2], open_dataset(tmp_path / "out", "holdout")[9]):
        expected = scenes.render_image(scenes.SceneSpec(**found.attributes), 32)
        np.testing.assert_array_equal(decode_image(found.image), expected)


def test_near_duplicates_are_found_by_looks():
    original = picture(1, 200, 150)
    copies = [
        decode_image(encode_jpeg(original, 30)),
        cv2.resize(original, (90, 70), interpolation=cv2.INTER_AREA),
        np.clip(original.astype(int) + 12, 0, 255).astype(np.uint8),
        *(np.clip(original * factor, 0, 255).astype(np.uint8) for factor in (0.7, 1.3)),
    ]
    pictures = [original, *copies, *(picture(seed, 200, 150) for seed in range(100, 160))]
    hashes = np.array([difference_hash(p) for p in pictures], np.uint64)
    pairs = near_duplicates(hashes, np.stack([thumbnail(p) for p in pictures]))
    assert {(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)} <= set(pairs) and all(j < 6 for _, j in pairs)
    # The same hash in other colours is another dish.
    recoloured = original[..., [2, 0, 1]] // 2
    pair = [original, recoloured]
    assert near_duplicates(np.array([5, 5], np.uint64), np.stack([thumbnail(p) for p in pair])) == []


def test_bands_miss_no_pair():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 63, 600, np.uint64)
    for row in range(0, 600, 2):
        bits = rng.choice(64, rng.integers(4, 8), replace=False)
        hashes[row + 1] = hashes[row] ^ np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64))
    found = near_duplicates(hashes, np.zeros((600, 192), np.uint8))
    every = [(i, i + 1) for i in range(0, 600, 2) if int(hashes[i] ^ hashes[i + 1]).bit_count() <= 5]
    assert found == every and 100 < len(every) < 200


def test_components_join_through_others():
    assert components(["a", "b", "a", "c", "d"], [(1, 3), (3, 4)]).tolist() == [0, 1, 0, 1, 1]


def saved(image, kind, **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def test_pictures_that_decoders_read_differently_are_encoded_anew():
    image = Image.fromarray(picture(2, 40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = normalize_picture(saved(image, "JPEG", exif=exif, quality=95, subsampling=0))
    assert (turned.width, turned.height) == (30, 40)
    difference = decode_image(turned.data).astype(int) - np.asarray(image.rotate(-90, expand=True))
    assert np.abs(difference).mean() < 3
    for kind, mode in (("PNG", "P"), ("PNG", "RGBA"), ("JPEG", "CMYK"), ("GIF", "P"), ("PNG", "1")):
        found = normalize_picture(saved(image.convert(mode), kind))
        assert decode_image(found.data).shape == (30, 40, 3)
    deep = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 54)
    pixels = decode_image(normalize_picture(saved(deep, "PNG")).data)
    assert pixels[0, 0, 0] == 0 and pixels[-1, -1, 0] == 252
    for kept in (saved(image, "JPEG"), saved(image, "PNG"), saved(image, "WEBP"), saved(image.convert("L"), "JPEG")):
        assert normalize_picture(kept).data == kept
    with pytest.raises(ValueError, match="not a picture"):
        normalize_picture(b"soup of the day")


def swapped_primaries():
    """sRGB's profile with red and green exchanged, under another name."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack(">I", data[128:132])
    tags = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = (slice(tags[name] + 4, tags[name] + 12) for name in (b"rXYZ", b"gXYZ"))
    data[red], data[green] = data[green], data[red]
    return bytes(data).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


@pytest.mark.parametrize("size", [None, 32])
def test_colours_of_another_profile_become_srgb(size):
    red = Image.new("RGB", (64, 48), (200, 30, 30))
    found = normalize_picture(saved(red, "JPEG", icc_profile=swapped_primaries(), quality=95), size)
    np.testing.assert_allclose(decode_image(found.data)[5, 5], (30, 200, 30), atol=4)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kept in (saved(red, "JPEG", icc_profile=srgb), saved(red, "JPEG", icc_profile=b"junk")):
        assert normalize_picture(kept).data == kept


def test_integers_of_no_known_scale_are_refused():
    for largest in (254, 1 << 30):
        ramp = np.linspace(0, largest, 1200).astype(np.int32).reshape(30, 40)
        with pytest.raises(ValueError, match=f"32-bit integers up to {largest}, of no known scale"):
            normalize_picture(saved(Image.fromarray(ramp), "TIFF"))


def test_fitting_covers_and_crops():
    image = picture(3, 80, 40)
    np.testing.assert_array_equal(fit_image(image, 40, 40, crop=0.0), image[:, :40])
    np.testing.assert_array_equal(fit_image(image, 40, 40, crop=1.0), image[:, 40:])
    assert fit_image(image, 24, 64).shape == (24, 64, 3) and fit_image(image, 100, 50).shape == (100, 50, 3)
    np.testing.assert_array_equal(decode_image(encode_png(image)), image)


@pytest.mark.skipif("FOODDIT_PHOTOS" not in os.environ, reason="FOODDIT_PHOTOS names no folder of real photos")
def test_real_photos(tmp_path):
    photos = Path(os.environ["FOODDIT_PHOTOS"])
    summary = prepare(str(photos), tmp_path / "out", where={"shot": "finished"}, progress=False)
    assert sum(summary.records.values()) + sum(summary.rejected.values()) + summary.filtered == 422
    found = read(tmp_path / "out")
    assert not {r.dish_id for r in found["train"]} & {r.dish_id for r in found["holdout"]}
    assert len(found["holdout"]) == pytest.approx(0.1 * summary.records["train"] / 0.9, abs=2)
