"""Prompt alignment on dish scenes: draw held-out combinations from their prompts and let the reader judge."""

import functools

import numpy as np

from fooddit.data.scenes import LANGUAGES, prompt, sample_spec
from fooddit.evaluation.alignment import Alignment, align
from fooddit.evaluation.scene_reader import SceneReader, accuracy
from fooddit.models.drawing import Artist

# Specs of the evaluation; training's scenes come from other seeds.
SEED = 7


def scene_specs(count: int):
    """The first `count` held-out combinations."""
    return [sample_spec(SEED, i, "holdout") for i in range(count)]


def scene_prompts(count: int) -> list[str]:
    """Dense prompts of held-out combinations, English and Chinese in turn."""
    return [prompt(spec, LANGUAGES[i % 2]) for i, spec in enumerate(scene_specs(count))]


def alignment(artist: Artist, params, frozen, count: int, batch_size: int) -> Alignment:
    """Reads `count` pictures, one a held-out combination, in both languages in turn."""
    specs = scene_specs(count)
    images = artist.draw(params, frozen, scene_prompts(count), seeds=range(count), batch_size=batch_size)
    wanted = np.array([spec.indices for spec in specs])
    languages = [LANGUAGES[i % 2] for i in range(count)]
    return align(SceneReader().read(images), wanted, languages=languages, oracle_all_exact=_oracle_all_exact())


@functools.cache
def _oracle_all_exact() -> float:
    return accuracy(SceneReader())["all_exact"]
