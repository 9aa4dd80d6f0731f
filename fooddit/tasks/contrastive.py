"""The task of contrastive training: E-CLIP on a catalogue's pairs, judged by retrieval among held-out pictures."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from fooddit.data.data_config import TextInput
from fooddit.data.pairs import PairBatches, number_categories, read_categories
from fooddit.data.pipeline import doubts, open_dataset
from fooddit.evaluation.retrieval import table
from fooddit.models.autoencoder import pixels_from_bytes
from fooddit.models.eclip_folder import save_eclip
from fooddit.parallel.placement import replicate
from fooddit.parallel.processes import from_first
from fooddit.tasks.contrastive_step import ContrastiveExperiment, ContrastiveStep, without_reconstruction
from fooddit.tasks.held_out_pairs import HeldOut, baseline_reports, read_held_out
from fooddit.tasks.run_data import records_folder, run_tokenizer
from fooddit.training.task import Evaluation

_SHOWN, _BEST = 4, 4


class Contrastive(ContrastiveStep):
    """Both towers on the pairs of a dataset; captions are read by a tokenizer that is trained on them."""

    def __init__(self, experiment: ContrastiveExperiment, workdir: Path, saved: dict | None = None):
        """`workdir`: a "scenes:N" source is rendered into its records folder. `saved`: this task's metadata in the
        checkpoint that the run goes on from; its tokenizer is used again."""
        super().__init__(experiment)
        data, model = experiment.data, experiment.model
        source = records_folder(data.source, data.image_size, workdir)
        self.train_set, self.holdout_set = (
            open_dataset(source, split, cache=data.cache) for split in ("train", "holdout")
        )
        for doubt in doubts(self.train_set, data.examples(model.image.patch)):
            print(f"warning: {self.train_set.folder}: {doubt}", flush=True)
        captions = (caption.text for caption in self.train_set.captions())
        self.tokenizer = run_tokenizer(captions, model.text.vocabulary, saved, experiment.init_from)
        self._text = TextInput(lambda text: self.tokenizer.encode(text, model.text.length), model.text.length)
        self._categories = self._read_categories()
        self.metadata = {
            "kind": "eclip",
            "tokenizer": self.tokenizer.to_json(),
            "dataset": self.train_set.fingerprint,
        }
        self._held_out: HeldOut | None = None
        self._baselines: dict | None = None
        self._encode_image = jax.jit(self._image_vectors)
        self._encode_text = jax.jit(self._text_vectors)

    def batches(self, position: int, rows: np.ndarray | None = None) -> PairBatches:
        return PairBatches(
            self.train_set,
            self.experiment.data,
            grid=self.experiment.model.image.patch,
            seed=self.experiment.train.seed,
            text=self._text,
            categories=self._categories,
            start=position,
            rows=rows,
        )

    def evaluate(self, params, frozen, step: int) -> Evaluation:
        if not len(self.holdout_set):
            return Evaluation()
        held_out, baselines = self._read_held_out()
        images = self._vectors(self._encode_image, params, held_out.pictures)
        reports = held_out.reports(lambda texts: images @ self.encode_texts(params, texts).T)
        everyone = {"E-CLIP": reports, **baselines}
        print(f"held-out pictures, step {step}\n{table(everyone)}", flush=True)
        scalars = {}
        for language, report in reports.items():
            scalars |= report.scalars(language)
        details = {
            name: {language: report.to_dict() for language, report in by_language.items()}
            for name, by_language in everyone.items()
        }
        samples, prompts = self._best(held_out, images, params)
        return Evaluation(scalars, samples=samples, prompts=prompts, details={"retrieval": details})

    def export(self, params, path: Path) -> None:
        """Writes the folder that `models.eclip_folder.open_eclip` reads."""
        save_eclip(path, self.experiment.model, without_reconstruction(params), self.tokenizer)

    def encode_texts(self, params, texts: Sequence[str]) -> Float[np.ndarray, "texts embed"]:
        """A vector of length one for each text, zero for ""."""
        ids, masks = zip(*(self._text.tokenize(text) for text in texts), strict=True)
        return self._vectors(self._encode_text, params, np.stack(ids), np.stack(masks))

    def _vectors(self, encode, params, *arrays: np.ndarray) -> np.ndarray:
        """Of arrays of any length, so many at once."""
        size, count = self.experiment.evaluation.batch_size, len(arrays[0])
        found = []
        for start in range(0, count, size):
            parts = [array[start : start + size] for array in arrays]
            missing = [(0, size - len(parts[0]))]
            parts = [np.pad(part, missing + [(0, 0)] * (part.ndim - 1)) for part in parts]
            found.append(np.asarray(encode(params, *parts)))
        return np.concatenate(found)[:count]

    def _image_vectors(self, params, image):
        return replicate(self.definition.bind(params).encode_image(pixels_from_bytes(image)).pooled)

    def _text_vectors(self, params, ids, mask):
        return replicate(self.definition.bind(params).encode_text(ids, mask).pooled)

    def _read_categories(self) -> np.ndarray:
        """Of all processes one reads them: on another's disk a record may be damaged."""
        if not self.experiment.data.hard:
            return np.full(len(self.train_set), -1, np.int64)
        return number_categories(from_first(lambda: {"found": read_categories(self.train_set)})["found"])

    def _read_held_out(self) -> tuple[HeldOut, dict]:
        if self._held_out is None:
            settings, size = self.experiment.evaluation, self.experiment.data.image_size
            self._held_out = read_held_out(self.holdout_set, settings.examples, size)
            words = lambda text: self.tokenizer.encode(text, max(self.tokenizer.count(text), 1))[0].tolist()  # noqa: E731
            self._baselines = baseline_reports(self._held_out, self.train_set, settings.baseline, words)
        return self._held_out, self._baselines

    def _best(self, held_out: HeldOut, images: np.ndarray, params) -> tuple[np.ndarray, tuple[str, ...]]:
        """For some captions, of all languages in turn, the pictures that are most similar to them."""
        said = [[text for text in gallery.texts if text] for gallery in held_out.galleries.values()]
        asked = [texts[i] for i in range(_SHOWN) for texts in said if i < len(texts)][:_SHOWN]
        if not asked:
            return held_out.pictures[:0], ()
        order = np.argsort(-self.encode_texts(params, asked) @ images.T, axis=1, kind="stable")[:, :_BEST]
        prompts = tuple(f"{place + 1}. for: {text}" for text, row in zip(asked, order) for place in range(len(row)))
        return held_out.pictures[order.ravel()], prompts
