"""What a run makes of its data at the start, once for all its processes: records of scenes, a tokenizer."""

import fcntl
from collections.abc import Iterable
from pathlib import Path

from fooddit.config import ConfigError
from fooddit.data.catalogue import is_rendered
from fooddit.data.prepare import prepare
from fooddit.data.tokenizer import Tokenizer, train_tokenizer
from fooddit.parallel.processes import from_first
from fooddit.training.transfer import source_metadata


def records_folder(source: str, image_size: int, workdir: Path) -> str:
    """The folder of records that a config's source names, or its address; scenes are rendered once into the workdir."""
    if not is_rendered(source):
        return source
    folder = workdir / f"records-{source.replace(':', '-')}-{image_size}"
    # One process of those that see the folder.
    with (workdir / f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not folder.exists():
            prepare(source, folder, size=image_size)
    return str(folder)


def run_tokenizer(captions: Iterable[str], vocabulary: int, saved: dict | None, init_from: str) -> Tokenizer:
    """This run's own, if it is resumed (`saved` is its metadata); of the run that it starts from, whose embeddings it
    takes; else trained on captions. Trained anew it would be another one if a record has been damaged meanwhile.

    Raises:
      ConfigError: `init_from` is a run without a tokenizer.
    """
    if saved is not None:
        return Tokenizer.from_json(saved["tokenizer"])
    if init_from:
        made = source_metadata(init_from)["task"]
        if "tokenizer" not in made:
            raise ConfigError(f"config.init_from: {init_from} is a run without a tokenizer; expected one of this task")
        return Tokenizer.from_json(made["tokenizer"])
    return Tokenizer.from_json(from_first(lambda: {"json": train_tokenizer(captions, vocabulary).to_json()})["json"])
