"""How much of a prompt is in the picture, attribute by attribute, with what chance and wrong prompts would score."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Int

from fooddit.data.scenes import ATTRIBUTES


@dataclass(frozen=True)
class Alignment:
    """Shares in [0, 1].

    Attributes:
      all_exact: pictures in which every attribute is as asked; per_attribute: the same for each on its own.
      interval: the 95 % Wilson interval of all_exact.
      per_language: all_exact and its interval of the prompts of each language.
      chance: the expected share of pictures with everything right, of a draw that does not know the prompt.
      chance_per_attribute: the same for each attribute.
      shuffled_all_exact, shuffled_per_attribute: the same pictures against other pictures' prompts (must fail).
      oracle_all_exact: the reader itself on real renders, the most that could be measured.
      n: pictures.
    """

    all_exact: float
    interval: tuple[float, float]
    per_language: dict[str, tuple[float, float, float]]
    per_attribute: dict[str, float]
    chance: float
    chance_per_attribute: dict[str, float]
    shuffled_all_exact: float
    shuffled_per_attribute: dict[str, float]
    oracle_all_exact: float
    n: int

    def to_dict(self) -> dict:
        """As JSON."""
        return asdict(self)

    def scalars(self) -> dict[str, float]:
        """For the metrics: align/all_exact, align/shuffled_all_exact, align/<attribute>."""
        per_attribute = {f"align/{name}": value for name, value in self.per_attribute.items()}
        per_language = {f"align/all_exact_{name}": share for name, (share, _, _) in self.per_language.items()}
        return {
            "align/all_exact": self.all_exact,
            **per_language,
            "align/shuffled_all_exact": self.shuffled_all_exact,
            "align/oracle_all_exact": self.oracle_all_exact,
            **per_attribute,
        }


def align(
    read: Int[np.ndarray, "pictures attributes"],
    wanted: Int[np.ndarray, "pictures attributes"],
    *,
    languages: Sequence[str] = (),
    oracle_all_exact: float,
) -> Alignment:
    """Compares what was read from pictures with what their prompts asked for (indices into ATTRIBUTES' values), the
    prompts being in `languages`, one a picture, if they are given."""
    sizes = [len(values) for values in ATTRIBUTES.values()]
    right = read == wanted
    # Each picture against the prompt of the next one: no picture keeps its own.
    shuffled = read == np.roll(wanted, 1, axis=0)
    exact = right.all(axis=1)
    return Alignment(
        all_exact=float(exact.mean()),
        interval=wilson(int(exact.sum()), len(exact)),
        per_language={name: _of_language(exact[np.array(languages) == name]) for name in sorted(set(languages))},
        per_attribute=dict(zip(ATTRIBUTES, right.mean(axis=0).tolist())),
        chance=float(np.prod([1 / size for size in sizes])),
        chance_per_attribute={name: 1 / size for name, size in zip(ATTRIBUTES, sizes)},
        shuffled_all_exact=float(shuffled.all(axis=1).mean()),
        shuffled_per_attribute=dict(zip(ATTRIBUTES, shuffled.mean(axis=0).tolist())),
        oracle_all_exact=oracle_all_exact,
        n=len(read),
    )


def _of_language(exact: np.ndarray) -> tuple[float, float, float]:
    return float(exact.mean()), *wilson(int(exact.sum()), len(exact))


def wilson(successes: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson 1927), 95 % by default."""
    share = successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))
