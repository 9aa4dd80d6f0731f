"""Encoders that need no weights, and a cache of what they make; also a process that is killed while it makes one.

python -m tests.caching.fakes RECORDS OUT MARK: makes a cache, and waits for ever in its third shard (a file MARK says
so).
"""

import sys
import time
import zlib
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from fooddit.caching.build import Encoders, build_cache
from fooddit.caching.captions import CaptionEncoder
from fooddit.caching.pictures import PictureEncoder
from fooddit.data.data_config import TextInput
from fooddit.data.pipeline import DataConfig
from fooddit.models.latent_statistics import LatentSums

FACTOR, LENGTH, WIDTH, POOLED = 8, 40, 6, 3
SPACE = {"autoencoder": "somewhere/blocks", "sha256": "a1"}
TOWERS = {"t5": {"model": "bytes", "source": "somewhere/bytes", "fingerprint": "b2"}, "eclip": {"fingerprint": "c3"}}
SIZES = [(32, 32), (48, 32), (32, 48), (80, 40), (40, 40)]


def config(folder, **options):
    return DataConfig(str(folder), 8, **({"image_size": 32, "max_aspect": 2.0, "flip": True} | options))


def moments_of(images):
    """The mean colour and its deviation in blocks of 8 x 8 pixels: (b, h, w, 6)."""
    b, h, w, _ = images.shape
    blocks = np.asarray(images, np.float32).reshape(b, h // FACTOR, FACTOR, w // FACTOR, FACTOR, 3) / 255
    return np.concatenate([blocks.mean((2, 4)), blocks.std((2, 4))], axis=-1)


def sums_of(moments):
    moments = np.asarray(moments, np.float64)
    positions = moments.shape[0] * moments.shape[1] * moments.shape[2]
    return LatentSums(moments.sum((0, 1, 2)), (moments**2).sum((0, 1, 2)), positions, len(moments))


def tokenize(text):
    data = np.frombuffer(text.encode()[:LENGTH], np.uint8)
    return np.pad(data, (0, LENGTH - len(data))).astype(np.int32), np.arange(LENGTH) < len(data)


def features_of(ids, mask):
    """A vector a token that depends on its place, and garbage at padding; the tower in bfloat16."""
    waves = np.sin(ids[..., None] * np.arange(1, WIDTH + 1) + np.arange(LENGTH)[:, None])
    return np.where(mask[..., None], waves, 77).astype(ml_dtypes.bfloat16)


def pooled_of(ids, mask):
    return (ids * mask).sum(1, keepdims=True).astype(np.float32) * np.arange(1, POOLED + 1, dtype=np.float32)


def encoders(space=SPACE, towers=TOWERS, before=lambda what: None):
    """`before` is called with "moments" or a tower's name when a batch is encoded."""

    def picture(images):
        before("moments")
        return jnp.asarray(moments_of(images))

    def tower(name):
        def features(ids, mask):
            before(name)
            return features_of(ids, mask), pooled_of(ids, mask) if name == "eclip" else None

        return CaptionEncoder(tokenize, features, 7)

    pooled = frozenset({"eclip"} & towers.keys())
    return Encoders(space, towers, pooled, lambda: PictureEncoder(picture, sums_of, 5), tower)


def texts(names=("t5", "eclip")):
    return {name: TextInput(tokenize, LENGTH) for name in names}


def descriptions():
    return {"space": SPACE, **TOWERS}


def checksums(folder):
    """Of every file of a cache, by name."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): zlib.crc32(path.read_bytes()) for path in files}


def main(records: str, out: str, mark: str) -> None:
    def wait(what: str) -> None:
        if len(list(Path(out).rglob("*.npz"))) == 2:
            Path(mark).touch()
            time.sleep(1000)

    build_cache(records, out, config(records), encoders(before=wait), progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
