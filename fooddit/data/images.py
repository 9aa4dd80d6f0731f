"""Encoded pictures to arrays and back, and fitting them to a shape."""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

# Decoding runs on our own threads; OpenCV's pool under them would only contend for the same cores.
cv2.setNumThreads(1)
# A picture that cannot be read is an error here; OpenCV's own lines about it on stderr say less.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_JPEG = b"\xff\xd8\xff"
_EXIF_ORIENTATION = 0x0112


def decode_image(data: bytes, *, min_height: int = 0, min_width: int = 0) -> np.ndarray:
    """An encoded JPEG, PNG or WebP as uint8 (h, w, 3) RGB. Raises ValueError for what is not whole.

    A JPEG more than twice as large as the least size asked for is decoded at a fraction of its size (in the DCT, twice
    as fast); at least twice the size is kept, so that the resize after it still does the filtering.
    """
    if data[:3] == _JPEG:
        return simplejpeg.decode_jpeg(data, "RGB", min_height=2 * min_height, min_width=2 * min_width)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError(f"neither JPEG, PNG nor WebP, or damaged ({len(data)} bytes starting with {data[:8]!r})")
    return image


def fit_image(image: np.ndarray, height: int, width: int, *, crop: float = 0.5) -> np.ndarray:
    """Resizes a picture to cover (height, width) and cuts off what is too much: uint8 (height, width, 3).

    `crop` in [0, 1] says where along the longer side: 0 is the left or top, 0.5 the middle.
    """
    h, w = image.shape[:2]
    scale = max(height / h, width / w)
    new_h, new_w = max(height, round(h * scale)), max(width, round(w * scale))
    if (new_h, new_w) != (h, w):
        filtering = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(image, (new_w, new_h), interpolation=filtering)
    top, left = (int(crop * (extent + 1)) for extent in (new_h - height, new_w - width))
    top, left = min(top, new_h - height), min(left, new_w - width)
    return image[top : top + height, left : left + width]


def encode_png(image: np.ndarray) -> bytes:
    """uint8 (h, w, 3) RGB as PNG bytes; the same pixels give the same bytes."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise ValueError(f"cannot encode an array of shape {image.shape} and type {image.dtype} as PNG")
    return data.tobytes()


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """uint8 (h, w, 3) RGB as JPEG bytes, colour at full resolution."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", colorsubsampling="444")


@dataclass(frozen=True)
class Picture:
    """A picture as it is stored: the encoded file and its size in pixels, and the decoded pixels for hashing."""

    data: bytes
    width: int
    height: int
    pixels: np.ndarray


def normalize_picture(data: bytes, size: int | None = None) -> Picture:
    """A file as it came, if every decoder here reads the same pixels from it; else encoded anew. Raises ValueError.

    What is encoded anew: rotated by EXIF, palette, alpha (put on white), CMYK, 16 bits, several frames (the first is
    taken), formats other than JPEG, PNG and WebP; and, when `size` is given, a picture whose shorter side is longer
    than that, which is shrunk to it. JPEG and WebP become JPEG of quality 95, the rest PNG.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            plain = _is_plain(opened)
            width, height = opened.size
            lossy = opened.format in ("JPEG", "WEBP")
            pixels = None if plain else _flatten(opened)
        if plain and not (size and min(width, height) > size):
            small = decode_image(data, min_height=32, min_width=32)
            return Picture(data, width, height, small)
        if pixels is None:
            pixels = decode_image(data, min_height=size or 0, min_width=size or 0)
    except UnidentifiedImageError as error:
        raise ValueError("not a picture of a known format") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    height, width = pixels.shape[:2]
    if size and min(width, height) > size:
        scale = size / min(width, height)
        shape = (max(size, round(width * scale)), max(size, round(height * scale)))
        pixels = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA)
        height, width = pixels.shape[:2]
    return Picture(encode_jpeg(pixels) if lossy else encode_png(pixels), width, height, pixels)


def _is_plain(opened: Image.Image) -> bool:
    """Whether simplejpeg or OpenCV read what Pillow reads: 8-bit RGB or grey, upright, one frame."""
    upright = opened.getexif().get(_EXIF_ORIENTATION, 1) in (0, 1)
    modes = {"JPEG": ("RGB", "L"), "PNG": ("RGB", "L"), "WEBP": ("RGB",)}
    return upright and getattr(opened, "n_frames", 1) == 1 and opened.mode in modes.get(opened.format or "", ())


def _flatten(opened: Image.Image) -> np.ndarray:
    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        return np.repeat((np.asarray(upright).astype(np.uint32) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
    return np.asarray(upright.convert("RGB"))
