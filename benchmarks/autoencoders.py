"""What autoencoders make of photos: PSNR, fine detail, time, and the memory that decoding takes.

    FOODDIT_PHOTOS=DIR FOODDIT_WEIGHTS=DIR python benchmarks/autoencoders.py [--sizes 256 512] [--limit N]
    python benchmarks/autoencoders.py --memory

The first one encodes and decodes the middle square of every photo of a catalogue (metadata.jsonl and photos), resized
to each size as training does, with the autoencoder that is at FOODDIT_WEIGHTS (any that config.space.autoencoder
takes), and prints mean, median, 5 % quantile and the share at 30 dB or more. The peer of the same run is 8 times
smaller and back, bicubic: what an f8 latent of three channels without a network keeps. --memory says what XLA reserves
to decode one picture, by shape and side.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np

MEMORY_SIDES = (256, 512, 1024, 2048)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--limit", type=int, default=0, help="only so many photos; 0 is all")
    parser.add_argument("--memory", action="store_true", help="the memory of decoding, instead")
    arguments = parser.parse_args()
    if arguments.memory:
        return memory()
    folders = [os.environ.get(name) for name in ("FOODDIT_PHOTOS", "FOODDIT_WEIGHTS")]
    if None in folders:
        sys.exit("set FOODDIT_PHOTOS (a catalogue's folder) and FOODDIT_WEIGHTS (an autoencoder); see --help")
    for size in arguments.sizes:
        photos(Path(folders[0]), folders[1], size, arguments.limit)


def photos(folder: Path, weights: str, size: int, limit: int) -> None:
    """Prints one table of a size."""
    import jax

    from fooddit.data.images import decode_image, fit_image
    from fooddit.models.picture_space import PictureSpace, SpaceConfig

    names = [json.loads(line)["file_name"] for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]
    space = PictureSpace(SpaceConfig(weights, patch=1))
    params, shape = space.load(), space.shape(size, size)

    @jax.jit
    def reconstruct(params, image):
        return space.decode(params, space.tokens(space.moments(params, image), shape[0] * shape[1]).values, shape)

    images, decoded, small, enlarged, seconds = [], [], [], [], 0.0
    for number, name in enumerate(names[: limit or None]):
        image = decode_image((folder / name).read_bytes())
        enlarged.append(min(image.shape[:2]) < size)
        image = fit_image(image, size, size)
        began = time.perf_counter()
        decoded.append(np.asarray(reconstruct(params, image[None]))[0])
        seconds += (time.perf_counter() - began) * (number > 0)
        images.append(image)
        shrunk = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA)
        small.append(cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_CUBIC))
    print(f"\n{len(images)} photos at {size} px ({sum(enlarged)} enlarged), {space.description['autoencoder']}")
    print(f"{'':20} {'mean':>7} {'median':>7} {'5 %':>7} {'95 %':>7} {'>= 30 dB':>9} {'fine detail':>12}")
    images, decoded, small, whole = np.stack(images), np.stack(decoded), np.stack(small), ~np.array(enlarged)
    row("autoencoder", images, decoded)
    row("8 times smaller", images, small)
    if whole.any() and not whole.all():
        row("not enlarged alone", images[whole], decoded[whole])
    print(f"{seconds / max(len(images) - 1, 1):.2f} s a photo, encoded and decoded, on {os.cpu_count()} cores")


def row(title: str, images: np.ndarray, made: np.ndarray) -> None:
    """Prints the figures of one way to make pictures."""
    from fooddit.evaluation.reconstruction import fine_detail, psnr

    values = np.concatenate([psnr(a[None], b[None]) for a, b in zip(images, made)])
    low, median, high = np.percentile(values, (5, 50, 95))
    print(
        f"{title:20} {values.mean():7.2f} {median:7.2f} {low:7.2f} {high:7.2f} {np.mean(values >= 30):9.3f} "
        f"{fine_detail(images, made):12.3f}"
    )


def memory() -> None:
    """Prints XLA's temporary memory for one picture."""
    import jax
    import jax.numpy as jnp

    from fooddit.models.picture_space import PictureSpace, SpaceConfig

    print(f"MB beside the weights to decode one picture, {jax.default_backend()}, float32")
    print(f"{'':10} {'weights':>8}" + "".join(f"{side:>9}" for side in MEMORY_SIDES))
    for name in ("sd", "flux"):
        space = PictureSpace(SpaceConfig(name, patch=1))
        weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(space.shapes))
        taken = []
        for side in MEMORY_SIDES:
            shape = space.shape(side, side)
            tokens = jax.ShapeDtypeStruct((1, shape[0] * shape[1], space.features), jnp.float32)
            decode = jax.jit(space.decode, static_argnums=2)
            analysis = decode.lower(space.shapes, tokens, shape).compile().memory_analysis()
            taken.append(analysis.temp_size_in_bytes / 1e6)
        print(f"{name:10} {weights / 1e6:8.0f}" + "".join(f"{mb:9.0f}" for mb in taken), flush=True)


if __name__ == "__main__":
    main()
