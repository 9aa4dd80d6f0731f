"""Image prompts on styled scenes: is what text cannot name taken from the reference, and the text still obeyed?"""

import functools
from dataclasses import asdict, dataclass

import numpy as np

from fooddit.data.scenes import (
    LANGUAGES,
    PICTURES,
    StyledSpec,
    contradict,
    render_styled_image,
    sample_styled,
    styled_prompt,
)
from fooddit.evaluation.alignment import wilson
from fooddit.evaluation.style_reader import StyleReader, accuracy, chance, recovered
from fooddit.models.drawing import Artist
from fooddit.models.prompts import Prompt
from fooddit.models.text_to_image import SamplingConfig

# Specs of the evaluation; training's come from other seeds.
SEED = 7


@dataclass(frozen=True)
class StyleAlignment:
    """Shares in [0, 1] of pictures drawn after a reference of a style never seen, each asked by a text that contradicts
    the reference in every attribute that text names.

    Attributes:
      shares: "hue" within 10 degrees, "texture", "style" (both), each named attribute, "named_exact" (all of them),
        "all_exact".
      style_interval, named_interval: 95 % Wilson intervals of style and named_exact.
      copied: pictures whose named attributes are all the reference's and not the text's.
      chance: of a draw that knows neither. oracle: of the reader on real renders.
      n: pictures.
    """

    shares: dict[str, float]
    style_interval: tuple[float, float]
    named_interval: tuple[float, float]
    copied: float
    chance: dict[str, float]
    oracle: dict[str, float]
    n: int

    def to_dict(self) -> dict:
        """As JSON."""
        return asdict(self)

    def scalars(self) -> dict[str, float]:
        """For the metrics: style/<share>, style/copied."""
        return {f"style/{name}": value for name, value in self.shares.items()} | {"style/copied": self.copied}


def style_references(count: int) -> list[StyledSpec]:
    """Pictures of held-out styles, one a style."""
    return [sample_styled(SEED, i * PICTURES, "holdout") for i in range(count)]


def style_requests(count: int, size: int) -> tuple[list[Prompt], list[StyledSpec]]:
    """Prompts, English and Chinese in turn, with a reference of `size` pixels (none for 0), and what they ask for."""
    references = style_references(count)
    wanted = [contradict(reference) for reference in references]
    pictures = [render_styled_image(spec, size) if size else None for spec in references]
    texts = [styled_prompt(spec, LANGUAGES[i % 2]) for i, spec in enumerate(wanted)]
    return [Prompt(*pair) for pair in zip(texts, pictures, strict=True)], wanted


def style_alignment(
    artist: Artist, params, frozen, count: int, batch_size: int, sampling: SamplingConfig | None = None
) -> StyleAlignment:
    """Draws and reads `count` pictures, one a style. `sampling`: None is the config's; image_scale 0 is text alone."""
    prompts, wanted = style_requests(count, artist.reader.reference_size)
    images = artist.draw(params, frozen, prompts, range(count), batch_size=batch_size, sampling=sampling)
    reading = StyleReader().read(images)
    found = recovered(reading, wanted)
    of_reference = recovered(reading, style_references(count))
    return StyleAlignment(
        shares=found.shares(),
        style_interval=wilson(int(found.style.sum()), count),
        named_interval=wilson(int(found.named_exact.sum()), count),
        copied=float(np.mean(of_reference.named_exact)),
        chance=chance(),
        oracle=_oracle(),
        n=count,
    )


@functools.cache
def _oracle() -> dict[str, float]:
    return accuracy(StyleReader())
