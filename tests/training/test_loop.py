"""The loop with a task of a few numbers: order, resuming, divergence, starting from another run."""

import json
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fooddit.config import ConfigError
from fooddit.diffusion import example_keys, example_noise
from fooddit.parallel import MeshConfig, make_mesh
from fooddit.training import loop
from fooddit.training.checkpoint import CheckpointConfig, CheckpointMismatch, load_parameters
from fooddit.training.checkpoint_layout import list_steps
from fooddit.training.frozen import Frozen
from fooddit.training.loop import tile, train
from fooddit.training.metrics import read_metrics
from fooddit.training.optimizer import OptimizerConfig
from fooddit.training.reporter import TrainingDiverged
from fooddit.training.resume import RunMismatch
from fooddit.training.task import Evaluation, Experiment, TrainConfig


@dataclass(frozen=True)
class Line(Experiment):
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(warmup=1, learning_rate=0.05))


class Numbers:
    """Batches of x, and y = 3 x; from `poison` on they hold a NaN."""

    def __init__(self, position, log, poison, name="numbers"):
        self.position, self.fingerprint, self.log, self.poison = position, {"dataset": name}, log, poison
        self.damaged = 0

    def __next__(self):
        x = np.random.default_rng(self.position).normal(size=(8, 1)).astype(np.float32)
        if self.position >= self.poison:
            x[0] = np.nan
        self.log.append(self.position)
        self.position += 1
        return {"x": x, "y": 3 * x, "index": np.arange(8, dtype=np.int32) + 8 * self.position}

    def close(self):
        self.log.append("closed")


class LineTask:
    def __init__(self, features=1, poison=10**9, dataset="numbers"):
        self.shapes = {"weight": {"kernel": jax.ShapeDtypeStruct((features, 1), jnp.float32)}}
        self.axes = {"weight": {"kernel": None}}
        self.batch_shapes = {"index": jax.ShapeDtypeStruct((8,), jnp.int32)}
        self.frozen, self.metadata, self.flops_per_example = Frozen(), {"kind": "line"}, 12.0
        self.log, self.evaluated, self._poison, self._dataset = [], [], poison, dataset

    def init(self, key):
        return jax.tree.map(lambda s: jnp.zeros(s.shape), self.shapes)

    def batches(self, position, rows=None):
        return Numbers(position, self.log, self._poison, self._dataset)

    def device_batch(self, frozen, batch):
        return batch

    def loss(self, params, frozen, batch, key):
        noise = 0.01 * example_noise(example_keys(key, batch["index"]), (1,))
        return jnp.mean(((batch["x"] + noise) @ params["weight"]["kernel"] - batch["y"]) ** 2), {}

    def evaluate(self, params, frozen, step):
        self.evaluated.append(step)
        return Evaluation({"val/weight": float(params["weight"]["kernel"][0, 0])}, details={"note": "done"})


def experiment(steps=20, **changes):
    settings = {"evaluate_every": 8, "checkpoint": CheckpointConfig(every=5, keep=2), **changes}
    return Line(task="line", train=TrainConfig(steps=steps, log_every=4, max_skipped=3), **settings)


def test_a_run_learns_saves_evaluates_and_reports(tmp_path):
    task = LineTask()
    result = train(task, experiment(steps=60), tmp_path)
    assert task.evaluated == [8, 16, 24, 32, 40, 48, 56, 60]
    assert task.log == [*range(60), "closed"]
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "train/loss" in line]
    assert [line["step"] for line in lines] == list(range(4, 61, 4))
    assert lines[-1]["train/loss"] < 0.2 * lines[0]["train/loss"]
    assert all(line["train/images_per_second"] > 0 for line in lines)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["note"] == "done" and summary["steps"] == 60 and summary["parameters"] == 1
    assert result.evaluation.scalars["val/weight"] == summary["val/weight"]
    assert (tmp_path / "report.html").exists() and (tmp_path / "config.json").exists()


def test_a_longer_run_goes_on_where_the_shorter_one_ended(tmp_path):
    # The same schedule for both: a constant rate.
    constant = {"optimizer": OptimizerConfig(warmup=1, learning_rate=0.05, final=1.0)}
    train(LineTask(), experiment(20, **constant), tmp_path / "straight")
    train(LineTask(), experiment(10, **constant), tmp_path / "halves")
    second = LineTask()
    train(second, experiment(20, **constant), tmp_path / "halves")
    assert second.log == [*range(10, 20), "closed"]
    expected, found = (load_parameters(tmp_path / name)[0] for name in ("straight", "halves"))
    np.testing.assert_array_equal(found["weight"]["kernel"], expected["weight"]["kernel"])


def test_a_finished_run_is_left_as_it_is(tmp_path):
    first = train(LineTask(), experiment(5), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    again = LineTask()
    second = train(again, experiment(5, evaluate_every=3), tmp_path)
    assert again.evaluated == [] and again.log == ["closed"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert second.summary == first.summary
    np.testing.assert_array_equal(second.params["weight"]["kernel"], first.params["weight"]["kernel"])


def test_a_run_that_was_stopped_before_its_last_judgement_gets_it(tmp_path):
    train(LineTask(), experiment(5), tmp_path)
    (tmp_path / "summary.json").unlink()
    again = LineTask()
    train(again, experiment(5), tmp_path)
    assert again.evaluated == [5] and again.log == ["closed"] and (tmp_path / "summary.json").exists()


def test_a_run_that_is_past_its_last_step_is_refused(tmp_path):
    train(LineTask(), experiment(5), tmp_path)
    with pytest.raises(RunMismatch, match="at step 5 already, config.train.steps is 3"):
        train(LineTask(), experiment(3), tmp_path)


def test_non_finite_steps_in_a_row_stop_the_run_with_the_parameters_from_before(tmp_path):
    with pytest.raises(TrainingDiverged, match="3 steps in a row up to step 13 .*learning_rate"):
        train(LineTask(poison=10), experiment(40), tmp_path)
    params, metadata = load_parameters(tmp_path)
    assert metadata["data"]["position"] == 10
    assert np.isfinite(params["weight"]["kernel"]).all()


def test_while_steps_are_skipped_nothing_is_saved(tmp_path):
    with pytest.raises(TrainingDiverged, match="3 steps in a row up to step 12 "):
        train(LineTask(poison=9), experiment(40, checkpoint=CheckpointConfig(every=1, keep=2)), tmp_path)
    assert list_steps(tmp_path / "checkpoints") == [8, 9]


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    # Loss and gradient are finite, the update is not; no next step would see it.
    task = LineTask()
    task.axes = {"weight": {"kernel": ("embed", "mlp")}}
    task.init = lambda _: jax.tree.map(lambda s: jnp.full(s.shape, 1e15), task.shapes)
    settings = OptimizerConfig(warmup=0, learning_rate=1.0, weight_decay=1e30)
    with pytest.raises(TrainingDiverged, match="not finite at step 1: not saved; go on .*accept_changes"):
        train(task, experiment(1, optimizer=settings), tmp_path)
    assert list_steps(tmp_path / "checkpoints") == []


def test_a_batch_that_the_devices_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "device_mesh", lambda _: make_mesh(MeshConfig(data=3), jax.devices()[:3]))
    with pytest.raises(ConfigError, match="batch_size: 8 examples cannot be shared evenly by 3 devices"):
        train(LineTask(), experiment(1), tmp_path)


def test_a_validation_loss_that_is_not_finite_stops_the_run(tmp_path):
    task = LineTask()
    task.evaluate = lambda *_: Evaluation({"val/loss": float("nan"), "val/other": float("nan")})
    with pytest.raises(TrainingDiverged, match="val/loss is nan at step 8"):
        train(task, experiment(20), tmp_path)
    assert not (tmp_path / "summary.json").exists()


def test_another_dataset_or_model_is_refused_before_training(tmp_path):
    train(LineTask(), experiment(5), tmp_path)
    with pytest.raises(RunMismatch, match="dataset: was 'numbers', is 'letters'"):
        train(LineTask(dataset="letters"), experiment(10), tmp_path)
    with pytest.raises(RunMismatch, match="dataset: was 'numbers', is 'letters'"):
        train(LineTask(dataset="letters"), experiment(5), tmp_path)  # Finished as it is.
    with pytest.raises(CheckpointMismatch, match="weight/kernel"):
        train(LineTask(features=2), experiment(10), tmp_path)


def test_init_from_takes_parameters_by_name_and_says_what_it_did_not_find(tmp_path, capsys):
    first = LineTask()
    first.metadata["frozen"] = {"space": {"autoencoder": "small"}, "t5": {"source": "a"}}
    train(first, experiment(30), tmp_path / "first")
    learned = load_parameters(tmp_path / "first")[0]["weight"]["kernel"]

    class Longer(LineTask):
        def __init__(self):
            super().__init__()
            self.shapes["offset"] = {"kernel": jax.ShapeDtypeStruct((1, 1), jnp.float32)}
            self.axes["offset"] = {"kernel": None}
            self.metadata["frozen"] = {"space": {"autoencoder": "large"}, "eclip": {"source": "b"}}

        def loss(self, params, frozen, batch, key):
            return jnp.mean((batch["x"] * params["weight"]["kernel"] - learned * batch["x"]) ** 2), {}

    still = OptimizerConfig(learning_rate=1e-9)
    train(Longer(), experiment(1, init_from=str(tmp_path / "first"), optimizer=still), tmp_path / "second")
    out = capsys.readouterr().out
    assert "1 of 2 parameters by name" in out and "unexpected: none" in out
    assert "missing: 1\n    offset/kernel" in out
    assert f"{tmp_path / 'first'} was trained with the space {{'autoencoder': 'small'}}, this run has" in out
    assert out.count("warning: ") == 1
    found = load_parameters(tmp_path / "second", ema=False)[0]["weight"]["kernel"]
    np.testing.assert_allclose(found, learned, atol=1e-6)


def test_init_from_a_run_with_nothing_in_common_is_refused(tmp_path):
    train(LineTask(), experiment(2), tmp_path / "first")

    class Other(LineTask):
        def __init__(self):
            super().__init__()
            self.shapes, self.axes = {"other": self.shapes["weight"]}, {"other": self.axes["weight"]}

    with pytest.raises(ConfigError, match="no parameter of this model"):
        train(Other(), experiment(2, init_from=str(tmp_path / "first")), tmp_path / "second")


def test_tiles_stand_in_reading_order():
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.ones((1, 2, 3, 3), np.uint8)
    grid = tile(images, 3)
    assert grid.shape == (4, 9, 3)
    assert grid[0, ::3, 0].tolist() == [0, 1, 2] and grid[2, ::3, 0].tolist() == [3, 4, 0]
