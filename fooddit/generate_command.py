"""`fooddit generate`: pictures from a checkpoint, with what made them in their metadata."""

import argparse
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fooddit.data.captions import check_prompt, clean_text
from fooddit.output_folder import require_writable

_FULL_DISK = "the pictures written so far are whole; free some and run the same command again"


class _OnlyOne(argparse.Action):
    """Prompts may be several, and so might pictures seem to be."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} is given twice; a model draws after one picture")
        setattr(namespace, self.dest, values)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fooddit generate`."""
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="a run's workdir, or an exported model")
    parser.add_argument("--step", type=int, help="a checkpoint's step (default: the newest)")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="zh or en; may be repeated")
    parser.add_argument("--prompt-file", type=Path, metavar="FILE", help="one prompt a line, UTF-8")
    parser.add_argument("--num", type=int, default=4, metavar="N", help="pictures for each prompt (4)")
    parser.add_argument("--guidance-scale", type=float, help="1 is none (default: the run's)")
    parser.add_argument(
        "--image", type=Path, action=_OnlyOne, metavar="FILE", help="a picture to draw after (an image prompt)"
    )
    parser.add_argument("--image-scale", type=float, help="how loud it is; 0 is no image prompt (default: the run's)")
    parser.add_argument("--image-guidance-scale", type=float, help="1 is none (default: the run's)")
    parser.add_argument("--without", action="append", default=[], metavar="TOWER", help="t5 or eclip: not loaded")
    parser.add_argument("--steps", type=int, help="of the sampler (default: the run's)")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; the next ones count up (0)")
    parser.add_argument("--size", type=_size, metavar="SIDE|HxW", help="in pixels (default: as trained)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the PNGs; others are not replaced")


def run(args: argparse.Namespace) -> int:
    """Draws and writes DIR/NNNN-prompt-seed.png with a line for each, as soon as it is drawn; returns the exit code."""
    prompts = _prompts(args.prompt, args.prompt_file, required=args.image is None)
    if args.image is None and (args.image_scale is not None or args.image_guidance_scale is not None):
        raise ValueError("--image-scale and --image-guidance-scale are of an image prompt; give one with --image FILE")
    image = None if args.image is None else _picture(args.image)
    require_writable(args.out)
    with _ctrl_c_ends_it(args.out):
        return _draw(args, prompts, image)


def _draw(args: argparse.Namespace, prompts: list[str], image) -> int:
    from tqdm import tqdm

    from fooddit.data.disk import naming_full_disk
    from fooddit.parallel.compilation_cache import keep_compiled_programs
    from fooddit.pipeline import Pipeline
    from fooddit.streams import Lasting

    keep_compiled_programs()
    pipeline = Pipeline.from_checkpoint(args.checkpoint, args.step, without=args.without)
    bar = tqdm(total=len(prompts) * args.num, unit="picture", delay=1, file=Lasting(sys.stderr))
    with bar, warnings.catch_warnings(), _naming_size(args.size):
        warnings.showwarning = lambda message, *_: print(f"fooddit generate: {message}", file=sys.stderr)
        pictures = pipeline.stream(
            prompts,
            num_images=args.num,
            seed=args.seed,
            steps=args.steps,
            image=image,
            guidance_scale=args.guidance_scale,
            image_scale=args.image_scale,
            image_guidance_scale=args.image_guidance_scale,
            size=args.size,
        )
        args.out.mkdir(parents=True, exist_ok=True)  # Only now: what `stream` refuses leaves nothing behind.
        for number, picture in enumerate(pictures):
            path = args.out / f"{number // args.num:04d}-{_slug(picture.prompt)}-{picture.seed}.png"
            _keep_another(path, picture)
            with naming_full_disk(args.out, _FULL_DISK):
                picture.save(path)
            print(path, flush=True)
            bar.update()
    return 0


def _keep_another(path: Path, picture) -> None:
    """Raises FileExistsError if a file is there that is not this very picture, drawn before."""
    if not path.exists():
        return
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            found = {"size": f"{image.width} x {image.height}"} | {k: str(v) for k, v in image.info.items()}
    except UnidentifiedImageError:
        found = {}
    expected = {"size": f"{picture.image.width} x {picture.image.height}"} | picture.facts
    # These are facts of some pictures only: one that has them differs from one that has not.
    expected |= {name: "none" for name in ("image", "without") if name in found and name not in expected}
    if changed := [name for name, value in expected.items() if found.get(name) != value]:
        name = changed[0]
        raise FileExistsError(
            f"{path} is another picture ({name}: {found.get(name, 'unknown')}, now {expected[name]}); give another "
            "--out, or move it away"
        )


@contextmanager
def _ctrl_c_ends_it(folder: Path) -> Iterator[None]:
    """A callback may swallow a KeyboardInterrupt that is raised in it; every picture with a name is whole anyway."""

    def end(*_) -> None:
        from fooddit.pipeline import partial_name

        for path in folder.glob(partial_name(Path("*.png")).name):
            path.unlink(missing_ok=True)
        os._exit(130)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _naming_size(size: int | tuple[int, int] | None) -> Iterator[None]:
    """What XLA says when a program is too large is no advice, and differs: RESOURCE_EXHAUSTED, or a kernel's error."""
    from jax.errors import JaxRuntimeError

    try:
        yield
    except JaxRuntimeError as error:
        if size is None:
            raise
        raise ValueError(
            f"pictures of --size {size} cannot be drawn here, choose a smaller one: {str(error).splitlines()[0]}"
        ) from error


def _prompts(given: list[str], path: Path | None, *, required: bool) -> list[str]:
    """The prompts of the command line and of a file, in this order; what cannot be drawn is refused by its place.

    required: without any it is an error; else it is the empty one, of an image prompt alone.
    """
    placed = [(f"--prompt {number}", text) for number, text in enumerate(given, 1)]
    if path:
        lines = [(f"{path}:{number}", line.strip()) for number, line in enumerate(_lines(path), 1)]
        placed += (found := [(place, line) for place, line in lines if line])
        if not found:
            raise ValueError(f"{path}: no prompts; expected one a line")
    if not placed:
        if not required:
            return [""]
        raise ValueError("no prompt: give --prompt TEXT, --prompt-file FILE or --image FILE")
    for number, (place, text) in enumerate(placed, 1):
        try:
            check_prompt(text)
            if not clean_text(text):
                raise ValueError("is empty; expected some words")
        except ValueError as error:
            raise ValueError(f"prompt {number} ({place}) {error}") from error
    return [text for _, text in placed]


def _picture(path: Path):
    """A picture turned and coloured as its file says. ValueError if it cannot be read."""
    from PIL import Image

    from fooddit.data.images import decode_image, normalize_picture

    if not path.is_file():
        raise ValueError(f"--image {path}: found {'a folder' if path.is_dir() else 'no such file'}, expected a picture")
    try:
        return Image.fromarray(decode_image(normalize_picture(path.read_bytes()).data))
    except ValueError as error:
        raise ValueError(f"--image {path}: {error}") from error


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe or a device" if path.exists() else "no such file"
        raise ValueError(f"--prompt-file {path}: {what}, expected a file with one prompt a line")
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, found {error}; convert it, for example: iconv -f UTF-16 -t UTF-8 {path}"
        ) from error


def _size(text: str) -> int | tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a side such as 64, or HEIGHTxWIDTH such as 64x96")
    height, width = match.groups()
    return int(height) if width is None else (int(height), int(width))


def _slug(prompt: str) -> str:
    return re.sub(r"\W+", "-", prompt).strip("-")[:40] or "prompt"
