"""A byte-level BPE tokenizer trained on a dataset's own captions, Chinese and English."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

PADDING = "<pad>"
_VERSION = 1

# One piece is a word with the space before it, one digit, one Chinese character, or a run of punctuation; merges never
# cross pieces. A Chinese run is not one piece on purpose: frequent runs would become tokens that bind two attributes
# ("blue" + "round" of "blue round plate"), and a new combination of the two would be spelled with other tokens.
_PIECES = r"\p{Han}| ?[\p{L}\p{M}&&[^\p{Han}]]+| ?\p{N}| ?[^\s\p{L}\p{N}\p{M}]+|\s"
_SPACES = re.compile(r"\s+")
_SPACES_BY_HAN = re.compile(r"(?<=[\u3400-\u9fff]) | (?=[\u3400-\u9fff])")
_STARTS_WITH_HAN = re.compile(r"[\u3400-\u9fff]")


class Tokenizer:
    """Text to token ids of one fixed length. Id 0 is padding; every text can be spelled (bytes are the last resort)."""

    def __init__(self, bpe: tokenizers.Tokenizer):
        self._bpe = bpe

    @property
    def vocab_size(self) -> int:
        return self._bpe.get_vocab_size()

    def tokens(self, text: str) -> list[str]:
        """The pieces of a text as strings, to look at; the mark 'Ġ' stands for a space."""
        return self._bpe.encode(normalize(text), add_special_tokens=False).tokens

    def count(self, text: str) -> int:
        """How many tokens a text has, before any is cut."""
        return len(self._bpe.encode(normalize(text), add_special_tokens=False).ids)

    def encode(self, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 (length,) and mask bool (length,), True where there is a token.

        A text of more than `length` tokens is cut at the end. An empty one gives a mask that is False everywhere: it is
        how a dropped caption (the unconditional example) looks.
        """
        if length < 1:
            raise ValueError(f"token length {length}: expected at least 1")
        found = self._bpe.encode(normalize(text), add_special_tokens=False).ids[:length]
        ids = np.zeros(length, np.int32)
        ids[: len(found)] = found
        return ids, np.arange(length) < len(found)

    def decode(self, ids: Iterable[int]) -> str:
        """The normalised text of token ids; padding is left out."""
        return self._bpe.decode([int(i) for i in ids if i != 0]).strip()

    def to_json(self) -> str:
        return json.dumps({"fooddit_tokenizer": _VERSION, "bpe": json.loads(self._bpe.to_str())}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """A tokenizer from `to_json`'s text. Raises ValueError for anything else, or for another version's."""
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a tokenizer: it is not JSON ({error})") from error
        version = content.get("fooddit_tokenizer") if isinstance(content, dict) else None
        if version != _VERSION:
            raise ValueError(
                f"not a tokenizer of this version: fooddit_tokenizer is {version!r}, expected {_VERSION}; "
                "train it again from the dataset's captions"
            )
        return cls(tokenizers.Tokenizer.from_str(json.dumps(content["bpe"])))

    def save(self, path: str | Path) -> None:
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def train_tokenizer(captions: Iterable[str], vocab_size: int = 2048) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens learned from texts; the same texts give the same tokenizer.

    Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) over bytes. Fewer tokens come out when the texts do not
    hold more pairs that occur twice. Raises ValueError for a vocabulary that cannot hold the bytes and the padding.
    """
    if vocab_size < 257:
        raise ValueError(f"vocab_size {vocab_size}: expected at least 257 (256 bytes and the padding)")
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator((normalize(text) for text in captions), trainer)
    return Tokenizer(bpe)


def normalize(text: str) -> str:
    """Text as the tokenizer sees it: NFKC, lower case, single spaces, none beside Chinese characters.

    A text that starts with a word gets a space in front, so that the first word has the same token as anywhere else.
    """
    text = unicodedata.normalize("NFKC", text).replace(PADDING, "").lower()
    text = _SPACES_BY_HAN.sub("", _SPACES.sub(" ", text).strip())
    return text if not text or _STARTS_WITH_HAN.match(text) else f" {text}"
