"""Dish scenes: a procedural data set of flat-lay pictures in which every attribute is visible."""

from fooddit.data.scenes.rendering import Scene, Segment, render, render_image
from fooddit.data.scenes.spec import ATTRIBUTES, SPLITS, SceneSpec, held_out, sample_spec
from fooddit.data.scenes.wording import LANGUAGES, captions, prompt

__all__ = [
    "ATTRIBUTES",
    "LANGUAGES",
    "SPLITS",
    "Scene",
    "SceneSpec",
    "Segment",
    "captions",
    "held_out",
    "prompt",
    "render",
    "render_image",
    "sample_spec",
]
