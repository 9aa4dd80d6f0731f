"""Encoded pictures to arrays and back, and fitting them to a shape."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

# Decoding runs on our own threads; OpenCV's pool under them would only contend for the same cores.
cv2.setNumThreads(1)
# A picture that cannot be read is an error here; OpenCV's own lines about it on stderr say less.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# A picture that declares more is refused before it is decoded: 400 MB of pixels for each decoding thread.
MAX_PIXELS = 1 << 27
# Pillow warns of half as many; here the limit above is an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_JPEG = b"\xff\xd8\xff"
_EXIF_ORIENTATION = 0x0112
# Pillow reads many more, some of which start other programs (EPS) or hold no photos.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_LOSSY = ("AVIF", "JPEG", "JPEG2000", "MPO", "WEBP")
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def decode_image(data: bytes, *, min_height: int = 0, min_width: int = 0) -> np.ndarray:
    """An encoded JPEG, PNG or WebP as uint8 (h, w, 3) RGB. Raises ValueError for what is not whole.

    A JPEG more than twice as large as the least size asked for is decoded at a fraction of its size (in the DCT, twice
    as fast); at least twice the size is kept, so that the resize after it still does the filtering.
    """
    if data[:3] == _JPEG:
        # Fractions above a half save no time: libjpeg has no vector code for them.
        return simplejpeg.decode_jpeg(data, "RGB", min_height=2 * min_height, min_width=2 * min_width, min_factor=2)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if image is None:
        raise ValueError(f"neither JPEG, PNG nor WebP, or damaged ({len(data)} bytes starting with {data[:8]!r})")
    return image


def fit_image(image: np.ndarray, height: int, width: int, *, crop: float = 0.5) -> np.ndarray:
    """Cuts from a picture the largest part of the aspect of (height, width), resized: uint8 (height, width, 3).

    `crop` in [0, 1] says where along the longer side: 0 is the left or top, 0.5 the middle.
    """
    h, w = image.shape[:2]
    scale = max(height / h, width / w)
    # The cut comes first: what falls away need not be resized.
    cut_h, cut_w = (max(1, min(extent, round(wanted / scale))) for extent, wanted in ((h, height), (w, width)))
    top, left = (min(int(crop * (extra + 1)), extra) for extra in (h - cut_h, w - cut_w))
    image = image[top : top + cut_h, left : left + cut_w]
    return image if (cut_h, cut_w) == (height, width) else _resize(image, height, width)


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased, as near to Pillow's bicubic as INTER_AREA is (46 dB), which alone takes longer than the decoding.

    INTER_AREA is fast at a factor of two only: between 1.5 and 2 the picture is first stretched to twice the size that
    is wanted. Up to 1.5 the four pixels that INTER_LINEAR looks at are all there are to average.
    """
    factor = max(image.shape[0] / height, image.shape[1] / width)
    if factor < 1:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    if factor <= 1.5:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if factor < 2:
        image = cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


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

    What is encoded anew: with a colour profile that is not sRGB's (converted), rotated by EXIF, palette, alpha (put on
    white), CMYK, 16 bits, several frames (the first is
    taken), formats other than JPEG, PNG and WebP; and, when `size` is given, a picture whose shorter side is longer
    than that, which is shrunk to it. JPEG, WebP, AVIF and JPEG 2000 become JPEG of quality 95, the rest PNG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"declares {width} x {height} pixels, at most {MAX_PIXELS:,} are read; shrink it")
            plain = _is_plain(opened)
            lossy = opened.format in _LOSSY
            pixels = None if plain else _flatten(opened)
        if plain and not (size and min(width, height) > size):
            small = decode_image(data, min_height=32, min_width=32)
            return Picture(data, width, height, small)
        if pixels is None:
            pixels = decode_image(data, min_height=size or 0, min_width=size or 0)
    except ValueError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(_what_it_is(data)) from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"declares more than {MAX_PIXELS:,} pixels; shrink it ({error})") from error
    except Exception as error:  # Decoders raise anything, from struct.error to IndexError, on bytes that are damaged.
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from error
    height, width = pixels.shape[:2]
    if size and min(width, height) > size:
        scale = size / min(width, height)
        shape = (max(size, round(width * scale)), max(size, round(height * scale)))
        pixels = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA)
        height, width = pixels.shape[:2]
    return Picture(encode_jpeg(pixels) if lossy else encode_png(pixels), width, height, pixels)


def _is_plain(opened: Image.Image) -> bool:
    """Whether simplejpeg or OpenCV read what Pillow reads: 8-bit RGB or grey, upright, opaque, one frame."""
    modes = {"JPEG": ("RGB", "L"), "PNG": ("RGB", "L"), "WEBP": ("RGB",)}
    if opened.mode not in modes.get(opened.format or "", ()) or "transparency" in opened.info:
        return False
    if _other_colours(opened) is not None:
        return False
    return opened.getexif().get(_EXIF_ORIENTATION, 1) in (0, 1) and getattr(opened, "n_frames", 1) == 1


def _other_colours(opened: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The picture's colour profile, if it is one and not sRGB's: no decoder of ours looks at it."""
    data = opened.info.get("icc_profile")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data)) if data else None
        return None if profile is None or "sRGB" in ImageCms.getProfileDescription(profile) else profile
    except (OSError, ImageCms.PyCMSError):
        return None  # Junk: every viewer shows such a picture as sRGB.


def _as_srgb(opened: Image.Image) -> Image.Image:
    profile = _other_colours(opened)
    if profile is None or opened.mode not in ("RGB", "L", "CMYK"):
        return opened
    try:
        return ImageCms.profileToProfile(opened, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        return opened  # A profile of other channels than the picture's.


def _flatten(opened: Image.Image) -> np.ndarray:
    upright = _as_srgb(ImageOps.exif_transpose(opened))
    if upright.mode.startswith("I"):
        deep = np.asarray(upright).astype(np.int64)
        if upright.mode == "I" and not 256 <= deep.max() <= 65535:
            raise ValueError(f"32-bit integers up to {deep.max()}, of no known scale; save it with 8 or 16 bits")
        deep >>= 8
        return np.repeat(deep.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if upright.mode == "F":
        raise ValueError("pixels are floating-point numbers; save it with 8 or 16 bits a channel")
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
    return np.asarray(upright.convert("RGB"))


def _what_it_is(data: bytes) -> str:
    """What a file is that is no picture we read, and what to do: exporters and downloaders leave these behind."""
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    convert = "convert it to JPEG or PNG"
    if not data:
        return "empty, 0 bytes; copy or download it again"
    if data[4:8] == b"ftyp":
        return (
            f"HEIC; {convert}, for example: heif-convert a.heic a.jpg" if data[8:12] in _HEIC else f"video; {convert}"
        )
    if b"<svg" in head:
        return f"SVG, a drawing; {convert}"
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"{")):
        return "a web page or message instead of a picture; download it again"
    return f"not a picture of a known format (starts with {data[:8]!r}); expected {', '.join(_FORMATS)}"
