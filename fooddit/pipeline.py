"""A checkpoint as a Python object that makes pictures."""

import hashlib
import itertools
import numbers
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fooddit.config import build
from fooddit.data.captions import check_prompt
from fooddit.data.tokenizer import Tokenizer
from fooddit.diffusion import resolution_shift
from fooddit.models.drawing import Artist
from fooddit.models.latent_statistics import LatentStatistics
from fooddit.models.picture_space import PictureSpace
from fooddit.models.prompts import Prompt, PromptReader, fit_reference, open_reader, reads_most
from fooddit.models.text_to_image import SamplingConfig, define_model
from fooddit.tasks.denoise_step import DenoiseExperiment
from fooddit.training.checkpoint import load_parameters
from fooddit.training.checkpoint_layout import find_checkpoints
from fooddit.training.exported import is_exported, require_shapes
from fooddit.training.frozen import Frozen, identity

# Pictures drawn at once: one number for every call, as another batch size is another program and may round otherwise.
BATCH_SIZE = 8
MAX_SEED = 2**32 - 1
MAX_SIDE = 4096


@dataclass(frozen=True)
class Picture:
    """A picture and all that is needed to make it again."""

    image: Image.Image
    prompt: str
    seed: int
    checkpoint: str
    sampling: SamplingConfig
    reference: str = ""
    without: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, str]:
        """What its PNG says of it: prompt, seed, checkpoint, steps, method, guidance_scale; of an image prompt the hash
        of what was seen of it, and its two scales; the towers that were left out."""
        facts = {"prompt": self.prompt, "seed": self.seed, "checkpoint": self.checkpoint}
        scales = ("image_scale", "image_guidance_scale") if self.reference else ()
        facts |= {name: getattr(self.sampling, name) for name in ("steps", "method", "guidance_scale", *scales)}
        facts |= {"image": self.reference} if self.reference else {}
        facts |= {"without": ", ".join(self.without)} if self.without else {}
        return {name: str(value) for name, value in facts.items()}

    def save(self, path: str | Path) -> None:
        """Writes a PNG whose text chunks hold `facts`; whole or not at all.

        IsADirectoryError for a folder, FileNotFoundError if its folder is not there, ValueError if it is not *.png.
        """
        path = Path(path)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; expected the name of a file, as {path / 'picture.png'}")
        if path.suffix.lower() != ".png":
            raise ValueError(f"{path}: expected a name ending in .png: a PNG's text keeps what made the picture")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path.parent} is no folder; make it first")
        info = PngInfo()
        for name, value in self.facts.items():
            info.add_itxt(name, value)
        partial = partial_name(path)
        try:
            self.image.save(partial, "PNG", pnginfo=info)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def partial_name(path: Path) -> Path:
    """Where this process writes a picture before it gets its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


class Pipeline:
    """Text to pictures with the averaged weights of a run.

    pipe = fooddit.Pipeline.from_checkpoint("runs/quickstart")
    images = pipe("two dumplings on a round blue plate", num_images=4, seed=0)
    """

    def __init__(
        self,
        experiment: DenoiseExperiment,
        params,
        frozen,
        reader: PromptReader,
        space: PictureSpace,
        name: str,
        without: Sequence[str] = (),
    ):
        self.without = tuple(sorted(set(without)))
        self.experiment, self.params, self.frozen = experiment, params, frozen
        self.reader, self.space, self.name = reader, space, name
        self._artists: dict[tuple[int, int], Artist] = {}

    @classmethod
    def from_checkpoint(
        cls, directory: str | Path, step: int | None = None, *, without: Sequence[str] = ()
    ) -> "Pipeline":
        """Loads the newest step (or `step`) of a workdir, or a folder that `fooddit export` wrote.

        Args:
          without: frozen towers ("t5", "eclip") that are neither loaded nor heard: each was dropped now and then in
            training, and T5 is most of a large model's memory.

        Raises:
          FileNotFoundError: no checkpoint there; ValueError: one of another kind, or its autoencoder or a tower is
            another now; TensorError: a folder of another model, or one that is not as it was exported.
        """
        params, metadata = load_parameters(directory, step)
        kind = metadata["task"]["kind"]
        if kind != "text_to_image":
            raise ValueError(f"{directory}: holds a checkpoint of kind {kind!r}, expected text_to_image")
        experiment = _leave_out(without, build(DenoiseExperiment, metadata["experiment"]), directory)
        words = metadata["task"].get("tokenizer")
        reader = open_reader(experiment, Tokenizer.from_json(words) if words else None)
        trained_with, space = metadata["task"]["frozen"], PictureSpace(experiment.space)
        if measured := trained_with["space"].get("statistics"):
            space = space.standardised(LatentStatistics.from_dict(measured))
        shapes = define_model(experiment, reader.widths, space.features).shapes
        params = _part_of(params, shapes) if without else params
        if exported := is_exported(directory):
            require_shapes(params, shapes, directory)
        frozen = Frozen({"space": space, **reader.parts})
        for part, found in frozen.description.items():
            if identity(found) != identity(trained_with[part]):
                raise ValueError(
                    f"{directory} was trained with the {part} {trained_with[part]}, but its config gives {found} now; "
                    "put the weights it was trained with back"
                )
        name = Path(directory).absolute() if exported else find_checkpoints(directory) / str(metadata["step"])
        return cls(experiment, params, frozen.load(), reader, space, str(name), without)

    def __call__(self, prompt: str | Sequence[str], **arguments) -> list[Image.Image]:
        """PIL pictures: `num_images` for each prompt, in order; arguments as in `generate`."""
        return [picture.image for picture in self.generate(prompt, **arguments)]

    def generate(self, prompt: str | Sequence[str], **arguments) -> list["Picture"]:
        """All pictures of `stream`, with the same arguments."""
        return list(self.stream(prompt, **arguments))

    def stream(
        self,
        prompt: str | Sequence[str],
        *,
        num_images: int = 1,
        seed: int = 0,
        image: Image.Image | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        image_scale: float | None = None,
        image_guidance_scale: float | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> Iterator[Picture]:
        """Pictures with what made them, each as soon as it is drawn; image i of every prompt has seed + i.

        A picture depends on its prompt, its seed and the settings, not on what else is drawn in the same call. Of a
        prompt of more tokens than the model reads, the rest is cut, with a warning.

        Args:
          prompt: one or several, Chinese or English; "" draws without one.
          image: a picture to draw after, its middle square is seen; for a model trained with image prompts.
          steps, guidance_scale, image_scale, image_guidance_scale: of the sampler (`SamplingConfig`); None takes the
            run's own.
          size: side of a square, or (height, width), in pixels; multiples of the model's token.

        Raises:
          ValueError: no prompt or one that is no text, a number out of range, or a size that is not a multiple of the
            token's.
        """
        prompts = [prompt] if isinstance(prompt, str) or prompt is None else list(prompt)
        if not all(isinstance(text, str) for text in prompts):
            raise TypeError(f"prompts must be text, found {prompts!r}")
        for name, value in (("num_images", num_images), ("seed", seed), ("steps", 1 if steps is None else steps)):
            if isinstance(value, bool) or not isinstance(value, numbers.Integral):
                raise TypeError(f"{name} must be a whole number, found {value!r}")
        if not prompts:
            raise ValueError("found no prompt; expected a text or a list of texts")
        for number, text in enumerate(prompts, 1):
            try:
                check_prompt(text)
            except ValueError as error:
                raise ValueError(f"prompt {number} {error}") from error
        num_images, seed = int(num_images), int(seed)  # NumPy's integers would wrap.
        if num_images < 1:
            raise ValueError(f"found num_images={num_images}, expected at least 1")
        if not 0 <= seed <= MAX_SEED - (num_images - 1):
            raise ValueError(
                f"found num_images={num_images}, seed={seed}; expected seeds from 0 to {MAX_SEED} for all of them: the "
                f"last picture's would be {seed + num_images - 1}"
            )
        scales = {
            "guidance_scale": guidance_scale,
            "image_scale": image_scale,
            "image_guidance_scale": image_guidance_scale,
        }
        changes = {"steps": steps} | {k: None if v is None else float(v) for k, v in scales.items()}
        sampling = replace(self.experiment.sampling, **{k: v for k, v in changes.items() if v is not None})
        reference = self._reference(image)
        artist = self._artist(self.experiment.data.image_size if size is None else size)
        self._warn_of_cut(prompts)
        # Pairs come as they are drawn, once for the model and once for the names: a list of them may be endless.
        wanted, named = itertools.tee(
            (Prompt(text, reference), seed + i) for text in prompts for i in range(num_images)
        )
        batches = artist.draw_batches(
            self.params,
            self.frozen,
            wanted,
            batch_size=BATCH_SIZE,
            sampling=replace(sampling, shift=sampling.shift * self._shift(artist)),
        )
        images = (image for batch in batches for image in batch)
        seen = "" if reference is None else hashlib.sha256(reference.tobytes()).hexdigest()[:16]
        return (
            Picture(Image.fromarray(image), asked.text, number, self.name, sampling, seen, self.without)
            for image, (asked, number) in zip(images, named, strict=True)
        )

    def _reference(self, image: Image.Image | None) -> np.ndarray | None:
        """TypeError for what is no picture, ValueError for a model that sees none."""
        if image is None:
            return None
        if not isinstance(image, Image.Image):
            raise TypeError(
                f"image must be a PIL picture (PIL.Image.open reads a file), found a {type(image).__name__}"
            )
        if not self.reader.reference_size:
            raise ValueError(
                f"{self.name} draws from text alone: it was not trained with image prompts (config.model.image_tokens)"
                " or E-CLIP is left out"
            )
        return fit_reference(np.asarray(image.convert("RGB")), self.reader.reference_size)

    def _warn_of_cut(self, prompts: Sequence[str]) -> None:
        if not (name := reads_most(self.reader)):
            return
        length = self.reader.lengths[name]
        counts = [(number, self.reader.counts[name](text)) for number, text in enumerate(prompts, 1)]
        cut = [
            f"prompt {number} has {count}, {count - length} of them cut" for number, count in counts if count > length
        ]
        if cut:
            more = f"; and {len(cut) - 5} prompts more" if len(cut) > 5 else ""
            warnings.warn(f"the model reads {length} tokens of a prompt: {'; '.join(cut[:5])}{more}", stacklevel=3)

    def _artist(self, size: int | tuple[int, int]) -> Artist:
        """One for each size, so that its program is compiled once."""
        sides = (size, size) if isinstance(size, numbers.Integral) else size
        whole = isinstance(sides, (tuple, list)) and all(isinstance(side, numbers.Integral) for side in sides)
        if not whole or len(sides) != 2:
            raise TypeError(f"size must be a side, or (height, width), in whole pixels, found {size!r}")
        size = (int(sides[0]), int(sides[1]))
        if max(size) > MAX_SIDE:
            raise ValueError(f"size must be at most {MAX_SIDE:,} pixels a side, found {size[0]} x {size[1]}")
        if size not in self._artists:
            self._artists[size] = Artist(self.experiment, self.space, self.reader, size)
        return self._artists[size]

    def _shift(self, artist: Artist) -> float:
        return resolution_shift(len(artist.positions), artist.trained_tokens)


def _leave_out(without: Sequence[str], experiment: DenoiseExperiment, directory) -> DenoiseExperiment:
    """The experiment as if it had never had these towers; nor image prompts, if E-CLIP is one of them."""
    names = experiment.towers.names
    if unknown := set(without) - set(names):
        raise ValueError(
            f"without {', '.join(sorted(unknown))}: the towers of {directory} are {', '.join(names) or 'none'}"
        )
    if names and set(without) == set(names):
        raise ValueError(f"without {', '.join(names)}: {directory} has no other tower to read a prompt; leave one")
    if "eclip" in without:
        model, data = replace(experiment.model, image_tokens=0), replace(experiment.data, reference_size=0)
        experiment = replace(experiment, model=model, data=data)
    return replace(experiment, towers=replace(experiment.towers, **{name: "" for name in without}))


def _part_of(params: dict, shapes: dict) -> dict:
    """The parameters that are in `shapes`, by name."""
    return {
        name: _part_of(params[name], below) if isinstance(below, dict) else params[name]
        for name, below in shapes.items()
    }
