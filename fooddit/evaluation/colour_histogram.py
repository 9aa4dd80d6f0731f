"""Retrieval by colour alone, after pictures that the words were said of: what a model that sees more must beat."""

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# Of each of red, green and blue.
LEVELS = 6
_SIDE = 64
# In captions: what was said of fewer pictures than this is hardly believed.
_RIDGE = 10.0
_MOST_WORDS = 2048


class ColourHistogram:
    """Captions and pictures by colour histograms, after training pictures and what is said of them.

    What is expected of a caption is the sum over its words of how the histogram of a picture that the word is said of
    differs from the average picture's: of the word's mean histogram, or, `fitted`, by ridge regression (Hoerl & Kennard
    1970), which shares among words that come together what they have in common. Similarity is the cosine of what is
    expected and a picture's own difference from the average.
    """

    def __init__(
        self,
        histograms: Float[np.ndarray, "pictures colours"],
        captions: Sequence[Sequence[Sequence[Hashable]]],
        *,
        fitted: bool,
    ):
        """`captions`: of each picture, each a list of words; the most frequent 2,048 words count."""
        texts = list(itertools.chain.from_iterable(captions))
        frequent = Counter(itertools.chain.from_iterable(set(words) for words in texts)).most_common(_MOST_WORDS)
        self._words = {word: number for number, (word, _) in enumerate(frequent)}
        bags = self._bags(texts)
        of_caption = np.repeat(np.arange(len(captions)), [len(of_picture) for of_picture in captions])
        self._mean = histograms.mean(axis=0)
        differences = (histograms - self._mean)[of_caption]
        self._usual = bags.mean(axis=0) if fitted else np.zeros(len(self._words), np.float32)
        bags = bags - self._usual
        if fitted:
            ridge = _RIDGE * np.eye(len(self._words), dtype=np.float32)
            self._of_word = np.linalg.solve(bags.T @ bags + ridge, bags.T @ differences)
        else:
            self._of_word = bags.T @ differences / np.maximum(bags.sum(axis=0), 1)[:, None]

    def similarity(
        self, histograms: Float[np.ndarray, "pictures colours"], texts: Sequence[Sequence[Hashable]]
    ) -> Float[np.ndarray, "pictures texts"]:
        """Of pictures and of texts as lists of words."""
        expected = (self._bags(texts) - self._usual) @ self._of_word
        return _unit(histograms - self._mean) @ _unit(expected).T

    def _bags(self, texts: Sequence[Sequence[Hashable]]) -> Float[np.ndarray, "texts words"]:
        """1 where a text has a word."""
        bags = np.zeros((len(texts), len(self._words)), np.float32)
        for row, words in enumerate(texts):
            bags[row, [self._words[word] for word in words if word in self._words]] = 1
        return bags


def colour_histograms(images: Iterable[UInt8[np.ndarray, "height width 3"]]) -> Float[np.ndarray, "pictures colours"]:
    """Square roots of the share of each of LEVELS^3 colours, in pictures shrunk to 64 pixels a side if they are larger.

    The root makes of a scalar product the overlap of two histograms that Bhattacharyya (1943) proposed.
    """
    found = []
    for image in images:
        if max(image.shape[:2]) > _SIDE:
            image = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        red, green, blue = np.moveaxis(image.reshape(-1, 3).astype(np.int32) * LEVELS // 256, 1, 0)
        counts = np.bincount((red * LEVELS + green) * LEVELS + blue, minlength=LEVELS**3)
        found.append(np.sqrt(counts / counts.sum()))
    return np.array(found, np.float32).reshape(-1, LEVELS**3)


def _unit(x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n features"]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
