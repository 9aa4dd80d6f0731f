"""`fooddit generate`: pictures from a checkpoint, with what made them in their metadata."""

import argparse
import re
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fooddit generate`."""
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="a run's workdir")
    parser.add_argument("--step", type=int, help="a checkpoint's step (default: the newest)")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="zh or en; may be repeated")
    parser.add_argument("--prompt-file", type=Path, metavar="FILE", help="one prompt a line, UTF-8")
    parser.add_argument("--num", type=int, default=4, metavar="N", help="pictures for each prompt (4)")
    parser.add_argument("--guidance-scale", type=float, help="1 is none (default: the run's)")
    parser.add_argument("--steps", type=int, help="of the sampler (default: the run's)")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; the next ones count up (0)")
    parser.add_argument("--size", type=_size, metavar="SIDE|HxW", help="in pixels (default: as trained)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the PNGs")


def run(args: argparse.Namespace) -> int:
    """Draws, writes DIR/NNNN-prompt-seed.png and a line for each; returns the exit code."""
    prompts = args.prompt + (_read_prompts(args.prompt_file) if args.prompt_file else [])
    if not prompts:
        raise ValueError("no prompt: give --prompt TEXT or --prompt-file FILE")
    from tqdm import tqdm

    from fooddit.pipeline import Pipeline

    pipeline = Pipeline.from_checkpoint(args.checkpoint, args.step)
    args.out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(prompts) * args.num, unit="picture", delay=1) as bar:
        pictures = pipeline.generate(
            prompts,
            num_images=args.num,
            seed=args.seed,
            steps=args.steps,
            guidance_scale=args.guidance_scale,
            size=args.size,
            progress=lambda done: bar.update(done - bar.n),
        )
    for number, picture in enumerate(pictures):
        path = args.out / f"{number // args.num:04d}-{_slug(picture.prompt)}-{picture.seed}.png"
        picture.save(path)
        print(path)
    return 0


def _read_prompts(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, found {error}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{path}: no prompts; expected one a line")
    return prompts


def _size(text: str) -> int | tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a side such as 64, or HEIGHTxWIDTH such as 64x96")
    height, width = match.groups()
    return int(height) if width is None else (int(height), int(width))


def _slug(prompt: str) -> str:
    return re.sub(r"\W+", "-", prompt).strip("-")[:40] or "empty"
