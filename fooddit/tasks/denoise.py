"""The task of text to picture by rectified flow: its step, on data, and how it is judged."""

import functools
from pathlib import Path

import jax
import numpy as np

from fooddit.data.pipeline import Batches, TextInput, doubts, open_dataset
from fooddit.diffusion import loss_by_time
from fooddit.evaluation.features import open_features
from fooddit.evaluation.set_evaluation import (
    REAL_PICTURES,
    Reference,
    SetEvaluation,
    evaluate_set,
    wanted_pictures,
)
from fooddit.models.drawing import Artist
from fooddit.models.prompts import cut_captions, open_reader
from fooddit.parallel.placement import local_rows, place_rows, replicate
from fooddit.tasks.denoise_step import DenoiseExperiment, DenoiseStep
from fooddit.tasks.judges import find_judge
from fooddit.tasks.neighbours import TrainingNeighbours
from fooddit.tasks.run_data import records_folder, run_tokenizer
from fooddit.training.task import Evaluation

TIME_BINS = 5


class Denoise(DenoiseStep):
    """The velocity (or x0) of pictures in a picture space, given captions."""

    def __init__(self, experiment: DenoiseExperiment, workdir: Path, saved: dict | None = None):
        """`workdir`: a source such as "scenes:N" is rendered into its records folder; the report's pictures go there.

        `saved`: this task's metadata in the checkpoint that the run goes on from; its tokenizer is used again.
        """
        super().__init__(experiment)
        data = experiment.data
        source = records_folder(data.source, data.image_size, workdir)
        self.train_set, self.holdout_set = (
            open_dataset(source, split, cache=data.cache) for split in ("train", "holdout")
        )
        for doubt in doubts(self.train_set, data):
            self._warn(doubt)
        if len(self.holdout_set) < 2:
            self._warn(f"{len(self.holdout_set)} held-out pictures: no distance from real ones is measured")
        self.metadata = {
            "kind": "text_to_image",
            "frozen": self.frozen.description,
            "dataset": self.train_set.fingerprint,
        }
        if self.reader.widths is None:
            captions = (caption.text for caption in self.train_set.captions())
            tokenizer = run_tokenizer(captions, experiment.text.vocabulary, saved, experiment.init_from)
            self.metadata["tokenizer"] = tokenizer.to_json()
            self.reader = open_reader(experiment, tokenizer)
        if cut := cut_captions(self.reader, self.train_set.captions()):
            self._warn(cut)
        self._texts = {name: TextInput(self.reader.encodes[name], n) for name, n in self.reader.lengths.items()}
        size = data.image_size
        self.artist = Artist(experiment, self.space, self.reader, (size, size))
        self.judge = find_judge(self.holdout_set, self.artist)
        self.neighbours = TrainingNeighbours(self.train_set, self.holdout_set, size, workdir)
        self._validate = jax.jit(self._validation_loss)

    def _warn(self, text: str) -> None:
        print(f"warning: {self.train_set.folder}: {text}", flush=True)

    def batches(self, position: int, rows: np.ndarray | None = None) -> Batches:
        return Batches(
            self.train_set,
            self.experiment.data,
            seed=self.experiment.train.seed,
            tokenizers=self._texts,
            start=position,
            rows=rows,
            encoders=self.frozen.description,
        )

    def evaluate(self, params, frozen, step: int) -> Evaluation:
        settings = self.experiment.evaluation
        scalars, details, images = self._validation(params, frozen), {}, {}
        samples = sheet = None
        prompts = self.judge.prompts(settings.samples)
        texts = [prompt.text for prompt in prompts]
        if prompts:
            samples = self.artist.draw(params, frozen, prompts, range(len(prompts)), batch_size=settings.batch_size)
            known = settings.nearest and len(self.holdout_set)
            neighbours = self.neighbours.find(samples, texts) if known else None
            sheet = self.judge.sheet(samples, step, neighbours)
            if neighbours is not None:
                scalars |= neighbours.scalars()
                details |= neighbours.details()
                images["nearest_training"] = neighbours.page
        if settings.alignment:
            measured = self.judge.measure(self.artist, params, frozen, settings.alignment, settings.batch_size)
            scalars |= measured.scalars
            details |= measured.details
        if settings.distance and len(self.holdout_set) > 1:
            measured = self._distance(params, frozen)
            scalars |= measured.scalars()
            details["distance"] = measured.to_dict()
        return Evaluation(scalars, images, samples, tuple(texts), sheet, details)

    @functools.cached_property
    def _reference(self) -> Reference:
        features = open_features(self.experiment.evaluation.features)
        # As many as are drawn, at least: what real pictures get must not rest on fewer.
        count = max(REAL_PICTURES, self.experiment.evaluation.distance)
        return Reference(features, self.train_set, self.holdout_set, self.artist.size, count)

    def _distance(self, params, frozen) -> SetEvaluation:
        settings = self.experiment.evaluation
        wanted = wanted_pictures(self.holdout_set, settings.distance)
        drawn = self.artist.draw(params, frozen, wanted.prompts, wanted.seeds, batch_size=settings.batch_size)
        return evaluate_set(drawn, self._reference, wanted.dishes)

    def _validation_loss(self, params, frozen, batch: dict, key: jax.Array):
        t, flow = self.flow(params, self.device_batch(frozen, batch), key)
        return replicate(loss_by_time(flow.per_example, t, TIME_BINS))

    def _validation(self, params, frozen) -> dict[str, float]:
        """Loss on the hold-out by time bin, on the same examples, noise and times at every call, captions and image
        prompts dropped as in training: with other odds of dropping it is another number."""
        if len(self.holdout_set) == 0:
            return {}
        mesh, size = jax.sharding.get_mesh(), self.experiment.data.batch_size
        rows = local_rows(mesh, size)
        options = {"seed": 0, "tokenizers": self._texts, "rows": rows, "encoders": self.frozen.description}
        batches = Batches(self.holdout_set, self.experiment.data, **options)
        count = max(self.experiment.evaluation.examples // size, 1)
        sums = np.zeros((2, TIME_BINS))
        for _ in range(count):
            batch = {name: value for name, value in next(batches).items() if name != "record"}
            batch = place_rows(mesh, size, rows, batch)
            sums += np.array(self._validate(params, frozen, batch, jax.random.key(0)))
        batches.close()
        names = [f"val/loss_t{i / TIME_BINS:.1f}-{(i + 1) / TIME_BINS:.1f}" for i in range(TIME_BINS)]
        bins = {name: sums[0, i] / sums[1, i] for i, name in enumerate(names) if sums[1, i]}
        return {"val/loss": sums[0].sum() / sums[1].sum(), **bins}
