"""Zero-shot classification and retrieval: from similarities and what is right, shares with intervals, beside chance."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float

from fooddit.evaluation.alignment import wilson

KS = (1, 5, 10)


@dataclass(frozen=True)
class Recall:
    """Attributes:
    at: k -> share of queries with something right among their k most similar items.
    intervals: k -> the 95 % Wilson interval of that share, over queries.
    chance: k -> what a random order would score on the same queries.
    queries, items: how many there were. Queries that nothing is right for are left out.
    """

    at: dict[int, float]
    intervals: dict[int, tuple[float, float]]
    chance: dict[int, float]
    queries: int
    items: int


def recall(
    similarity: Float[np.ndarray, "queries items"], right: Bool[np.ndarray, "queries items"], ks: Sequence[int] = KS
) -> Recall | None:
    """Recall at each k; None if no query has anything that is right.

    A query may have several right items: a caption that is true of several pictures counts as found by any of them.
    Items that are equally similar are taken in a random order: the rank is that expected of the first right one.
    """
    asked = right.any(axis=1)
    if not asked.any():
        return None
    similarity, right = similarity[asked], right[asked]
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    above = ((similarity > best) & ~right).sum(axis=1)
    tied = (similarity == best) & ~right
    rank = above + tied.sum(axis=1) / (1 + ((similarity == best) & right).sum(axis=1))
    count, items = right.shape
    found = {k: int((rank < k).sum()) for k in ks}
    return Recall(
        at={k: found[k] / count for k in ks},
        intervals={k: wilson(found[k], count) for k in ks},
        chance={k: float(_chance(right.sum(axis=1), items, k).mean()) for k in ks},
        queries=count,
        items=items,
    )


def _chance(right: np.ndarray, items: int, k: int) -> np.ndarray:
    """That one of `right` items is among k drawn of all: one minus the chance that each draw misses."""
    missed = np.ones(len(right))
    for drawn in range(min(k, items)):
        missed *= np.maximum(items - right - drawn, 0) / (items - drawn)
    return 1 - missed


@dataclass(frozen=True)
class Report:
    """How well pictures and captions of one language find each other.

    Attributes:
      zero_shot: at 1, pictures as queries and all classes' names as items; the rest is retrieval both ways.
    """

    zero_shot: Recall | None
    text_to_image: Recall | None
    image_to_text: Recall | None

    def to_dict(self) -> dict:
        """As JSON."""
        return asdict(self)

    def scalars(self, language: str) -> dict[str, float]:
        """For the metrics: zero_shot/LANGUAGE, text_to_image/LANGUAGE@k, image_to_text/LANGUAGE@k."""
        found = {f"zero_shot/{language}": self.zero_shot.at[1]} if self.zero_shot else {}
        for name in ("text_to_image", "image_to_text"):
            if result := getattr(self, name):
                found |= {f"{name}/{language}@{k}": share for k, share in result.at.items()}
        return found


@dataclass(frozen=True)
class Gallery:
    """Held-out pictures and what one language says of them.

    Attributes:
      texts: a caption of each picture, "" where there is none in this language.
      classes: names of what is to be told apart, each once.
      true: for each picture the texts that are true of it.
    """

    texts: list[str]
    classes: list[str]
    true: list[frozenset[str]]

    def to_json(self) -> dict:
        """For `from_json`."""
        return {"texts": self.texts, "classes": self.classes, "true": [sorted(one) for one in self.true]}

    @classmethod
    def from_json(cls, values: dict) -> "Gallery":
        return cls(values["texts"], values["classes"], [frozenset(one) for one in values["true"]])

    def report(
        self,
        text_similarity: Float[np.ndarray, "pictures pictures"],
        class_similarity: Float[np.ndarray, "pictures classes"],
    ) -> Report:
        """`text_similarity` is of each picture and each of `texts`, `class_similarity` of each and each of `classes`.

        All pictures are items, also those without a caption in this language.
        """
        said = np.array([bool(text) for text in self.texts])
        right = _true_of(self.true, self.texts)[:, said]
        of_class = _true_of(self.true, self.classes)
        return Report(
            zero_shot=recall(class_similarity, of_class, (1,)) if len(self.classes) > 1 else None,
            text_to_image=recall(text_similarity[:, said].T, right.T),
            image_to_text=recall(text_similarity[:, said], right),
        )


def _true_of(true: Sequence[frozenset[str]], texts: Sequence[str]) -> Bool[np.ndarray, "pictures texts"]:
    return np.array([[text in one for text in texts] for one in true], bool).reshape(len(true), len(texts))


def table(reports: dict[str, dict[str, Report]]) -> str:
    """A line for each language and measure; `reports` by who made them, the model first, and by language.

    The model's share with its interval, that of each baseline, and chance.
    """
    (first, ours), *baselines = reports.items()
    columns = "".join(f"{name:>18}" for name, _ in baselines)
    lines = [f"{'':24} {first:>8} {'95 % interval':>16}{columns} {'chance':>8} {'queries':>8} {'items':>6}"]
    for language, report in ours.items():
        for name in ("zero_shot", "text_to_image", "image_to_text"):
            result = getattr(report, name)
            for k in result.at if result else ():
                low, high = result.intervals[k]
                what = f"{name.replace('_', ' ')} {language}" + ("" if name == "zero_shot" else f" @{k}")
                others = "".join(f"{getattr(other[language], name).at[k]:18.3f}" for _, other in baselines)
                lines.append(
                    f"{what:24} {result.at[k]:8.3f} {f'{low:.3f} to {high:.3f}':>16}{others} "
                    f"{result.chance[k]:8.3f} {result.queries:8} {result.items:6}"
                )
    return "\n".join(lines)
