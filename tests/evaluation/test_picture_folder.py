"""Which pictures are drawn, and folders of pictures as strangers have them."""

import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fooddit.data.records import open_dataset
from fooddit.evaluation.picture_folder import (
    Drawn,
    common_shape,
    image_blocks,
    plan,
    read_folder,
    write_metadata,
)
from tests.data.made import dataset, record


@pytest.fixture(scope="module")
def holdout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "records"
    dataset(folder, [record(0)], [record(i) for i in range(10, 50)])
    return open_dataset(folder, "holdout")


def save(path, size=(8, 6), prompt=None, seed=None):
    info = PngInfo()
    for name, value in (("prompt", prompt), ("seed", seed)):
        if value is not None:
            info.add_itxt(name, str(value))
    Image.new("RGB", size, (200, 100, 50)).save(path, pnginfo=info)


def test_a_plan_is_of_dense_captions_in_turn_and_shares_seeds_within_a_batch(holdout):
    wanted = plan(holdout, 32, seed=7, together=8)
    counted = [p for p in wanted if not p.repeat]
    assert [p.name for p in counted[:2]] == ["00000.png", "00001.png"] and len(counted) == 32
    assert [p.seed for p in counted] == [7 + i // 8 for i in range(32)]
    assert len({p.record for p in counted}) == 32
    # In turn, English and Chinese, and never the short ones.
    for number, picture in enumerate(counted):
        index = picture.record[1:]
        assert picture.prompt == (f"第{index}道菜" if number % 2 else f"a dense text about dish {index}")


def test_a_few_prompts_are_drawn_again_from_other_seeds(holdout):
    wanted = plan(holdout, 32, seed=7, together=8)
    again = [p for p in wanted if p.repeat]
    assert len(again) == 6 * 3 and again[0].name == "00000-1.png"
    for picture in again:
        first = next(p for p in wanted if p.name == picture.name[:5] + ".png")
        assert (picture.prompt, picture.record) == (first.prompt, first.record) and picture.seed != first.seed
    assert len({(p.prompt, p.seed) for p in wanted}) == len(wanted)


def test_a_smaller_plan_is_the_beginning_of_a_larger_one(holdout):
    few, many = ([p for p in plan(holdout, n, 0, 8) if not p.repeat] for n in (10, 40))
    assert few == many[:10]


def test_more_pictures_than_records_ask_each_again_from_other_seeds(holdout):
    wanted = plan(holdout, 100, seed=0, together=8)
    assert len(wanted) == 100 and not any(p.repeat for p in wanted)
    assert len({(p.prompt, p.seed) for p in wanted}) == 100 and len({p.record for p in wanted}) == 40


def test_records_without_captions_give_nothing_to_draw(tmp_path):
    import dataclasses

    dataset(tmp_path / "bare", [record(0)], [dataclasses.replace(record(1), captions=())])
    with pytest.raises(ValueError, match="split 'holdout' has no whole record with a caption"):
        plan(open_dataset(tmp_path / "bare", "holdout"), 4, 0, 8)


def test_metadata_is_read_as_it_was_written(holdout, tmp_path):
    wanted = plan(holdout, 8, seed=1, together=8)
    for picture in wanted:
        save(tmp_path / picture.name)
    write_metadata(tmp_path, wanted)
    assert read_folder(tmp_path) == wanted
    assert common_shape(tmp_path, wanted) == (6, 8)
    blocks = list(image_blocks(tmp_path, wanted))
    assert sum(map(len, blocks)) == len(wanted) and np.all(blocks[0][0, 0, 0] == (200, 100, 50))


def test_without_metadata_pictures_speak_for_themselves(tmp_path):
    save(tmp_path / "b.png", prompt="两只饺子", seed=3)
    save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    assert read_folder(tmp_path) == [Drawn("a.png"), Drawn("b.png", "两只饺子", 3)]


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "line 1: no JSON"),
        ('["a.png"]', "line 1: found .*expected an object with file_name and prompt"),
        ('{"prompt": "soup"}', "line 1: found .*file_name"),
        ('{"file_name": "a.png", "prompt": 3}', "line 1: found"),
        ('{"file_name": "none.png"}', "none.png is not in"),
    ],
)
def test_rows_that_are_none_are_named(line, message, tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_folder(tmp_path)


def test_folders_without_pictures_are_refused(tmp_path):
    with pytest.raises(NotADirectoryError, match="none: no such folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="found no picture"):
        read_folder(tmp_path)


def test_pictures_of_two_sizes_and_damaged_ones_are_refused(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", size=(9, 6))
    with pytest.raises(ValueError, match="b.png is 9 x 6, a.png is 8 x 6"):
        common_shape(tmp_path, read_folder(tmp_path))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(ValueError, match="b.png"):
        list(image_blocks(tmp_path, [Drawn("b.png")]))
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "junk.png"}))
    (tmp_path / "junk.png").write_bytes(b"junk")
    with pytest.raises(ValueError, match="junk.png: not a picture"):
        common_shape(tmp_path, read_folder(tmp_path))
