"""The whole report on pictures whose quality is known: perfect ones, copies, and ones of the wrong dish."""

import html
import json
import re

import numpy as np
import pytest

from fooddit.data.records import open_dataset
from fooddit.data.scenes import render_image, sample_spec
from fooddit.evaluation import measurements
from fooddit.evaluation.feature_store import FeatureStore
from fooddit.evaluation.features import open_features, scene_reader_features
from fooddit.evaluation.measurements import gather
from fooddit.evaluation.picture_folder import Drawn, write_metadata
from fooddit.evaluation.set_page import set_page
from fooddit.evaluation.set_report import set_report
from tests.evaluation.made_set import SIDE, TRAIN, Bar, draw, material, scene_dataset, small_eclip

NUM = 20


@pytest.fixture(scope="module", autouse=True)
def few_renders_for_the_readers_own_error():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurements, "_ORACLE", 16)
        yield


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return scene_dataset(tmp_path_factory.mktemp("made") / "records")


@pytest.fixture(scope="module")
def network():
    return scene_reader_features()


def measure(folder, records, networks, tail=None, **options):
    found = material(folder, records)
    measured = gather(found, networks, FeatureStore(folder.parent / "features"), Bar, real_count=30, **options)
    return found, set_report(found, measured, tail)


@pytest.fixture(scope="module")
def perfect(records, network, tmp_path_factory):
    """Pictures that are what was asked for, but for one that is another dish and two that are training pictures."""

    def change(image, picture):
        if picture.name == "00003.png":
            return render_image(sample_spec(99, 0), SIDE)
        return render_image(sample_spec(3, int(picture.name[:5]), "train"), SIDE) if picture.name[4] in "56" else image

    folder = tmp_path_factory.mktemp("perfect") / "pictures"
    draw(folder, records, NUM, lambda image, p: change(image, p) if p.name in CHANGED else image)
    return measure(folder, records, [network], tail=16)


CHANGED = ("00003.png", "00005.png", "00006.png")


def test_counts_are_those_of_the_pictures_and_the_real_ones(perfect):
    _, report = perfect
    counted = {name: report[name] for name in ("pictures", "prompts", "repeats", "photos_of_the_same_dishes")}
    assert counted == {"pictures": NUM, "prompts": NUM, "repeats": 18, "photos_of_the_same_dishes": NUM}
    assert report["training_pictures"] == 30 and report["shape"] == [SIDE, SIDE]
    json.dumps(report, allow_nan=False)
    assert ("nearest training pictures", TRAIN, TRAIN) in Bar.told
    assert any(label == "features, scene reader" and done == total for label, total, done in Bar.told)


def test_perfect_pictures_are_nearer_to_their_dishes_photos_than_other_photos_are(perfect):
    same = perfect[1]["networks"][0]["same_dishes"]
    assert same["pictures"]["fid"]["high"] < same["real"]["fid"]["low"]
    assert same["pictures"]["kid"]["low"] < 0 < same["pictures"]["kid"]["high"]
    assert same["real"]["n"] == same["pictures"]["n"] == NUM
    training = perfect[1]["networks"][0]["training"]
    assert training["pictures"]["real_n"] == 30 and training["real"]["n"] == NUM


def test_fit_is_read_from_the_pixels_and_the_wrong_dish_is_the_worst(perfect):
    report = perfect[1]
    assert report["fit"]["by"] == "attributes" and report["fit"]["n"] == NUM
    assert report["fit"]["all_exact"] == pytest.approx(1 - len(CHANGED) / NUM, abs=0.051)
    fits = {row["file"]: row["fit"] for row in report["samples"]}
    assert min(fits, key=fits.get) in CHANGED and fits["00000.png"] == 1 and fits["00003.png"] < 1


def test_copies_of_training_pictures_are_found(perfect):
    rows = {row["file"]: row["nearest"] for row in perfect[1]["samples"]}
    assert [rows[name]["id"] for name in CHANGED[1:]] == ["train-5", "train-6"]
    assert rows["00005.png"]["copied"] and rows["00005.png"]["distance"] == 0 and rows["00000-1.png"] is None
    assert perfect[1]["memorisation"]["copied_share"] >= 2 / NUM


def test_diversity_is_that_of_scenes_and_none_within_a_prompt(perfect):
    found = perfect[1]["networks"][0]["diversity"]
    assert found["ratio"] == pytest.approx(1, abs=0.15) and found["within_prompt"]["n"] == 6
    assert found["within_prompt"]["value"] < 0.3 * found["of_set"]["value"] and "within_dish" not in found


def test_categories_and_the_long_tail_share_the_pictures(perfect):
    report = perfect[1]
    rows = {row["name"]: row for row in report["categories"]}
    # Of 40 training pictures 14 are of the rare kind; fewer than 16 are the long tail.
    assert list(rows) == ["common", "rare"] and rows["rare"]["dataset_pictures"] == 14
    assert rows["rare"]["long_tail"] and not rows["common"]["long_tail"]
    tail, rest = report["long_tail"]["tail"], report["long_tail"]["rest"]
    assert report["long_tail"]["limit"] == 16 and report["long_tail"]["categories"] == ["rare"]
    assert tail["pictures"] + rest["pictures"] == NUM and tail == {k: rows["rare"][k] for k in tail}
    for row in (tail, rest):
        assert row["photos"] == row["pictures"] and row["distances"]["scene reader"]["n"] == row["pictures"]
        assert 0.7 < row["fit"]["value"] <= 1 and row["nearest"]["value"] > 0


def test_the_page_needs_nothing_but_itself_and_shows_words_as_they_are(perfect):
    found, report = perfect
    page = set_page(report | {"title": "<b>soup & sons", "subtitle": "20 pictures"}, found)
    assert "<h1>&lt;b&gt;soup &amp; sons</h1>" in page and "<b>soup" not in page
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page and "http" not in page
    assert page.count("data:image/png;base64,") >= 12 * 2 + 6 * 2 + 4 * 4 + 8 * 2
    titles = ("Beside the real photo", "fit their prompts?", "By category", "The long tail", "Diversity", "remembered?")
    assert all(title in page for title in titles)
    assert html.escape(report["samples"][0]["prompt"]) in page
    assert "scene reader is not the network of published FIDs" in page and "at least" in page
    # Of photos a network that only knows drawings would say little, and the page says so.
    assert "never seen a photo" not in page and not report["networks"][0]["knows_only_scenes"]
    of_photos = [network | {"knows_only_scenes": True} for network in report["networks"]]
    assert "never seen a photo" in set_page(report | {"title": "", "subtitle": "", "networks": of_photos}, found)


def test_without_prompts_or_records_what_can_be_measured_is(records, network, tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(render_image(sample_spec(50, i), SIDE)).save(folder / f"{i}.png")
    found, report = measure(folder, records, [network], nearest=False)
    network_report = report["networks"][0]
    assert network_report["same_dishes"] == {"pictures": None, "real": None}
    assert network_report["training"]["pictures"]["n"] == 6 and network_report["training"]["real"] is None
    assert report["fit"] is None and report["memorisation"] is None and report["categories"] == []
    assert report["photos_of_the_same_dishes"] == 0
    page = set_page(report | {"title": "t", "subtitle": "s"}, found)
    assert "Diversity" in page and "By category" not in page and "Beside the real photo" not in page


def test_an_eclip_measures_cmmd_and_the_fit_of_text_and_picture(records, network, tmp_path):
    folder = tmp_path / "pictures"
    draw(folder, records, 8)
    clip = open_features(f"eclip:{small_eclip(tmp_path / 'eclip')}")
    found, report = measure(folder, records, [network, clip], nearest=False)
    by_reader, by_clip = report["networks"]
    assert "cmmd" in by_clip["same_dishes"]["pictures"] and "cmmd" not in by_reader["same_dishes"]["pictures"]
    assert by_clip["dimension"] == 12 and report["fit"]["by"] == "clip"
    # The pictures are the photos.
    assert report["fit"]["pictures"]["value"] == pytest.approx(report["fit"]["real"]["value"], abs=1e-4)
    assert {"by", "network", "pictures", "real", "shuffled"} == report["fit"].keys()
    assert "E-CLIP" in set_page(report | {"title": "t", "subtitle": "s"}, found)


def test_one_picture_is_too_few(records, network, tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(folder / "a.png")
    write_metadata(folder, [Drawn("a.png", "soup")])
    with pytest.raises(ValueError, match="found 1 pictures, expected at least 2"):
        measure(folder, records, [network], nearest=False)
    assert len(open_dataset(records, "train")) == TRAIN
