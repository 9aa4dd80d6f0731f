"""The pictures of an evaluation's page: beside real photos, by their fit, seed by seed, and the nearest trained on."""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from fooddit.evaluation.measurements import Material
from fooddit.evaluation.nearest import Nearest, nearest_images
from fooddit.evaluation.picture_folder import read_image
from fooddit.evaluation.real_pictures import real_pictures

_BESIDE, _EXTREMES, _DIVERSE, _NEAREST = 12, 6, 4, 8
# Sides in pixels: what is shown without smoothing, and the most that goes into the page.
_SMALL, _LARGE = 128, 384

Rows = Sequence[Mapping]


class Gallery:
    """Sections of pictures, from the rows of a report ("samples")."""

    def __init__(self, material: Material, samples: Rows):
        self._material, self._samples = material, samples
        self._counted = [row for row in samples if not row["repeat"]]

    def beside_photos(self) -> str:
        """Pictures, each beside a photo of the dish whose caption it was drawn from, spread over the whole set."""
        rows = [row for row in self._counted if row["record_number"] is not None]
        rows = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, _BESIDE).round().astype(int))] if rows else []
        numbers = [row["record_number"] for row in rows]
        found = real_pictures(self._material.holdout_set, numbers, self._material.shape)
        photos = {real.number: real.image for real in found}
        cards = [
            _card([self._image(row), photos[row["record_number"]]], row["prompt"])
            for row in rows
            if row["record_number"] in photos
        ]
        note = "Left: drawn from the caption below. Right: the held-out photo that the caption is of."
        return _section("Beside the real photo", note, cards, "pairs")

    def extremes(self, named: Callable[[float], str]) -> str:
        """The pictures that fit their prompts best and worst; `named` writes a fit in words."""
        rows = sorted((row for row in self._counted if row["fit"] is not None), key=lambda row: -row["fit"])
        count = min(_EXTREMES, len(rows) // 2)
        if not count or rows[0]["fit"] == rows[-1]["fit"]:
            return ""
        parts = []
        for title, part in (("Closest to their prompts", rows[:count]), ("Furthest from them", rows[::-1][:count])):
            cards = [_card([self._image(row)], row["prompt"], named(row["fit"])) for row in part]
            parts.append(f"<h3>{title}</h3>{_cards(cards, 'singles')}")
        return f"<h2>Best and worst by fit</h2>{''.join(parts)}"

    def seeds(self) -> str:
        """Prompts that were drawn from several seeds."""
        groups: dict[tuple, list] = {}
        for row in self._samples:
            if row["prompt"] is not None:
                groups.setdefault((row["record"], row["prompt"]), []).append(row)
        several = [rows for rows in groups.values() if len(rows) > 1][:_DIVERSE]
        cards = [_card([self._image(row) for row in rows[:4]], rows[0]["prompt"]) for rows in several]
        return _cards(cards, "fours") if cards else ""

    def nearest(self) -> str:
        """The pictures that are most like one training picture, beside it."""
        rows = [row for row in self._counted if row["nearest"] is not None]
        rows = sorted(rows, key=lambda row: row["nearest"]["ratio"])[:_NEAREST]
        if not rows:
            return ""
        names = ("index", "id", "crop", "distance", "ratio")
        found = [Nearest(**{name: row["nearest"][name] for name in names}) for row in rows]
        others = nearest_images(found, self._material.train_set, self._material.shape)
        return _cards(
            [
                _card(
                    [self._image(row), other],
                    row["prompt"],
                    f"distance {neighbour.distance:.3f}, ratio {neighbour.ratio:.2f}" + ", a copy?" * neighbour.copied,
                )
                for row, neighbour, other in zip(rows, found, others)
            ],
            "pairs",
        )

    def _image(self, row: Mapping) -> np.ndarray:
        return read_image(self._material.folder / row["file"])


def _section(title: str, note: str, cards: list[str], kind: str) -> str:
    return f'<h2>{title}</h2><p class="note">{note}</p>{_cards(cards, kind)}' if cards else ""


def _cards(cards: Sequence[str], kind: str) -> str:
    return f'<div class="cards {kind}">{"".join(cards)}</div>'


def _card(images: Sequence[np.ndarray], prompt: str | None, about: str = "") -> str:
    words = html.escape(prompt or "")
    pictures = "".join(_picture(image, words) for image in images)
    below = f"<small>{html.escape(about)}</small>" if about else ""
    # A long caption is cut by the page's style; its title shows all of it.
    return f'<figure class="card"><div>{pictures}</div><figcaption title="{words}">{words}</figcaption>{below}</figure>'


def _picture(image: np.ndarray, words: str) -> str:
    picture, data = Image.fromarray(image), io.BytesIO()
    small = max(picture.size) <= _SMALL
    if small:
        picture.save(data, "PNG", optimize=True)
    else:
        picture.thumbnail((_LARGE, _LARGE), Image.Resampling.LANCZOS)
        picture.save(data, "JPEG", quality=90)
    kind, drawn = ("png", ' class="small"') if small else ("jpeg", "")
    content = base64.b64encode(data.getvalue()).decode()
    return f'<img{drawn} alt="{words[:80]}" src="data:image/{kind};base64,{content}">'
