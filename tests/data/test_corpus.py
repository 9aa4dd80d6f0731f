"""Which texts are for training and which are held out."""

import pytest

from fooddit.data.catalogue import CatalogueError
from fooddit.data.corpus import read_corpus
from fooddit.data.records import RecordError, open_dataset
from fooddit.data.scenes import captions, sample_spec
from tests.data.made import dataset, record


def test_captions_of_scenes_are_those_that_would_be_rendered():
    corpus = read_corpus("scenes:20")
    wanted = {caption.text for i in range(20) for caption in captions(sample_spec(0, i, "train"))}
    assert set(corpus.train) == wanted and len(corpus.train) == len(wanted)
    held = {caption.text for i in range(256) for caption in captions(sample_spec(0, i, "holdout"))}
    assert set(corpus.holdout) == held - wanted
    assert read_corpus("scenes:20") == corpus and read_corpus("scenes:21").fingerprint != corpus.fingerprint


def test_captions_of_records_are_on_the_side_of_their_record(tmp_path):
    dataset(tmp_path / "records", [record(i, 8, 8) for i in range(4)], [record(i, 8, 8) for i in range(4, 6)])
    corpus = read_corpus(str(tmp_path / "records"))
    for split in ("train", "holdout"):
        found = {caption.text for caption in open_dataset(tmp_path / "records", split).captions()}
        assert found and set(getattr(corpus, split)) == found


def test_lines_of_files_are_texts_and_about_one_in_twenty_is_held_out(tmp_path):
    path = tmp_path / "recipes.txt"
    lines = [f"第{i}步：  boil the noodles {i}" for i in range(1000)]
    path.write_text("\n\n".join([*lines, lines[0]]), encoding="utf-8")
    corpus = read_corpus("", [str(path)])
    assert set(corpus.train) | set(corpus.holdout) == {line.replace("  ", " ") for line in lines}
    assert not set(corpus.train) & set(corpus.holdout) and 25 < len(corpus.holdout) < 90
    # A line is on the same side when others come.
    path.write_text("\n".join([*lines, "one more"]), encoding="utf-8")
    assert set(read_corpus("", [str(path)]).holdout) - {"one more"} == set(corpus.holdout)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(RecordError, match="none.txt: No such file"):
        read_corpus("scenes:2", [str(tmp_path / "none.txt")])
    (tmp_path / "latin.txt").write_bytes("cr\xeape\n".encode("latin-1"))
    with pytest.raises(RecordError, match="latin.txt: not UTF-8"):
        read_corpus("scenes:2", [str(tmp_path / "latin.txt")])
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(RecordError, match="no dataset, 1 text files: no text for train"):
        read_corpus("", [str(tmp_path / "empty.txt")])
    with pytest.raises(CatalogueError, match="expected scenes:N"):
        read_corpus("scenes:many")
