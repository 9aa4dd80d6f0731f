"""The sample sheet of an evaluation: each picture with its prompt and with what can be said of it."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from fooddit.data.scenes import ATTRIBUTES, SceneSpec, StyledSpec, prompt, styled_prompt
from fooddit.evaluation.nearest import Memorisation, Nearest
from fooddit.evaluation.sample_sheet import Note, sample_sheet
from fooddit.evaluation.scene_reader import SceneReader
from fooddit.evaluation.style_reader import StyleReader, recovered
from fooddit.models.prompts import Prompt

# Three columns of four: a page in landscape.
PICTURES = 12


def scene_sheet(images: np.ndarray, prompts: Sequence[str], specs: Sequence[SceneSpec], step: int) -> Image.Image:
    """The first pictures of held-out combinations, each with the attributes that the reader finds to be others."""
    images, prompts, specs = images[:PICTURES], prompts[:PICTURES], specs[:PICTURES]
    notes = [_compared(spec.indices, found) for spec, found in zip(specs, SceneReader().read(images))]
    right = sum(not note.wrong for note in notes)
    return sample_sheet(
        images,
        prompts,
        title="Combinations never seen in training",
        subtitle=f"Drawn from their prompts by the averaged weights after {step:,} steps, and read back from the "
        f"pixels: {right} of these {len(notes)} have every attribute right.",
        notes=notes,
        english=[prompt(spec, "en") for spec in specs],
    )


def style_sheet(images: np.ndarray, prompts: Sequence[Prompt], wanted: Sequence[StyledSpec], step: int) -> Image.Image:
    """The first pictures of styles never seen, each at the right of its reference, with what the reader finds wrong."""
    images, prompts, wanted = images[:PICTURES], prompts[:PICTURES], wanted[:PICTURES]
    found = recovered(StyleReader().read(images), wanted)
    notes = [_style_note(*row) for row in zip(found.hue, found.texture, found.named_exact)]
    references = [_beside(prompt.image, image) for prompt, image in zip(prompts, images)]
    return sample_sheet(
        np.stack(references),
        [prompt.text for prompt in prompts],
        title="Styles never seen in training",
        subtitle="Left of each pair the reference: glaze and table are to be its own, all else is the text's. "
        f"Drawn by the averaged weights after {step:,} steps, and read back from the pixels: "
        f"{sum(found.style)} of these {len(images)} have the style, {sum(found.named_exact)} all that the text says.",
        notes=notes,
        english=[styled_prompt(spec, "en") for spec in wanted],
    )


def photo_sheet(images: np.ndarray, prompts: Sequence[str], step: int) -> Image.Image:
    """The first pictures of held-out captions."""
    return sample_sheet(
        images[:PICTURES], prompts[:PICTURES], title="Dishes from their captions", subtitle=_drawn(step)
    )


def neighbour_sheet(
    images: np.ndarray, prompts: Sequence[str], step: int, nearest: Sequence[Nearest], summary: Memorisation
) -> Image.Image:
    """The first pictures of held-out captions, each with its distance to the nearest training picture."""
    notes = [Note(f"nearest training picture: {found.distance:.3f}", found.copied or None) for found in nearest]
    return sample_sheet(
        images[:PICTURES],
        prompts[:PICTURES],
        title="Dishes from their captions",
        subtitle=f"{_drawn(step)} {summary.copied_share:.0%} are close to being a copy of one training picture (red). "
        f"Median distance to the nearest one {summary.generated_median:.3f}, of real hold-out pictures "
        f"{summary.holdout_median:.3f}.",
        notes=notes[:PICTURES],
    )


def _drawn(step: int) -> str:
    return f"Captions of hold-out pictures, drawn by the averaged weights after {step:,} steps."


def _beside(reference: np.ndarray | None, image: np.ndarray) -> np.ndarray:
    """Both twice as large: the sheet shrinks what is too wide for it, and enlarges by whole numbers only."""
    size = image.shape[0]
    pair = [image] if reference is None else [cv2.resize(reference, (size, size), interpolation=cv2.INTER_AREA), image]
    return np.concatenate(pair, axis=1).repeat(2, axis=0).repeat(2, axis=1)


def _style_note(hue: bool, texture: bool, named: bool) -> Note:
    wrong = [name for name, right in (("glaze", hue), ("table", texture), ("what the text says", named)) if not right]
    return Note(f"not right: {', '.join(wrong)}" if wrong else "glaze, table and text right", bool(wrong))


def _compared(wanted: Sequence[int], found: Sequence[int]) -> Note:
    pairs = zip(ATTRIBUTES.items(), wanted, found)
    wrong = [(_words(name), _words(values[a]), _words(values[b])) for (name, values), a, b in pairs if a != b]
    if not wrong:
        return Note(f"all {len(ATTRIBUTES)} attributes right", wrong=False)
    if len(wrong) > 2:
        names = ", ".join(name for name, _, _ in wrong)
        return Note(f"{len(wrong)} of {len(ATTRIBUTES)} attributes wrong: {names}", wrong=True)
    return Note("; ".join(f"{name}: asked {asked}, read {read}" for name, asked, read in wrong), wrong=True)


def _words(value) -> str:
    return str(value).replace("_", " ")
