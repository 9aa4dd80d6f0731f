"""Dish scenes: procedural flat-lay pictures; every attribute can be seen, and of styled scenes text says not all."""

from fooddit.data.scenes.rendering import Scene, Segment, render, render_image
from fooddit.data.scenes.spec import ATTRIBUTES, SPLITS, SceneSpec, held_out, sample_spec
from fooddit.data.scenes.styled import render_styled, render_styled_image
from fooddit.data.scenes.styled_wording import styled_captions, styled_prompt
from fooddit.data.scenes.styles import (
    NAMED,
    PICTURES,
    StyledSpec,
    combination_held_out,
    contradict,
    sample_styled,
    style_held_out,
)
from fooddit.data.scenes.textures import TEXTURES
from fooddit.data.scenes.wording import LANGUAGES, captions, prompt

__all__ = [
    "ATTRIBUTES",
    "LANGUAGES",
    "NAMED",
    "PICTURES",
    "SPLITS",
    "TEXTURES",
    "Scene",
    "SceneSpec",
    "Segment",
    "StyledSpec",
    "captions",
    "combination_held_out",
    "contradict",
    "held_out",
    "prompt",
    "render",
    "render_image",
    "render_styled",
    "render_styled_image",
    "sample_spec",
    "sample_styled",
    "style_held_out",
    "styled_captions",
    "styled_prompt",
]
