"""Catalogues: every row of a source is a usable row or a counted rejection."""

import csv
import json
import unicodedata

import pytest

from fooddit.data.captions import Caption
from fooddit.data.catalogue import open_catalogue
from fooddit.data.rows import CatalogueError, Rejection
from tests.data.made import jpeg

ROWS = [
    {"file_name": "a.jpg", "title": "红烧肉", "category": "Meat_Dish", "language": "zh-CN", "dish_id": "d1"},
    {
        "file_name": "sub/b.jpg",
        "title": "Apple pie",
        "ingredients": "apples, flour",
        "description": "Sweet.",
        "dish_id": "d2",
    },
]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "menu"
    (root / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "sub/b.jpg", "c.jpg")):
        (root / name).write_bytes(jpeg(number))
    (tmp_path / "outside.jpg").write_bytes(jpeg(9))
    return root


def write_jsonl(folder, rows):
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_csv(folder, rows):
    with (folder / "metadata.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(folder, rows):
    pyarrow = pytest.importorskip("pyarrow", reason="parquet catalogues need pyarrow (the prep extra)")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = sorted({name for row in rows for name in row})
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
    parquet.write_table(table, folder / "metadata.parquet")


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])
def test_the_same_rows_from_every_format(folder, write):
    write(folder, ROWS)
    catalogue = open_catalogue(str(folder))
    first, second = catalogue
    assert len(catalogue) == 2 and catalogue.name == "menu"
    assert (first.id, first.dish_id, first.category) == ("a.jpg", "d1", "meat dish")
    assert first.captions[0] == Caption("红烧肉", "short", "zh")
    assert [c.text for c in second.captions] == ["Apple pie", "Apple pie. Sweet.", "Apple pie: apples, flour"]
    assert second.load() == jpeg(1)


@pytest.mark.parametrize("spelling", ["dish_id", "dish id", "Dish-ID", "dish", "id"])
def test_spellings_of_the_dish(folder, spelling):
    write_jsonl(folder, [{"file_name": "a.jpg", "Title": "x", spelling: 7}])
    (row,) = open_catalogue(str(folder))
    assert row.dish_id == "7" and row.captions[0].text == "x"


def test_without_a_dish_rows_are_grouped_by_title(folder):
    write_jsonl(
        folder, [{"file_name": name, "title": title} for name, title in (("a.jpg", "Ramen"), ("c.jpg", "ramen"))]
    )
    assert [row.dish_id for row in open_catalogue(str(folder))] == ["ramen", "ramen"]


def test_unusable_rows_are_rejected_with_a_reason(folder):
    rows = [
        "{broken",
        "[1, 2]",
        {"title": "no file"},
        {"file_name": "missing.jpg", "title": "x"},
        {"file_name": "../outside.jpg", "title": "x"},
        {"file_name": "a.jpg", "title": "x"},
        {"file_name": "a.jpg", "title": "again"},
        {"file_name": "c.jpg", "title": "  "},
    ]
    write_jsonl(folder, rows)
    found = list(open_catalogue(str(folder)))
    assert len(found) == len(rows)
    assert [row.reason for row in found if isinstance(row, Rejection)] == [
        "unreadable row",
        "unreadable row",
        "no file_name",
        "file missing",
        "file outside the folder",
        "file listed twice",
        "no title, description or category",
    ]
    assert found[3].row == "metadata.jsonl:4" and found[3].detail == "missing.jpg"


def test_a_byte_order_mark_and_empty_lines_do_no_harm(folder):
    text = "\ufeff" + json.dumps(ROWS[0]) + "\r\n\r\n" + json.dumps(ROWS[1]) + "\r\n"
    (folder / "metadata.jsonl").write_bytes(text.encode())
    catalogue = open_catalogue(str(folder))
    assert len(catalogue) == 2 and [row.id for row in catalogue] == ["a.jpg", "sub/b.jpg"]


def test_sources_that_cannot_be_read_say_what_is_expected(folder, tmp_path):
    with pytest.raises(CatalogueError, match="no such folder"):
        open_catalogue(str(tmp_path / "nowhere"))
    with pytest.raises(CatalogueError, match=r"metadata\.jsonl, metadata\.csv.*found none"):
        open_catalogue(str(folder))
    write_jsonl(folder, ROWS)
    write_csv(folder, ROWS)
    with pytest.raises(CatalogueError, match=r"found metadata\.jsonl and metadata\.csv"):
        open_catalogue(str(folder))
    for source in ("scenes:", "scenes:0", "scenes:many"):
        with pytest.raises(CatalogueError, match="scenes:N"):
            open_catalogue(source)


@pytest.mark.parametrize("source, found", [("", "SOURCE : no such folder"), ("gs://bucket/photos", "copy them first")])
def test_what_is_no_folder_is_named(source, found):
    with pytest.raises(CatalogueError, match=found):
        open_catalogue(source)


def test_a_metadata_file_is_no_folder(tmp_path):
    (tmp_path / "metadata.csv").touch()
    with pytest.raises(CatalogueError, match="metadata.csv: a file; expected a folder"):
        open_catalogue(str(tmp_path / "metadata.csv"))


def test_scenes_have_their_own_split_and_exact_attributes():
    scenes = pytest.importorskip("fooddit.data.scenes")
    rows = list(open_catalogue("scenes:5", size=32, holdout=0.1))
    assert [row.split for row in rows] == ["train"] * 5 + ["holdout"] * 256
    for row in (rows[0], rows[-1]):
        spec = scenes.SceneSpec(**row.attributes)
        assert scenes.held_out(spec) == (row.split == "holdout")
        assert {c.style for c in row.captions} == {"short", "dense"}
    assert len(list(open_catalogue("scenes:5", holdout=0))) == 5


def test_tfds_without_tensorflow(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs tensorflow-datasets (the prep extra)")

    class MadeDishes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = code_path = tmp_path

        def _info(self):
            label = tfds.features.ClassLabel(names=["apple_pie", "ramen"])
            features = {"image": tfds.features.Image(encoding_format="jpeg"), "label": label}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._made(0, 4), "validation": self._made(4, 2)}

        def _generate_examples(self):
            raise NotImplementedError

        def _made(self, first, count):
            for number in range(first, first + count):
                path = tmp_path / f"{number}.jpg"
                path.write_bytes(jpeg(number))
                yield number, {"image": str(path), "label": number % 2}

    builder = MadeDishes(data_dir=tmp_path / "data", file_format="array_record")
    builder.download_and_prepare()
    catalogue = open_catalogue(f"tfds:made_dishes?data_dir={tmp_path / 'data'}")
    rows = list(catalogue)
    assert len(catalogue) == len(rows) == 6
    assert {row.category for row in rows} == {"apple pie", "ramen"}
    assert {row.load() for row in rows} == {jpeg(number) for number in range(6)}
    assert rows[0].captions[0].text == rows[0].category
    assert len({row.dish_id for row in rows}) == 6
    only = open_catalogue(f"tfds:made_dishes?data_dir={tmp_path / 'data'}&split=validation")
    assert [row.id for row in only] == ["validation/0", "validation/1"]
    with pytest.raises(CatalogueError, match="unknown option"):
        open_catalogue("tfds:made_dishes?spilt=train")
    with pytest.raises(CatalogueError, match="no_such_dataset_here"):
        open_catalogue(f"tfds:no_such_dataset_here?data_dir={tmp_path / 'data'}")


def test_a_name_in_the_other_unicode_form_is_the_same_file(folder):
    (folder / unicodedata.normalize("NFC", "crème.jpg")).write_bytes(jpeg(4))
    write_jsonl(folder, [{"file_name": unicodedata.normalize("NFD", "crème.jpg"), "title": "Crème"}])
    (row,) = open_catalogue(str(folder))
    assert row.load() == jpeg(4)


def test_the_usual_slips_of_a_table_are_named(folder):
    (folder / "metadata.csv").write_text("file_name;title\na.jpg;Soup\n", encoding="utf-8")
    (row,) = open_catalogue(str(folder))
    assert row.reason == "no file_name" and "separate columns by commas" in row.detail
    (folder / "metadata.csv").unlink()
    (folder / "metadata.jsonl").write_text('[{"file_name":\n"a.jpg"}]\n', encoding="utf-8")
    assert "expected an object a line, not a list" in next(iter(open_catalogue(str(folder)))).detail


def test_dishes_are_told_apart_by_what_can_be_seen(folder):
    titles = ["cr\u00e8me", "cre\u0300me", "Cr\u00e8me", "cr\u00e8\u200bme", "\uff43r\u00e8me"]
    for number in range(len(titles)):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    write_jsonl(folder, [{"file_name": f"{number}.jpg", "title": title} for number, title in enumerate(titles)])
    assert len({row.dish_id for row in open_catalogue(str(folder))}) == 1


@pytest.mark.parametrize(
    "source, size, message", [("scenes:99999999999999999999", 16, "N from 1 to"), ("scenes:2", 10**5, "4,096 pixels")]
)
def test_scenes_that_fit_nowhere_are_refused(source, size, message):
    with pytest.raises(CatalogueError, match=message):
        open_catalogue(source, size=size)


def test_nested_ingredients_are_refused(folder):
    write_jsonl(folder, [ROWS[0] | {"ingredients": ["rice", ["soy", "beans"]]}])
    [row] = open_catalogue(str(folder))
    assert (
        isinstance(row, Rejection) and row.detail == "ingredients has lists or objects in it, expected a list of texts"
    )
