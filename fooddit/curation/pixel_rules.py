"""Scores of a picture that its pixels alone give: size, blur, exposure, frames, seams. Pure functions of a View."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from fooddit.curation.view import View

# Of the blur that is added to find out how much there was, in pixels of the small copy.
_REBLUR = 1.5
# What is steeper may be an edge, in luma a pixel; below it is noise. Edges are the steepest of these.
_NOISE = 0.015
_FEWEST_EDGES = 200
# Luma and colours that differ by less, of 255, are one colour: what JPEG leaves of a flat area.
_ALIKE = 10.0
# Of a seam, in any channel.
_STEP = 8


def short_side(view: View) -> float:
    """Of the picture as it is, in pixels."""
    return float(min(view.shape))


def aspect_ratio(view: View) -> float:
    """Longer side over shorter one."""
    return max(view.shape) / min(view.shape)


def blur_radius(view: View) -> float:
    """Standard deviation of the blur of the sharpest edges, in pixels of the small copy; infinite without any edge.

    Each edge is blurred once more by a known amount: the steeper it was, the more it loses (Zhuo & Sim 2011, "Defocus
    map estimation from a single image", eq. 4). The sharpest fifth decides, so that a blurred background is no fault.
    """
    grey = cv2.GaussianBlur(view.grey, (0, 0), 0.6)  # Less of single noisy pixels.
    steep, again = _slope(grey), _slope(cv2.GaussianBlur(grey, (0, 0), _REBLUR))
    edges = (steep > max(_NOISE, 0.3 * np.quantile(steep, 0.995))) & _ridges(steep)
    edges[:2], edges[-2:], edges[:, :2], edges[:, -2:] = False, False, False, False
    if edges.sum() < _FEWEST_EDGES * view.grey.size / (512 * 384):
        return float("inf")
    ratio = steep[edges] / np.maximum(again[edges], 1e-6)
    return float(_REBLUR / np.sqrt(max(np.quantile(ratio, 0.8) ** 2 - 1, 1e-6)))


def brightest(view: View) -> float:
    """Luma that one pixel in fifty exceeds, from 0 to 1: of a picture that is too dark it is low."""
    return float(np.quantile(view.grey, 0.98))


def burnt_out(view: View) -> float:
    """Share of the middle of the picture in which no channel has any detail left."""
    height, width = view.grey.shape
    middle = view.small[height // 5 : height - height // 5, width // 5 : width - width // 5]
    return float((middle.min(axis=2) >= 252).mean())


def frame(view: View) -> float:
    """Width of a frame of one colour, as a share of the side it lies at; 0 without one.

    A frame ends on a straight line: where it ends most of the line is of other colours. So a plain table around a plate
    is none, whose first line of another colour has little of it.
    """
    pixels = view.small.astype(np.float32)
    turned = [pixels, pixels[::-1], pixels.transpose(1, 0, 2), pixels.transpose(1, 0, 2)[::-1]]
    return max(_band(side) / len(side) for side in turned)


def seam(view: View) -> float:
    """Share of its length on which the likeliest seam of a collage is one: a line of one pixel from edge to edge, on
    which the picture changes and beside which it does not. A table's edge is wider, or leaves the line on its way."""
    return max(_seam(view.pixels), _seam(view.pixels.transpose(1, 0, 2)))


def _slope(grey: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=0.125))


def _ridges(steep: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Where nothing near is much steeper: the middle of an edge, not its flanks."""
    return steep >= 0.95 * cv2.dilate(steep, np.ones((3, 3), np.uint8))


def _band(pixels: Float[np.ndarray, "rows columns 3"]) -> int:
    """Rows from the first on that are a frame's."""
    colour = np.median(pixels[0], axis=0)
    other = np.abs(pixels - colour).max(axis=2) > _ALIKE
    share = other.mean(axis=1)
    inside = share > 0.02
    if not inside.any() or inside[0]:
        return 0
    rows = int(np.argmax(inside))
    # What JPEG spills over the line is less than one of its blocks.
    near = share[rows : rows + 8] > 0.6
    return rows + int(np.argmax(near)) if near.any() else 0


def _seam(pixels: UInt8[np.ndarray, "rows columns 3"]) -> float:
    """Of the horizontal lines."""
    rows = len(pixels)
    if rows < 32:
        return 0.0
    across = cv2.absdiff(pixels[1:], pixels[:-1]).max(axis=2)
    # What texture has there anyway.
    beside = np.maximum.reduce([np.roll(across, distance, axis=0) for distance in (-3, -2, 2, 3)]).astype(np.float32)
    found = ((across > _STEP) & (across > 2.5 * beside)).mean(axis=1)
    margin = rows // 16
    return float(found[margin : rows - margin].max())
