"""What is said of captions that a model does not read whole."""

import dataclasses

from fooddit.data.captions import Caption
from fooddit.models.prompts import LOOKED_AT, cut_captions, reads_most
from fooddit.models.towers import Towers, TowersConfig

SHORT, LONG = "a bowl of soup", "a bowl of soup with noodles, " * 20


def captions(*texts: str) -> list[Caption]:
    return [Caption(text, "dense", "en") for text in texts]


def test_a_caption_longer_than_is_read_is_said_once_with_its_key():
    reader = Towers(TowersConfig(t5="builtin:t5", t5_length=48), image_prompts=False)
    assert reads_most(reader) == "t5"
    assert cut_captions(reader, captions(SHORT, SHORT)) == ""
    said = cut_captions(reader, captions(SHORT, LONG, LONG))
    tokens = reader.counts["t5"](LONG)
    assert said.startswith("2 of the first 3 captions have more than the 48 tokens that the model reads")
    assert f"(up to {tokens})" in said and said.endswith("config.towers.t5_length is how many it reads")
    assert cut_captions(reader, captions(*[SHORT] * LOOKED_AT, LONG)) == ""


def test_the_tower_that_reads_most_decides():
    both = TowersConfig(t5="builtin:t5", t5_length=400, eclip="builtin:eclip")
    assert cut_captions(Towers(both, image_prompts=False), captions(LONG)) == ""
    alone = Towers(dataclasses.replace(both, t5=""), image_prompts=False)
    assert cut_captions(alone, captions(LONG)).endswith("their ends are cut")
