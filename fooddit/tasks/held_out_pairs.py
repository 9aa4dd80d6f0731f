"""Held-out pictures with their captions, read once; what the model and the colour histograms make of them."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from fooddit.data.captions import Caption
from fooddit.data.records import Dataset
from fooddit.evaluation.colour_histogram import ColourHistogram, colour_histograms
from fooddit.evaluation.real_pictures import blocks_for_all
from fooddit.evaluation.retrieval import Gallery, Report
from fooddit.parallel.processes import from_first

# Name of a baseline, and whether its colours are fitted.
BASELINES = {"colours (mean)": False, "colours (fitted)": True}
# (pictures, texts) -> similarities.
Similarity = Callable[[Sequence[str]], Float[np.ndarray, "pictures texts"]]


class HeldOut(NamedTuple):
    """Pictures, cut to squares of one size, and by language what is said of them."""

    pictures: UInt8[np.ndarray, "n size size 3"]
    galleries: dict[str, Gallery]

    def reports(self, similarity: Similarity) -> dict[str, Report]:
        """By language; `similarity` is of all pictures with some texts."""
        return {
            language: gallery.report(similarity(gallery.texts), similarity(gallery.classes))
            for language, gallery in self.galleries.items()
        }


def read_held_out(dataset: Dataset, count: int, size: int) -> HeldOut:
    """The first `count` held-out records; one that is damaged is a black picture without captions.

    A picture's text in a language is one of its dense captions, in turn, or of the short ones if there are none. Its
    class is its first short caption in that language: a scene's kind of dish, a photo's title.
    """
    numbers = range(min(count, len(dataset)))
    pictures = np.zeros((len(numbers), size, size, 3), np.uint8)
    whole: list[int] = []
    for block, images in blocks_for_all(dataset, numbers, (size, size)):
        pictures[block] = images
        whole += block.tolist()

    def said() -> dict[str, dict]:
        captions: list[tuple[Caption, ...]] = [()] * len(numbers)
        for number, record in zip(whole, dataset.read_whole(whole), strict=True):
            captions[number] = record.captions
        return _said(captions)

    # As of the pictures, of all processes one says what there is to encode: on another's disk a record may be damaged.
    return HeldOut(pictures, {name: Gallery.from_json(one) for name, one in from_first(said).items()})


def _said(captions: Sequence[Sequence[Caption]]) -> dict[str, dict]:
    languages = sorted({caption.language for caption in itertools.chain.from_iterable(captions)})
    return {language: _gallery(captions, language).to_json() for language in languages}


def _gallery(captions: Sequence[Sequence[Caption]], language: str) -> Gallery:
    texts, classes = [], set()
    for number, all_of_picture in enumerate(captions):
        said = [caption for caption in all_of_picture if caption.language == language]
        short = [caption.text for caption in said if caption.style == "short"]
        dense = [caption.text for caption in said if caption.style == "dense"] or short
        texts.append(dense[number % len(dense)] if dense else "")
        classes.update(short[:1])
    true = [frozenset(caption.text for caption in all_of_picture) for all_of_picture in captions]
    return Gallery(texts, sorted(classes), true)


def baseline_reports(
    held_out: HeldOut, train_set: Dataset, count: int, words: Callable[[str], Sequence[int]]
) -> dict[str, dict[str, Report]]:
    """Of each of BASELINES, after the first `count` training pictures and all that is said of them."""
    images, captions = [], []
    for number in range(min(count, len(train_set))):
        [record] = train_set.read_whole([number])
        image = None if record is None else train_set.decode(number, record, 64, 64)
        if image is not None:
            images.append(image)
            captions.append([words(caption.text) for caption in record.captions])
    histograms, of_held_out = colour_histograms(images), colour_histograms(held_out.pictures)
    found = {}
    for name, fitted in BASELINES.items():
        similarity = partial(ColourHistogram(histograms, captions, fitted=fitted).similarity, of_held_out)
        found[name] = held_out.reports(lambda texts, score=similarity: score([words(text) for text in texts]))
    return found
