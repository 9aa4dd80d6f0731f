"""The tokenizer: every text can be spelled, words are tokens, and training is deterministic."""

import subprocess
import sys

import numpy as np
import pytest

from fooddit.data.tokenizer import Tokenizer, normalize, train_tokenizer

COLOURS = ("red", "blue", "green")
KINDS = ("dumplings", "noodles", "pizza")
ZH_COLOURS, ZH_KINDS = ("红色", "蓝色", "绿色"), ("饺子", "面条", "披萨")
TEXTS = [f"Three {kind}, on a {colour} plate." for kind in KINDS for colour in COLOURS] + [
    f"{colour}盘子里有三个{kind}，放在木桌上。" for kind in ZH_KINDS for colour in ZH_COLOURS
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 600)


def test_words_are_single_tokens(tokenizer):
    tokens = tokenizer.tokens("Three dumplings, on a blue plate.")
    assert tokens == ["Ġthree", "Ġdumplings", ",", "Ġon", "Ġa", "Ġblue", "Ġplate", "."]


def test_chinese_characters_are_tokens_in_every_context(tokenizer):
    # An attribute is spelled alike wherever it stands, so a combination never seen in training is made of known tokens.
    alone = tokenizer.tokens("饺子")
    assert len(alone) == 2
    assert tokenizer.tokens("蓝色饺子") == tokenizer.tokens("蓝色") + alone
    assert tokenizer.tokens("blue 饺子, three")[1:3] == alone


def test_first_word_is_like_any_other(tokenizer):
    assert tokenizer.tokens("Pizza")[0] == tokenizer.tokens("three pizza")[1] == "Ġpizza"


@pytest.mark.parametrize("text", ["饺子 42", "crème brûlée", "🍕🍕", "\x00\x07 tab\there", "مرحبا", "<pad>", "a" * 100])
def test_any_text_comes_back(tokenizer, text):
    ids, mask = tokenizer.encode(text, 256)
    assert tokenizer.decode(ids[mask]) == normalize(text).strip()
    assert (ids[mask] != 0).all() and (ids[~mask] == 0).all()


def test_shape_truncation_and_empty(tokenizer):
    ids, mask = tokenizer.encode("three dumplings on a plate", 3)
    assert ids.dtype == np.int32 and ids.shape == (3,) and mask.dtype == bool and mask.all()
    assert tokenizer.decode(ids) == "three dumplings on"
    for empty in ("", "   \n"):
        ids, mask = tokenizer.encode(empty, 5)
        assert not mask.any() and not ids.any()
    with pytest.raises(ValueError, match="at least 1"):
        tokenizer.encode("x", 0)


def test_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.to_json() == tokenizer.to_json()
    np.testing.assert_array_equal(loaded.encode("蓝色 pizza", 8)[0], tokenizer.encode("蓝色 pizza", 8)[0])


@pytest.mark.parametrize("content", ["", "[]", '{"fooddit_tokenizer": 99}'])
def test_other_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json: not a tokenizer"):
        Tokenizer.load(path)


def test_training_is_deterministic_across_processes(tokenizer):
    code = f"from fooddit.data.tokenizer import train_tokenizer; print(train_tokenizer({TEXTS!r}, 600).to_json())"
    for hash_seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": "utf-8"},
        )
        assert found.stdout.strip() == tokenizer.to_json()


def test_vocabulary_size():
    assert train_tokenizer(TEXTS, 300).vocab_size == 300
    with pytest.raises(ValueError, match="at least 257"):
        train_tokenizer(TEXTS, 100)
