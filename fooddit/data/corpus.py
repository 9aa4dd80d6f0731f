"""Texts to train a language model on: the captions of a dataset, and lines of text files."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fooddit.data.captions import MAX_CHARACTERS, clean_text
from fooddit.data.catalogue import is_rendered, open_catalogue
from fooddit.data.records import RecordError, open_dataset

# Of a file's lines about one in so many is held out, by a hash of its text: a line that comes twice is on one side.
_HELD = 20


@dataclass(frozen=True)
class Corpus:
    """Texts to train on and held-out ones, none twice; fingerprint: of all of them, in their order."""

    train: tuple[str, ...]
    holdout: tuple[str, ...]
    fingerprint: str


def read_corpus(source: str, files: Sequence[str] = (), cache: str = "") -> Corpus:
    """The captions of `source` (records, "scenes:N", "styles:N", or "" for none), and the lines of UTF-8 `files`.

    A text that training has is not held out: names of dishes are on both sides of a dataset's split.

    Args:
      cache: where records at an address such as gs:// are copied to, as `open_dataset` takes it.

    Raises:
      RecordError: records, or a file, that cannot be read; no text to train on, or none held out.
      CatalogueError: "scenes:" without a number.
    """
    texts: dict[str, dict[str, None]] = {"train": {}, "holdout": {}}
    for split, text in _captions(source, cache):
        texts[split][text] = None
    for file in files:
        for text in _lines(Path(file).expanduser()):
            held = hashlib.sha256(text.encode()).digest()[0] % _HELD == 0
            texts["holdout" if held else "train"][text] = None
    for text in texts["train"]:
        texts["holdout"].pop(text, None)
    for split, found in texts.items():
        if not found:
            raise RecordError(f"{source or 'no dataset'}, {len(files)} text files: no text for {split}")
    digest = hashlib.sha256()
    for split, found in texts.items():
        digest.update("\n".join((split, *found, "")).encode())
    return Corpus(tuple(texts["train"]), tuple(texts["holdout"]), digest.hexdigest())


def _captions(source: str, cache: str) -> Iterator[tuple[str, str]]:
    """(split, text) of every caption."""
    if is_rendered(source):
        # What is drawn need not be drawn for its captions.
        for row in open_catalogue(source):
            for caption in row.captions:
                yield row.split, caption.text
    elif source:
        for split in ("train", "holdout"):
            for caption in open_dataset(source, split, cache).captions():
                yield split, caption.text


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file as captions are cleaned; a long one in pieces of MAX_CHARACTERS."""
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                text = clean_text(line)
                for start in range(0, len(text), MAX_CHARACTERS):
                    yield text[start : start + MAX_CHARACTERS]
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; expected a text file in UTF-8") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it first") from error
