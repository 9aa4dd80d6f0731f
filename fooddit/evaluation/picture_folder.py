"""A folder of pictures with what they were asked for: metadata.jsonl, or what is written in the pictures themselves."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from fooddit.data.images import decode_image
from fooddit.data.records import Dataset
from fooddit.evaluation.real_pictures import choose, in_blocks

METADATA = "metadata.jsonl"
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
# Prompts that are drawn from several seeds, one in so many, and the seeds of each.
_REPEATED, SEEDS = 16, 4
_LEAST_REPEATED = 6


@dataclass(frozen=True)
class Drawn:
    """A picture of a model.

    Attributes:
      name: of its file in the folder; prompt, seed: what it was drawn from, if that is known.
      record: id of the held-out record whose caption the prompt is; None: looked for by the prompt.
      repeat: a prompt drawn once more from another seed: it counts for diversity alone.
    """

    name: str
    prompt: str | None = None
    seed: int | None = None
    record: str | None = None
    repeat: bool = False


def plan(dataset: Dataset, num: int, seed: int, together: int) -> list[Drawn]:
    """`num` pictures to draw from a hold-out's captions, and a few prompts once more from other seeds.

    Records come in an order of chance that is always the same, so that a smaller `num` asks for the first pictures of a
    larger one. `together` prompts share a seed, as they are drawn in one batch; when there are fewer records than
    pictures, each is asked again.

    Raises:
      ValueError: no record has a caption.
    """
    prompts = holdout_captions(dataset, num)
    if not prompts:
        raise ValueError(f"{dataset.folder}: split {dataset.split!r} has no whole record with a caption to draw from")
    seeds_a_round = -(-len(prompts) // together)
    wanted = []
    for number in range(num):
        again, place = divmod(number, len(prompts))
        _, record, prompt = prompts[place]
        wanted.append(Drawn(f"{number:05d}.png", prompt, seed + again * seeds_a_round + place // together, record))
    if num > len(prompts):
        return wanted
    repeated = min(num, max(-(-num // _REPEATED), _LEAST_REPEATED))
    for first in wanted[:repeated]:
        for other in range(1, SEEDS):
            name = f"{first.name.removesuffix('.png')}-{other}.png"
            wanted.append(Drawn(name, first.prompt, first.seed + other, first.record, repeat=True))
    return wanted


def holdout_captions(dataset: Dataset, count: int) -> list[tuple[int, str, str]]:
    """Number and id of a record, and a caption of it, of the first `count` of `choose` that have one.

    Records give their dense captions in turn (the second record its second one, which may be in another language), or
    short ones where they have no other.
    """
    found: list[tuple[int, str, str]] = []
    for block in in_blocks(choose(dataset, len(dataset)).tolist()):
        for number, record in zip(block, dataset.read_whole(block), strict=True):
            if record is not None and record.captions and len(found) < count:
                captions = [caption for caption in record.captions if caption.style == "dense"] or record.captions
                found.append((number, record.id, captions[len(found) % len(captions)].text))
        if len(found) >= count:
            break
    return found


def write_metadata(folder: Path, pictures: Iterable[Drawn]) -> None:
    """Writes metadata.jsonl, whole or not at all."""
    rows = [
        {"file_name": p.name, "prompt": p.prompt, "seed": p.seed, "record": p.record, "repeat": p.repeat}
        for p in pictures
    ]
    temporary = folder / f".{METADATA}.tmp"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, folder / METADATA)


def read_folder(folder: Path) -> list[Drawn]:
    """The pictures of metadata.jsonl (file_name, prompt, and record, seed, repeat if they are known) in its order.

    Without that file: all pictures of the folder by name, with the prompt that `fooddit generate` wrote into each.

    Raises:
      NotADirectoryError, FileNotFoundError: no folder, or a file that is named and not there.
      ValueError: no picture in it, or a row that is none.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder; expected one with pictures and {METADATA}")
    if (folder / METADATA).is_file():
        lines = (folder / METADATA).read_text(encoding="utf-8").splitlines()
        pictures = [_row(folder, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    else:
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
        pictures = [_by_its_own_words(folder, name) for name in names if not name.startswith(".")]
    if not pictures:
        raise ValueError(f"{folder}: found no picture, expected {', '.join(_ENDINGS)} files or {METADATA}")
    return pictures


def common_shape(folder: Path, pictures: Sequence[Drawn]) -> tuple[int, int]:
    """Height and width of the pictures. ValueError if one cannot be read or has another size than the first."""
    shape, first = None, pictures[0].name
    for picture in pictures:
        try:
            with Image.open(folder / picture.name) as image:
                found = (image.height, image.width)
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{folder / picture.name}: not a picture that can be read: {error}") from error
        shape = shape or found
        if found != shape:
            raise ValueError(
                f"{folder}: {picture.name} is {found[1]} x {found[0]}, {first} is {shape[1]} x {shape[0]}; the real "
                "photos are cut to one size, so evaluate the pictures of each size by themselves"
            )
    return shape


def image_blocks(folder: Path, pictures: Sequence[Drawn]) -> Iterator[UInt8[np.ndarray, "n height width 3"]]:
    """The pictures in blocks. ValueError for one that cannot be decoded."""
    for block in in_blocks(pictures):
        yield np.stack([read_image(folder / picture.name) for picture in block])


def read_image(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of the folder. ValueError if it cannot be decoded."""
    try:
        return decode_image(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _row(folder: Path, number: int, line: str) -> Drawn:
    where = f"{folder / METADATA}, line {number}"
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: no JSON ({error}); expected an object with file_name and prompt") from error
    kinds = {"file_name": str, "prompt": (str, type(None)), "seed": (int, type(None)), "record": (str, type(None))}
    if not isinstance(row, dict) or any(not isinstance(row.get(name), kind) for name, kind in kinds.items()):
        raise ValueError(f"{where}: found {line[:100]}; expected an object with file_name and prompt, both text")
    if not (folder / row["file_name"]).is_file():
        raise FileNotFoundError(f"{where}: {row['file_name']} is not in {folder}")
    found = {name: row.get(name) for name in ("prompt", "seed", "record")}
    return Drawn(row["file_name"], **found, repeat=bool(row.get("repeat", False)))


def _by_its_own_words(folder: Path, name: str) -> Drawn:
    try:
        with Image.open(folder / name) as image:
            words = image.info
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{folder / name}: not a picture that can be read: {error}") from error
    seed = str(words.get("seed", ""))
    return Drawn(name, words.get("prompt"), int(seed) if seed.isdecimal() else None)
