"""How well pictures fit their prompts by a CLIP: the cosine of their vectors, beside real photos and wrong prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fooddit.evaluation.bootstrap import Estimate, mean_estimate


@dataclass(frozen=True)
class ClipAlignment:
    """Mean cosines (Hessel et al. 2021, arXiv:2104.08718, without its factor and its cut at zero).

    Attributes:
      pictures: of pictures and their prompts; real: of the dish's own photo and the same prompt (None without photos).
      shuffled: of pictures and other pictures' prompts, which a picture that shows its prompt is above.
    """

    pictures: Estimate
    shuffled: Estimate
    real: Estimate | None

    def to_dict(self) -> dict:
        """As JSON."""
        names = ("pictures", "shuffled", "real")
        return {name: found.to_dict() for name in names if (found := getattr(self, name)) is not None}


def clip_alignment(
    images: Float[np.ndarray, "n features"],
    texts: Float[np.ndarray, "n features"],
    prompts: Sequence[int],
    photos: Float[np.ndarray, "m features"] | None = None,
    photo_texts: Float[np.ndarray, "m features"] | None = None,
) -> ClipAlignment:
    """Of pictures' and prompts' vectors in pairs. `prompts` numbers the prompts: those of one are resampled together.

    A picture's wrong prompts are all the others that are not its own.
    """
    _, numbers, counts = np.unique(np.asarray(prompts), return_inverse=True, return_counts=True)
    own, mine = cosines(images, texts), counts[numbers]
    others = _unit(images) @ _unit(texts).sum(axis=0) - mine * own
    has_photos = photos is not None and len(photos) > 0
    return ClipAlignment(
        pictures=mean_estimate(own, numbers),
        shuffled=mean_estimate(others / np.maximum(len(own) - mine, 1), numbers),
        real=mean_estimate(cosines(photos, photo_texts)) if has_photos else None,
    )


def cosines(a: Float[np.ndarray, "n features"], b: Float[np.ndarray, "n features"]) -> Float[np.ndarray, " n"]:
    """Of pairs; 0 where one is zero, as an empty prompt's vector is."""
    return (_unit(a) * _unit(b)).sum(axis=1)


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(lengths > 0, lengths, 1)
