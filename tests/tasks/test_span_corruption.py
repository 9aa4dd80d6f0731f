"""The task's judgement: what it counts, the baseline beside it, and the folder that comes out."""

import json

import jax
import numpy as np
import pytest

from fooddit.config import ConfigError, build
from fooddit.models.t5_folder import open_t5
from fooddit.tasks import span_corruption
from fooddit.tasks.span_corruption import SpanCorruption, SpanExperiment, SpanStep

VALUES = {
    "task": "span_corruption",
    "model": {"vocabulary": 512, "width": 16, "depth": 1, "decoder_depth": 1, "heads": 2, "head_dim": 8, "mlp": 24},
    "data": {"source": "scenes:8", "batch_size": 8, "length": 32},
    "examples": 16,
}


@pytest.fixture(scope="module")
def task():
    return SpanCorruption(build(SpanExperiment, VALUES))


@pytest.fixture(scope="module")
def params(task):
    return jax.jit(task.init)(jax.random.key(0))


def batch(task):
    stream = task.batches(0)
    found = next(stream)
    stream.close()
    return found


def test_the_loss_is_a_mean_of_texts_so_that_parts_sum_to_the_whole(task, params):
    whole, loss = batch(task), jax.jit(lambda b: task.loss(params, {}, b, jax.random.key(0))[0])
    parts = [loss({name: value[i::2] for name, value in whole.items()}) for i in range(2)]
    assert whole["target_mask"].sum(axis=1).std() > 0
    np.testing.assert_allclose(np.mean(parts), loss(whole), rtol=1e-5)
    masked = {**whole, "target": np.where(whole["target_mask"], whole["target"], 77)}
    np.testing.assert_allclose(loss(masked), loss(whole), rtol=1e-6)


def test_the_judgement_is_of_missing_text_beside_its_frequencies(task, params):
    result = task.evaluate(params, {}, 0)
    again = task.evaluate(params, {}, 0)
    assert result.scalars == again.scalars and result.details == again.details
    assert result.scalars["val/accuracy"] < 0.2 and result.scalars["val/text_loss"] > 5
    # By hand: of the same 16 held-out texts, without sentinels and ends.
    stream = task._batches(task.corpus.holdout, 0, 0, None)
    targets = [next(stream) for _ in range(2)]
    stream.close()
    text = np.concatenate([x["target"][x["target_mask"]] for x in targets])
    text = text[(text > 1) & (text < task.words.token_to_id("<extra_id_99>"))]
    ids = [i for t in task.corpus.train for i in task.words.encode(t, add_special_tokens=False).ids]
    counts = np.bincount(ids, minlength=512) + 1
    assert result.scalars["val/unigram_loss"] == pytest.approx(-np.log(counts / counts.sum())[text].mean(), rel=1e-5)
    assert result.scalars["val/unigram_accuracy"] == pytest.approx((text == counts.argmax()).mean())
    shown = result.details["spans"]
    assert len(shown) == 8 and all("<extra_id_0>" in s["input"] and "<extra_id_0>" in s["target"] for s in shown)
    json.dumps(result.details)


def test_what_is_exported_is_read_as_a_frozen_encoder(task, params, tmp_path):
    task.export(jax.tree.map(np.asarray, params), tmp_path / "t5")
    encoder = open_t5(str(tmp_path / "t5"), 24, "float32")
    assert encoder.config == task.experiment.model
    jax.tree.map(np.testing.assert_array_equal, encoder.load(), params["encoder"])
    for text in ("three dumplings on a blue plate", "蓝色圆盘里是三只饺子"):
        ids, mask = encoder.tokenize(text)
        assert ids[mask].tolist() == task.words.encode(text).ids
    with pytest.raises(FileExistsError, match="give a new folder"):
        task.export(params, tmp_path / "t5")


def test_a_resumed_run_keeps_its_tokenizer(task, monkeypatch):
    monkeypatch.setattr(span_corruption, "train_unigram", None)
    saved = json.loads(json.dumps(task.metadata))
    assert SpanCorruption(task.experiment, None, saved).metadata == task.metadata
    monkeypatch.setattr(span_corruption, "source_metadata", lambda _: {"task": task.metadata})
    other = SpanCorruption(build(SpanExperiment, VALUES | {"init_from": "runs/other"}))
    assert other.metadata["tokenizer"] == task.metadata["tokenizer"]
    monkeypatch.setattr(span_corruption, "source_metadata", lambda _: {"task": {"kind": "text_to_image"}})
    with pytest.raises(ConfigError, match="runs/other is no run of the task 'span_corruption'"):
        SpanCorruption(build(SpanExperiment, VALUES | {"init_from": "runs/other"}))


def test_flops_are_those_of_the_traced_step(task):
    from fooddit.aot.operations import flops

    step = SpanStep(task.experiment)
    traced = jax.jit(jax.grad(lambda p, b: step.loss(p, {}, b, None)[0])).trace(step.shapes, step.batch_shapes)
    assert flops(traced.jaxpr.jaxpr) == pytest.approx(8 * step.flops_per_example, rel=0.05)


@pytest.mark.parametrize(
    "section, change, says",
    [
        ("model", {"vocabulary": 300}, "model.vocabulary is 300: expected at least 423"),
        ("model", {"decoder_depth": 0}, "decoder_depth is 0"),
        ("train", {"accumulate": 3}, "expected a multiple of train.accumulate"),
    ],
)
def test_a_config_that_cannot_be_is_refused(section, change, says):
    with pytest.raises(ConfigError, match=says):
        build(SpanExperiment, VALUES | {section: VALUES.get(section, {}) | change})
