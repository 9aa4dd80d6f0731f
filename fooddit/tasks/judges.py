"""What can be said of a model's pictures depends on what its data is: scenes, styled scenes, or photos."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from fooddit.data.records import Dataset
from fooddit.models.drawing import Artist
from fooddit.models.prompts import Prompt
from fooddit.parallel.processes import from_first
from fooddit.tasks.neighbours import Neighbours
from fooddit.tasks.scene_alignment import alignment, scene_prompts, scene_specs
from fooddit.tasks.sheets import neighbour_sheet, photo_sheet, scene_sheet, style_sheet
from fooddit.tasks.style_alignment import style_alignment, style_requests


class Measured(NamedTuple):
    """Numbers by name, and JSON for summary.json."""

    scalars: dict[str, float]
    details: dict[str, Any]


class Judge(Protocol):
    """Chooses what is drawn for the sample sheet, and measures what can be."""

    def prompts(self, count: int) -> list[Prompt]:
        """Prompts of samples, at most `count`."""

    def sheet(self, samples: np.ndarray, step: int, neighbours: Neighbours | None) -> Image.Image:
        """A page of pictures drawn for those prompts."""

    def measure(self, artist: Artist, params, frozen, count: int, batch_size: int) -> Measured:
        """Draws `count` pictures more and measures them."""


def find_judge(holdout: Dataset, artist: Artist) -> Judge:
    """The one for a dataset, by its first whole record. Of all processes one reads it: on another's disk a record may
    be damaged."""

    def kind() -> dict[str, str]:
        first = next(iter(holdout), None)
        if first is None or first.attributes is None:
            return {"kind": "photos"}
        return {"kind": "styles" if "hue" in first.attributes else "scenes"}

    found = from_first(kind)["kind"]
    if found == "photos":
        return PhotoJudge(holdout)
    return StyleJudge(artist.reader.reference_size) if found == "styles" else SceneJudge()


class SceneJudge:
    """Every attribute is in the caption and can be read back."""

    def prompts(self, count: int) -> list[Prompt]:
        return [Prompt(text) for text in scene_prompts(count)]

    def sheet(self, samples: np.ndarray, step: int, neighbours: Neighbours | None) -> Image.Image:
        return scene_sheet(samples, scene_prompts(len(samples)), scene_specs(len(samples)), step)

    def measure(self, artist: Artist, params, frozen, count: int, batch_size: int) -> Measured:
        found = alignment(artist, params, frozen, count, batch_size)
        return Measured(found.scalars(), {"alignment": found.to_dict()})


class StyleJudge:
    """A reference shows what the caption cannot say."""

    def __init__(self, reference_size: int):
        self._size = reference_size

    def prompts(self, count: int) -> list[Prompt]:
        return style_requests(count, self._size)[0]

    def sheet(self, samples: np.ndarray, step: int, neighbours: Neighbours | None) -> Image.Image:
        return style_sheet(samples, *style_requests(len(samples), self._size), step)

    def measure(self, artist: Artist, params, frozen, count: int, batch_size: int) -> Measured:
        found = style_alignment(artist, params, frozen, count, batch_size)
        return Measured(found.scalars(), {"style": found.to_dict()})


class PhotoJudge:
    """Nothing can be read back: pictures are shown, beside their nearest training pictures if those were looked for."""

    def __init__(self, holdout: Dataset):
        self._holdout = holdout
        self._prompts: list[Prompt] | None = None

    def prompts(self, count: int) -> list[Prompt]:
        if self._prompts is None or len(self._prompts) < count:
            texts = from_first(lambda: {"texts": _captions(self._holdout, count)})["texts"]
            self._prompts = [Prompt(text) for text in texts]
        return self._prompts[:count]

    def sheet(self, samples: np.ndarray, step: int, neighbours: Neighbours | None) -> Image.Image:
        texts = [prompt.text for prompt in self.prompts(len(samples))]
        if neighbours is None:
            return photo_sheet(samples, texts, step)
        return neighbour_sheet(samples, texts, step, neighbours.nearest, neighbours.summary)

    def measure(self, artist: Artist, params, frozen, count: int, batch_size: int) -> Measured:
        return Measured({}, {})


def _captions(dataset: Dataset, count: int) -> Sequence[str]:
    """The first captions of records, one a dish."""
    chosen: dict[str, str] = {}
    for record in dataset:
        if len(chosen) >= count:
            break
        if record.captions:
            chosen.setdefault(record.dish_id, record.captions[0].text)
    return list(chosen.values())
