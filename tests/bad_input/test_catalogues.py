"""The corpus of bad pictures, rows and metadata files: each is counted or named, and costs its neighbours nothing."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import ImageFile

from fooddit.data import images
from fooddit.data.captions import MAX_CHARACTERS
from fooddit.data.catalogue import open_catalogue
from fooddit.data.prepare import prepare
from fooddit.data.records import encode_record, open_dataset
from fooddit.data.rows import CatalogueError, Rejection
from tests.bad_input.corpus import BAD_PICTURES, BAD_ROWS, MARKUP, TABLES, USABLE_PICTURES
from tests.data.made import jpeg

GOOD = [{"file_name": f"good-{number}.jpg", "title": f"good {number}"} for number in range(6)]


def catalogue(folder, lines):
    """Six good pictures and a metadata.jsonl of `lines`."""
    folder.mkdir()
    for number, row in enumerate(GOOD):
        (folder / row["file_name"]).write_bytes(jpeg(number))
    lines = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
    lines = [line.encode() if isinstance(line, str) else line for line in lines]
    (folder / "metadata.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return str(folder)


def mixed(bad):
    """Bad lines between good ones."""
    return [line for number, row in enumerate(GOOD) for line in (row, *bad[number :: len(GOOD)])]


def records(folder):
    return {record.id: record for split in ("train", "holdout") for record in open_dataset(folder, split)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The records of the good rows, prepared without any bad one."""
    root = tmp_path_factory.mktemp("alone")
    prepare(catalogue(root / "menu", GOOD), root / "out", progress=False)
    return {name: encode_record(record) for name, record in records(root / "out").items()}


def card(folder):
    return json.loads((folder / "dataset_card.json").read_text(encoding="utf-8"))


def test_bad_rows_are_counted_and_cost_the_good_ones_nothing(tmp_path, alone):
    source = catalogue(tmp_path / "menu", mixed([case.line for case in BAD_ROWS]))
    for case in BAD_ROWS:
        case.place(tmp_path / "menu")
    found = [row for row in open_catalogue(source) if isinstance(row, Rejection)]
    expected = [case for number in range(len(GOOD)) for case in BAD_ROWS[number :: len(GOOD)]]
    for case, rejection in zip(expected, found, strict=True):
        assert rejection.reason == case.reason and case.detail in rejection.detail, (case.name, rejection)
    summary = prepare(source, tmp_path / "out", progress=False)
    assert summary.rejected == Counter(case.reason for case in BAD_ROWS)
    assert {name: encode_record(record) for name, record in records(tmp_path / "out").items()} == alone


def test_bad_pictures_are_counted_and_usable_ones_are_upright_8_bit_and_whole(tmp_path, alone):
    cases = {case.name: case for case in (*BAD_PICTURES, *USABLE_PICTURES)}
    lines = mixed([{"file_name": case.name, "title": "bad"} for case in BAD_PICTURES])
    lines += [{"file_name": case.name, "title": "usable"} for case in USABLE_PICTURES]
    source = catalogue(tmp_path / "menu", lines)
    for name, case in cases.items():
        (tmp_path / "menu" / name).write_bytes(case.data)
    summary = prepare(source, tmp_path / "out", progress=False)
    assert summary.rejected == Counter(case.reason for case in BAD_PICTURES)
    found = records(tmp_path / "out")
    assert {name: encode_record(found[name]) for name in alone} == alone
    assert found.keys() - alone.keys() == {case.name for case in USABLE_PICTURES}
    for case in USABLE_PICTURES:
        record = found[case.name]
        pixels = images.decode_image(record.image)
        assert pixels.shape == (record.height, record.width, 3), case.name
        if case.pixels is None:
            assert (record.width, record.height) == case.size, case.name
        else:
            assert pixels.shape == case.pixels.shape, case.name
            assert np.abs(pixels.astype(int) - case.pixels).mean() <= case.tolerance, case.name


@pytest.mark.parametrize("case", BAD_PICTURES, ids=lambda case: case.name)
def test_a_bad_picture_says_what_it_is(case):
    for size in (None, 32):
        with pytest.raises(ValueError) as error:
            images.normalize_picture(case.data, size)
        assert case.detail in str(error.value)


@pytest.mark.parametrize("name", ["bomb.png", "bomb-declared.png"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(name, monkeypatch):
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: decoded.append("Pillow"))
    monkeypatch.setattr(images, "decode_image", lambda *_, **__: decoded.append("OpenCV"))
    (case,) = (case for case in BAD_PICTURES if case.name == name)
    assert len(case.data) < 30_000
    with pytest.raises(ValueError, match="declares"):
        images.normalize_picture(case.data)
    assert not decoded


@pytest.mark.parametrize("case", TABLES, ids=lambda case: f"{case.file.partition('.')[2]} {case.name}")
def test_metadata_files(case, tmp_path):
    for number, name in enumerate("abc"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(number))
    (tmp_path / case.file).write_bytes(case.content)
    if case.message:
        with pytest.raises(CatalogueError) as error:
            open_catalogue(str(tmp_path))
        assert case.message in str(error.value) and str(tmp_path / case.file) in str(error.value)
        return
    source = open_catalogue(str(tmp_path))
    rows = list(source)
    assert len(source) == len(rows) == len(case.titles) + len(case.rejected)
    assert {row.id: row.captions[0].text for row in rows if not isinstance(row, Rejection)} == case.titles
    details = [row.detail for row in rows if isinstance(row, Rejection)]
    assert all(part in detail for part, detail in zip(case.rejected, details, strict=True)), details


def test_long_captions_are_cut_where_no_model_reads_and_counted(tmp_path):
    lines = [row | {"description": "辣" * 10_000} for row in GOOD[:3]] + [
        {**GOOD[3], "title": "very " * 2_000},
        *GOOD[4:],
    ]
    prepare(catalogue(tmp_path / "menu", lines), tmp_path / "out", progress=False)
    lengths = [[len(caption.text) for caption in record.captions] for record in records(tmp_path / "out").values()]
    assert sorted(map(max, lengths)) == [6, 6, *[MAX_CHARACTERS] * 4]
    assert card(tmp_path / "out")["captions_cut"] == 4
    assert "4 of them were cut at 4,000 characters." in (tmp_path / "out/dataset_card.md").read_text(encoding="utf-8")


def test_titles_and_names_are_no_markup_on_the_card(tmp_path):
    name = 'menu <img src=x onerror="alert(1)"> | `x`\n# soup'
    lines = [row | {"title": text, "category": text} for row, text in zip(GOOD * 2, MARKUP)]
    lines += [{"file_name": text, "title": "x"} for text in MARKUP] + [GOOD[5] | {"category": "c" * 10_000}]
    prepare(catalogue(tmp_path / name, lines), tmp_path / "out", progress=False)
    page = (tmp_path / "out/dataset_card.md").read_text(encoding="utf-8")
    assert "<script" not in page and "<img" not in page and "![" not in page
    assert not [line for line in page.splitlines() if line.startswith(("- ", "# soup"))]
    for line in page.splitlines():
        if line.startswith("|"):
            assert line.replace("\\\\", "").replace("\\|", "").count("|") in (3, 4, 6) and len(line) < 3_000, line
    assert card(tmp_path / "out")["categories"]["a | b"] == 1
    texts = {caption.text for record in records(tmp_path / "out").values() for caption in record.captions}
    assert {"<script>alert(1)</script>", "a | b", "# soup - <b>"} <= texts


def test_a_catalogue_of_nothing_usable_says_why(tmp_path):
    source = catalogue(tmp_path / "menu", ["[", *[json.dumps(row) + "," for row in GOOD], "]"])
    with pytest.raises(
        CatalogueError, match=r"no usable row; rejected: 8 unreadable row \(metadata.jsonl:1: not a line"
    ):
        prepare(source, tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["menu"]
