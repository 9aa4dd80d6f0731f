"""The one training loop, for every task: a straight line."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fooddit import config as config_module
from fooddit.parallel import batch_sharding, make_mesh, parameter_shardings, state_shardings
from fooddit.training.checkpoint import Checkpointer, load_parameters
from fooddit.training.checkpoint_layout import FOLDER
from fooddit.training.metrics import MetricWriter
from fooddit.training.optimizer import make_optimizer, schedule
from fooddit.training.progress import Progress
from fooddit.training.report import write_report
from fooddit.training.state import State
from fooddit.training.step import make_step
from fooddit.training.task import Evaluation, Experiment, Task, profile_steps
from fooddit.training.throughput import peak_flops, utilization
from fooddit.training.transfer import merge_by_name


class TrainingDiverged(RuntimeError):
    """Too many non-finite steps in a row."""


class RunMismatch(ValueError):
    """A workdir whose checkpoint cannot go on: of other data, batch size or seed, or past the last step already."""


class Result(NamedTuple):
    """The end of a run: averaged parameters, the last evaluation, and what summary.json says."""

    params: Any
    evaluation: Evaluation
    summary: dict[str, Any]


def train(task: Task, experiment: Experiment, workdir: Path, started: float | None = None) -> Result:
    """Trains `task` to its last step in `workdir`, resuming from the newest checkpoint there.

    `started`: the time.perf_counter() from which the summary's seconds count, now if None.

    Raises:
      TrainingDiverged: `train.max_skipped` non-finite steps in a row.
      RunMismatch, CheckpointMismatch: the checkpoint in `workdir` is of other data or another model.
    """
    settings, started = experiment.train, time.perf_counter() if started is None else started
    is_writer = jax.process_index() == 0
    workdir.mkdir(parents=True, exist_ok=True)

    # Devices: everything is laid out before anything is made.
    mesh = make_mesh(experiment.mesh)
    replicated = NamedSharding(mesh, PartitionSpec())
    optimizer = make_optimizer(experiment.optimizer, settings.steps, task.axes)
    learning_rate = schedule(experiment.optimizer, settings.steps)
    abstract = abstract_state(task, optimizer, mesh)
    frozen = jax.device_put(task.frozen, replicated)

    # Start: this run's own checkpoint, else another run's parameters by name, else random ones.
    checkpointer = Checkpointer(workdir / FOLDER, experiment.checkpoint)
    state, saved = _start(task, experiment, checkpointer, optimizer, abstract)
    first = int(state.step)
    if first > settings.steps:
        raise RunMismatch(
            f"{checkpointer.directory} is at step {first} already, config.train.steps is {settings.steps}; give more "
            "steps or another workdir"
        )
    if first == settings.steps and (workdir / "summary.json").exists():
        print(f"{workdir} is finished: {first} steps; more of them go on from there (config.train.steps)", flush=True)
        checkpointer.close()
        summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
        return Result(jax.device_get(state.opt_state["ema"].params), Evaluation(), summary)
    batches = task.batches(first, (jax.process_index(), jax.process_count()))
    if saved is not None:
        _check_data(saved["data"], batches, checkpointer.directory)
    metadata = {"experiment": config_module.to_dict(experiment), "task": task.metadata}
    if is_writer:
        _write_json(workdir / "config.json", metadata["experiment"])

    step_function = jit_step(task, experiment, optimizer, abstract)
    to_device = jax.jit(task.device_batch)
    place = batch_sharding(mesh)
    writer = MetricWriter(workdir, resume_step=first)
    capacity = peak_flops()
    progress = Progress(settings.steps, first, capacity.label, enabled=is_writer)
    window = _Window(first)
    profile = profile_steps(experiment.profile)
    pending: dict | None = None
    skipped = 0

    try:
        for step in range(first, settings.steps):
            # The order is fixed: save, then evaluate, then draw the next batch, so that a checkpoint holds the state
            # and the data position of one moment.
            if step > first and step % experiment.checkpoint.every == 0:
                checkpointer.save(step, state, {**metadata, "data": _data(batches)})
            if step > first and experiment.evaluate_every and step % experiment.evaluate_every == 0:
                skipped = _count_skipped(pending, skipped, settings.max_skipped, step)
                _log(pending, step, window, writer, progress, task, capacity, learning_rate)
                pending = None
                _evaluate(task, state, frozen, step, writer)
                window.restart(step)
            if step == profile[0]:
                jax.profiler.start_trace(workdir / "profile")

            waited = time.perf_counter()
            host_batch = next(batches)
            window.waited += time.perf_counter() - waited
            window.batch = len(host_batch["index"]) * jax.process_count()
            batch = to_device(frozen, _put(host_batch, place))
            state, metrics = step_function(state, frozen, batch)

            # The metrics of the step before are read while this one runs: the device never waits for the host.
            if pending is not None:
                skipped = _count_skipped(pending, skipped, settings.max_skipped, step)
                if step % settings.log_every == 0:
                    _log(pending, step, window, writer, progress, task, capacity, learning_rate)
            pending = metrics
            if step + 1 == profile[1]:
                jax.block_until_ready(state)
                jax.profiler.stop_trace()

        # The end: the last step is logged, saved and judged like any other.
        if pending is not None:
            _count_skipped(pending, skipped, settings.max_skipped, settings.steps)
            _log(pending, settings.steps, window, writer, progress, task, capacity, learning_rate)
            checkpointer.save(settings.steps, state, {**metadata, "data": _data(batches)})
        evaluation = _evaluate(task, state, frozen, settings.steps, writer)
        checkpointer.wait()
    finally:
        batches.close()
        progress.close()
        writer.close()
        checkpointer.close()
    summary = {
        **evaluation.details,
        **evaluation.scalars,
        "steps": settings.steps,
        "seconds": round(time.perf_counter() - started, 1),
        "images_per_second": round(window.images_per_second, 1),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(task.shapes)),
        "checkpoint": str(workdir / FOLDER / str(settings.steps)),
    }
    if is_writer:
        _write_json(workdir / "summary.json", summary)
        if evaluation.sheet is not None:
            evaluation.sheet.save(workdir / "samples.png", optimize=True)
        write_report(workdir)
    return Result(jax.device_get(state.opt_state["ema"].params), evaluation, summary)


class _Window:
    """What happened since the last line of metrics."""

    def __init__(self, step: int):
        self.images_per_second, self.batch = 0.0, 0
        self.restart(step)

    def restart(self, step: int) -> None:
        self.step, self.began, self.waited = step, time.perf_counter(), 0.0

    def close(self, step: int) -> dict[str, float]:
        """Rates of the window that ends at `step`; a new one begins."""
        seconds = time.perf_counter() - self.began
        self.images_per_second = self.batch * (step - self.step) / seconds
        rates = {
            "train/images_per_second": self.images_per_second,
            "train/data_wait": self.waited / seconds,
            "train/step_seconds": seconds / (step - self.step),
        }
        self.restart(step)
        return rates


def abstract_state(task: Task, optimizer, mesh) -> State:
    """The state's shapes with their shardings: what a checkpoint is restored into, whatever saved it."""
    shardings = parameter_shardings(mesh, task.shapes, task.axes)
    opt_state = jax.eval_shape(optimizer.init, task.shapes)
    shapes = State(jax.ShapeDtypeStruct((), jnp.int32), task.shapes, opt_state)
    placed = state_shardings(mesh, shapes, shardings)
    return jax.tree.map(lambda s, d: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=d), shapes, placed)


def jit_step(task: Task, experiment: Experiment, optimizer, abstract: State):
    """step(state, frozen, batch) -> (state, metrics), compiled; the old state's memory is taken for the new one."""
    settings = experiment.train
    placed = jax.tree.map(lambda s: s.sharding, abstract)
    replicated = NamedSharding(placed.step.mesh, PartitionSpec())
    step = make_step(task.loss, optimizer, seed=settings.seed, accumulate=settings.accumulate)
    # The state leaves as it came in: another layout would be another program, compiled anew at the second step.
    return jax.jit(step, donate_argnums=0, out_shardings=(placed, replicated))


def _start(task: Task, experiment: Experiment, checkpointer: Checkpointer, optimizer, abstract: State):
    restored = checkpointer.restore(abstract)
    if restored is not None:
        print(f"resuming {checkpointer.directory} from step {int(restored[0].step)}", flush=True)
        return restored
    shardings = jax.tree.map(lambda s: s.sharding, abstract)
    params = jax.jit(task.init, out_shardings=shardings.params)(jax.random.key(experiment.train.seed))
    if experiment.init_from:
        loaded, _ = load_parameters(experiment.init_from)
        params = jax.device_put(merge_by_name(params, loaded, experiment.init_from), shardings.params)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(params)
    return State(jax.device_put(jnp.zeros((), jnp.int32), shardings.step), params, opt_state), None


def _check_data(saved: Mapping[str, Any], batches, directory) -> None:
    """A position means something in one dataset only."""
    if saved["position"] != batches.position:
        raise RunMismatch(f"{directory}: saved after {saved['position']} batches, found at step {batches.position}")
    now = json.loads(json.dumps(batches.fingerprint))
    differ = [
        f"{k}: was {saved['fingerprint'].get(k)!r}, is {v!r}"
        for k, v in now.items()
        if saved["fingerprint"].get(k) != v
    ]
    if differ:
        raise RunMismatch(
            f"{directory} was trained on other data ({'; '.join(differ)}); use the same data and batch size, or start "
            "a new workdir with config.init_from"
        )


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _data(batches) -> dict:
    return {"position": batches.position, "fingerprint": batches.fingerprint}


def _put(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def _count_skipped(metrics: dict, before: int, limit: int, step: int) -> int:
    skipped = before + 1 if float(metrics["skipped"]) else 0
    if skipped >= limit:
        raise TrainingDiverged(
            f"{skipped} steps in a row up to step {step} had a non-finite loss or gradient (the parameters are as "
            "before them); lower config.optimizer.learning_rate or look at the data, then resume from the last "
            "checkpoint"
        )
    return skipped


def _log(metrics, step, window, writer, progress, task, capacity, learning_rate) -> None:
    rates = window.close(step)
    share = utilization(task.flops_per_example * window.batch, rates["train/step_seconds"], capacity)
    values = {f"train/{name}": value for name, value in metrics.items()}
    line = {**values, **rates, "train/learning_rate": float(learning_rate(step - 1)), "train/utilization": share}
    writer.scalars(step, line)
    progress.update(step, line)


def _evaluate(task: Task, state: State, frozen, step: int, writer: MetricWriter) -> Evaluation:
    """The task's judgement of the averaged parameters, written where the report finds it."""
    result = task.evaluate(state.opt_state["ema"].params, frozen, step)
    writer.scalars(step, result.scalars)
    for name, image in result.images.items():
        writer.image(step, name, image)
    if result.samples is not None:
        columns = math.ceil(len(result.samples) ** 0.5)
        writer.image(step, "samples", tile(result.samples, columns), result.prompts)
    return result


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Pictures (n, height, width, 3) as one grid in reading order, what is left of the last row black."""
    count, height, width, channels = images.shape
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * columns, height, width, channels), images.dtype)
    grid[:count] = images
    grid = grid.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)
