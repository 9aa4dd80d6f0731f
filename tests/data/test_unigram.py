"""The tokenizer spells every text, learns words, keeps Chinese characters apart, and is laid out as T5's are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fooddit.data.unigram import (
    LEAST_VOCABULARY,
    SENTINELS,
    from_json,
    sentinel,
    spelled_as_bytes,
    to_json,
    train_unigram,
)

TEXTS = [
    "a round blue plate of noodles",
    "a square blue plate of dumplings",
    "蓝色圆盘里是饺子",
    "蓝色方盘里是面条",
] * 5


@pytest.fixture(scope="module")
def words():
    return train_unigram(TEXTS, 600)


def test_words_are_one_piece_and_chinese_characters_stand_alone(words):
    assert words.encode("a blue plate of noodles").tokens == ["▁a", "▁blue", "▁plate", "▁of", "▁noodles", "</s>"]
    assert words.encode("蓝色圆盘里").tokens == ["▁", "蓝", "色", "圆", "盘", "里", "</s>"]


def test_ids_are_t5s(words):
    assert [words.id_to_token(i) for i in (0, 1, 2, 3, 258)] == ["<pad>", "</s>", "<unk>", "<0x00>", "<0xFF>"]
    last = words.get_vocab_size() - 1
    assert [words.token_to_id(sentinel(i)) for i in range(SENTINELS)] == list(range(last, last - SENTINELS, -1))
    assert words.encode("noodles <extra_id_7> plate").tokens == ["▁noodles", "<extra_id_7>", "▁plate", "</s>"]


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20))
@settings(max_examples=60, deadline=None)
def test_every_text_can_be_spelled_and_read_again(words, text):
    wanted = words.normalizer.normalize_str(text.replace("▁", "").replace("<", "").replace("�", ""))
    found = words.encode(wanted, add_special_tokens=False)
    assert words.token_to_id("<unk>") not in found.ids
    assert words.decode(found.ids) == words.normalizer.normalize_str(wanted)


def test_bytes_spell_what_was_never_seen(words):
    assert spelled_as_bytes(words, [*TEXTS, "龘"]) == {"龘"} and not spelled_as_bytes(words, TEXTS)
    assert words.encode("龘", add_special_tokens=False).tokens == ["▁", "<0xE9>", "<0xBE>", "<0x98>"]
    nothing = train_unigram([], LEAST_VOCABULARY)
    assert nothing.decode(nothing.encode("noodles 面").ids) == "noodles面"


def test_the_same_texts_give_the_same_tokenizer_and_json_keeps_it(words):
    assert to_json(train_unigram(TEXTS, 600)) == to_json(words)
    again = from_json(to_json(words))
    assert again.encode("three noodles").ids == words.encode("three noodles").ids


def test_it_keeps_within_the_vocabulary_however_many_characters_there_are():
    characters = [chr(0x4E00 + i) * 3 for i in range(2000)]
    words = train_unigram(characters + TEXTS, LEAST_VOCABULARY + 20)
    assert words.get_vocab_size() <= LEAST_VOCABULARY + 20
    spelled = spelled_as_bytes(words, characters + TEXTS)
    assert all(words.token_to_id(c) is None for c in spelled) and len(spelled) > 1900
    assert words.encode(characters[-1]).tokens[-2].startswith("<0x") and characters[-1][0] in spelled
    with pytest.raises(ValueError, match=f"a vocabulary of 300: expected at least {LEAST_VOCABULARY}"):
        train_unigram(TEXTS, 300)
