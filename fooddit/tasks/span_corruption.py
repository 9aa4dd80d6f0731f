"""A T5 of our own, trained as the published ones were: what was taken out of a text is to be said (span corruption)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tokenizers

from fooddit.config import OPERATIONAL, ConfigError
from fooddit.data.corpus import read_corpus
from fooddit.data.spans import SpanBatches, SpanDataConfig, corrupted_lengths, span_batch_shapes
from fooddit.data.unigram import (
    END,
    LEAST_VOCABULARY,
    SENTINELS,
    from_json,
    sentinel,
    spelled_as_bytes,
    to_json,
    train_unigram,
)
from fooddit.models.module import count, define
from fooddit.models.t5 import T5Config
from fooddit.models.t5_decoder import T5
from fooddit.models.t5_folder import save_t5
from fooddit.parallel.placement import local_rows, place_rows, replicate
from fooddit.parallel.processes import from_first
from fooddit.training.frozen import Frozen
from fooddit.training.task import Evaluation, Experiment
from fooddit.training.transfer import source_metadata

# Texts that the tokenizer and the baseline are made from; more change neither.
_SAMPLE = 20_000
_SHOWN = 8


@dataclass(frozen=True)
class SpanExperiment(Experiment):
    """Config of the task `span_corruption`.

    Attributes:
      examples: held-out texts whose spans are predicted at each evaluation.
    """

    model: T5Config = field(default_factory=T5Config)
    data: SpanDataConfig = field(default_factory=SpanDataConfig)
    examples: int = field(default=2048, metadata=OPERATIONAL)

    def __post_init__(self):
        super().__post_init__()
        if self.model.vocabulary < LEAST_VOCABULARY:
            raise ValueError(
                f"model.vocabulary is {self.model.vocabulary}: expected at least {LEAST_VOCABULARY}, for the bytes, "
                f"{SENTINELS} sentinels and some pieces"
            )
        if self.model.decoder_depth < 1:
            raise ValueError("model.decoder_depth is 0: spans are said by a decoder; expected at least 1")
        if self.examples < 1:
            raise ValueError(f"examples must be at least 1, found {self.examples}")
        if self.data.batch_size % self.train.accumulate:
            raise ValueError(
                f"data.batch_size is {self.data.batch_size}: expected a multiple of train.accumulate, "
                f"which is {self.train.accumulate}"
            )


class SpanStep:
    """The part of the task that is compiled: parameters, what a batch is, the loss."""

    def __init__(self, experiment: SpanExperiment):
        self.experiment = experiment
        self.definition = define(lambda rngs: T5(experiment.model, rngs=rngs))
        self.shapes, self.axes, self.init = self.definition.shapes, self.definition.axes, self.definition.init
        self.frozen = Frozen()
        self.flops_per_example = _flops(experiment.model, self.shapes, *corrupted_lengths(experiment.data))

    @property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        return span_batch_shapes(self.experiment.data)

    def device_batch(self, frozen, batch: dict) -> dict:
        return batch

    def loss(self, params, frozen, batch: dict, key: jax.Array):
        """Cross-entropy of a target's tokens, its mean over each text and then over texts."""
        losses, right = self._judge(params, batch)
        weight = batch["target_mask"] / batch["target_mask"].sum(axis=1, keepdims=True)
        return (losses * weight).sum(axis=1).mean(), {"accuracy": (right * weight).sum(axis=1).mean()}

    def _judge(self, params, batch: dict) -> tuple[jax.Array, jax.Array]:
        """Of each target token, given those before it: cross-entropy, and whether it is the likeliest."""
        logits = self.definition.bind(params)(batch["input"], batch["input_mask"], batch["target"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["target"])
        return losses, logits.argmax(-1) == batch["target"]


class SpanCorruption(SpanStep):
    """The step, on captions and text files, and its judgement on held-out ones."""

    def __init__(self, experiment: SpanExperiment, workdir: Path | None = None, saved: dict | None = None):
        super().__init__(experiment)
        data = experiment.data
        files = [name.strip() for name in data.files.split(",") if name.strip()]
        self.corpus = read_corpus(data.source, files, data.cache)
        sample = self.corpus.train[:: -(-len(self.corpus.train) // _SAMPLE)]
        self.words = _tokenizer(experiment, sample, saved)
        self.metadata = {"kind": "t5", "tokenizer": to_json(self.words), "dataset": self.corpus.fingerprint}
        self.sentinels = [self.words.token_to_id(sentinel(i)) for i in range(SENTINELS)]
        self._frequency = self._unigram(sample)
        self._measure = jax.jit(self._sums)
        self._say = jax.jit(self._likeliest)

    def batches(self, position: int, rows: np.ndarray | None = None) -> SpanBatches:
        return self._batches(self.corpus.train, self.experiment.train.seed, position, rows)

    def evaluate(self, params, frozen, step: int) -> Evaluation:
        """On the same held-out texts and spans at every call.

        val/loss is of all target tokens; the other figures are of the missing text alone, without sentinels and ends,
        which are no riddle: val/text_loss and val/accuracy beside those of a guess by the training text's frequencies.
        """
        mesh, size = jax.sharding.get_mesh(), self.experiment.data.batch_size
        rows = local_rows(mesh, size)
        batches = self._batches(self.corpus.holdout, 0, 0, rows)
        sums, shown = np.zeros(len(_Sums._fields)), []
        for i in range(max(self.experiment.examples // size, 1)):
            batch = place_rows(mesh, size, rows, next(batches))
            sums += np.array(self._measure(params, batch))
            if i == 0:
                shown = self._examples(params, batch)
        batches.close()
        found = _Sums(*sums.tolist())
        text = found.text or 1.0
        scalars = {
            "val/loss": found.loss / found.tokens,
            "val/text_loss": found.text_loss / text,
            "val/unigram_loss": found.unigram_loss / text,
            "val/accuracy": found.right / text,
            "val/unigram_accuracy": found.unigram_right / text,
        }
        return Evaluation(scalars, details={"vocabulary": self.words.get_vocab_size(), "spans": shown})

    def export(self, params, path: Path) -> None:
        """Writes a folder in the Hugging Face layout, which `open_t5` and transformers read."""
        save_t5(path, self.experiment.model, params, self.words)

    def _batches(self, texts, seed: int, position: int, rows: np.ndarray | None) -> SpanBatches:
        return SpanBatches(
            texts,
            self.experiment.data,
            seed=seed,
            encode=lambda text: self.words.encode(text, add_special_tokens=False).ids,
            sentinels=self.sentinels,
            fingerprint=self.corpus.fingerprint,
            start=position,
            rows=rows,
        )

    def _unigram(self, sample) -> np.ndarray:
        """Log-probability of each token by how often the training text has it; each at least once."""
        counts = np.ones(self.experiment.model.vocabulary)
        for found in self.words.encode_batch_fast(list(sample), add_special_tokens=False):
            np.add.at(counts, found.ids, 1)
        return np.log(counts / counts.sum()).astype(np.float32)

    def _sums(self, params, batch: dict):
        losses, right = self._judge(params, batch)
        target, mask, frequency = batch["target"], batch["target_mask"], jnp.asarray(self._frequency)
        text = mask & (target != self.words.token_to_id(END)) & (target < self.sentinels[-1])
        common = target == frequency.argmax()
        rows = (losses, mask, losses * text, text, right & text, -frequency[target] * text, common & text)
        return replicate(jnp.stack([(row * mask).sum().astype(jnp.float32) for row in rows]))

    def _likeliest(self, params, batch: dict):
        """The first targets, and what the model would say at each of their places."""
        few = {name: replicate(value[:_SHOWN]) for name, value in batch.items()}
        said = self.definition.bind(params)(few["input"], few["input_mask"], few["target"]).argmax(-1)
        return few | {"said": replicate(said)}

    def _examples(self, params, batch: dict) -> list[dict[str, str]]:
        """Texts with what is missing, and what the model says, for people to read."""
        found = jax.device_get(self._say(params, batch))
        masks = {"input": found["input_mask"], "target": found["target_mask"], "said": found["target_mask"]}
        texts = {name: [self._read(ids[m]) for ids, m in zip(found[name], mask)] for name, mask in masks.items()}
        return [dict(zip(texts, values)) for values in zip(*texts.values())]

    def _read(self, ids: np.ndarray) -> str:
        """Tokens as text, sentinels and all."""
        tokens = [self.words.id_to_token(i) or "" for i in ids.tolist()]
        return "".join(tokens).replace("▁", " ").strip()


class _Sums(NamedTuple):
    """Over held-out targets, in the order in which `_sums` stacks them."""

    loss: float
    tokens: float
    text_loss: float
    text: float
    right: float
    unigram_loss: float
    unigram_right: float


def _tokenizer(experiment: SpanExperiment, sample, saved: dict | None) -> tokenizers.Tokenizer:
    """This run's own, if it is resumed; of the run that it starts from, whose embedding it takes; else a new one."""
    if saved is not None:
        return from_json(saved["tokenizer"])
    if experiment.init_from:
        made = source_metadata(experiment.init_from)["task"]
        if made.get("kind") != "t5":
            raise ConfigError(f"config.init_from: {experiment.init_from} is no run of the task 'span_corruption'")
        return from_json(made["tokenizer"])
    vocabulary = experiment.model.vocabulary
    words = from_json(from_first(lambda: to_json(train_unigram(sample, vocabulary))))
    if spelled := spelled_as_bytes(words, sample):
        print(
            f"warning: {len(spelled)} characters of the captions ({''.join(sorted(spelled)[:10])}) have no place among "
            f"config.model.vocabulary={vocabulary} tokens: they are spelled as bytes",
            flush=True,
        )
    return words


def _flops(config: T5Config, shapes, inputs: int, targets: int) -> float:
    """Model FLOPs of one example's forward and backward pass: matrices by the tokens that they see, and attention."""
    encoder, decoder = shapes["encoder"]["blocks"], shapes["decoder"]["blocks"]
    context = {name: decoder["cross"][name] for name in ("key", "value")}
    products = inputs * (count(encoder) + count(context)) + targets * (count(decoder) - count(context))
    products += targets * config.vocabulary * config.width
    pairs = config.depth * inputs**2 + config.decoder_depth * targets * (targets + inputs)
    return 3.0 * 2.0 * (products + 2 * pairs * config.heads * config.head_dim)
