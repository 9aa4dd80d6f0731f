"""The one training loop, for every task: a straight line."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fooddit import config as config_module
from fooddit.parallel import make_mesh, parameter_shardings, state_shardings
from fooddit.parallel.placement import local_rows, place_rows, place_whole, whole
from fooddit.parallel.processes import from_first
from fooddit.training.checkpoint import FOLDER, Checkpointer, load_parameters
from fooddit.training.goodput import LEDGER_FILE, Ledger, read_goodput
from fooddit.training.metrics import MetricWriter, has_value
from fooddit.training.optimizer import make_optimizer, schedule
from fooddit.training.report import write_report
from fooddit.training.reporter import Reporter, TrainingDiverged
from fooddit.training.resume import RunMismatch, check_data, check_frozen
from fooddit.training.state import State
from fooddit.training.step import make_step
from fooddit.training.supervisor import Supervisor
from fooddit.training.task import Evaluation, Experiment, Task, profile_steps
from fooddit.training.transfer import merge_by_name, other_parts

# A line of metrics with this name says that the step was evaluated.
EVALUATED = "evaluate/seconds"


class Result(NamedTuple):
    """The end of a run: averaged parameters, the last evaluation, and what summary.json says."""

    params: Any
    evaluation: Evaluation
    summary: dict[str, Any]


def train(
    task: Task,
    experiment: Experiment,
    workdir: Path,
    supervisor: Supervisor | None = None,
    checkpoints: epath.PathLike | None = None,
) -> Result:
    """Trains `task` to its last step in `workdir`, resuming from the newest whole checkpoint there.

    `supervisor`: whom to ask at each step whether to stop; it keeps the ledger of time. `checkpoints`: where they are
    kept if not in the workdir (an object store, with a local workdir beside it).

    Raises:
      TrainingDiverged: `train.max_skipped` non-finite steps in a row, parameters or a validation loss that are not.
      RunMismatch, CheckpointMismatch: the checkpoint in `workdir` is of other data or another model.
      NoWholeCheckpoint, CheckpointFailed: none can be trusted; one could not be written.
      Stopped: the supervisor was asked to stop the run, and its state is saved.
    """
    with jax.set_mesh(device_mesh(experiment)):
        return _train(task, experiment, workdir, supervisor or Supervisor(), checkpoints)


def _train(
    task: Task, experiment: Experiment, workdir: Path, supervisor: Supervisor, checkpoints: epath.PathLike | None
) -> Result:
    settings, ledger = experiment.train, supervisor.ledger
    is_writer = jax.process_index() == 0
    workdir.mkdir(parents=True, exist_ok=True)

    # Devices: everything is laid out before anything is made.
    mesh = jax.sharding.get_mesh()
    optimizer = make_optimizer(experiment.optimizer, settings.steps, task.axes)
    learning_rate = schedule(experiment.optimizer, settings.steps)
    abstract = abstract_state(task, optimizer, mesh)
    frozen = task.frozen.load(mesh)

    # Start: this run's own checkpoint, else another run's parameters by name, else random ones.
    checkpointer = Checkpointer(workdir / FOLDER if checkpoints is None else checkpoints, experiment.checkpoint)
    state, saved = _start(task, experiment, checkpointer, optimizer, abstract, ledger)
    first = int(state.step)
    ledger.enter("init", first)
    if first > settings.steps:
        raise RunMismatch(
            f"{checkpointer.directory} is at step {first} already, config.train.steps is {settings.steps}; give more "
            "steps or another workdir"
        )
    batch_size = task.batch_shapes["index"].shape[0]
    rows = local_rows(mesh, batch_size)
    batches = task.batches(first, rows)
    if saved is not None:
        check_data(saved["data"], batches, checkpointer.directory, experiment)
        parts = (about.get("frozen", {}) for about in (saved["task"], task.metadata))
        check_frozen(*parts, checkpointer.directory, experiment)
    # Of all processes one looks: what is decided by it is done together.
    known = from_first(
        lambda: {"finished": (workdir / "summary.json").exists(), "evaluated": has_value(workdir, first, EVALUATED)}
    )
    if first == settings.steps and known["finished"]:
        print(f"{workdir} is finished: {first} steps; more of them go on from there (config.train.steps)", flush=True)
        batches.close()
        checkpointer.close()
        summary = from_first(lambda: json.loads((workdir / "summary.json").read_text(encoding="utf-8")))
        return Result(whole(state.opt_state["ema"].params), Evaluation(), summary)
    metadata = {"experiment": config_module.to_dict(experiment), "task": task.metadata}
    if is_writer:
        write_json(workdir / "config.json", metadata["experiment"])

    step_function = jit_step(task, experiment, optimizer, abstract)
    to_device = jax.jit(task.device_batch)
    writer = MetricWriter(workdir, resume_step=first)
    reporter = Reporter(task, settings, first, writer, learning_rate, enabled=is_writer)
    profile = profile_steps(experiment.profile)

    def save(step: int) -> None:
        """Unless it is the step that was restored, or saved a moment ago. Metrics up to it are on disk before it is."""
        if step != checkpointer.newest:
            if not all_finite(state):
                raise TrainingDiverged(f"the parameters or their averages are not finite at step {step}: not saved")
            writer.drain()
            checkpointer.save(step, state, {**metadata, "data": _data(batches)})

    def evaluate(step: int) -> Evaluation:
        """With the state at rest: a signal meanwhile saves it and ends the run. Several processes could not begin a
        save at one moment of their evaluations, and save before."""
        if jax.process_count() > 1 and not reporter.skipping:
            save(step)
            checkpointer.wait()
        with supervisor.safe(lambda: (save(step), checkpointer.wait())), ledger.during("evaluate"):
            return _evaluate(task, state, frozen, step, writer)

    try:
        for step in range(first, settings.steps):
            # The order is fixed: save, then evaluate, then draw the next batch, so that a checkpoint holds the state
            # and the data position of one moment. A run that was stopped while it was evaluated evaluates again. While
            # steps are skipped nothing is saved: old steps, perhaps the last good ones, would make room for it.
            stopping = supervisor.stops(step)
            if step > first and (step % experiment.checkpoint.every == 0 or stopping):
                reporter.settle(step, batches)
                if stopping or not reporter.skipping:
                    with ledger.during("save"):
                        save(step)
            if stopping:
                checkpointer.wait()
                raise supervisor.stop(f"saved step {step}")
            if step and experiment.evaluate_every and step % experiment.evaluate_every == 0:
                reporter.settle(step, batches, always=True)
                if step > first or not known["evaluated"]:
                    evaluate(step)
                reporter.restart(step)
            if step == profile[0]:
                jax.profiler.start_trace(workdir / "profile")

            ledger.enter("data_wait", step)
            asked = time.perf_counter()
            host_batch = next(batches)
            reporter.waited(time.perf_counter() - asked, batch_size)
            ledger.enter("compile" if step == first else "step")
            batch = to_device(frozen, place_rows(mesh, batch_size, rows, host_batch))
            state, metrics = step_function(state, frozen, batch)
            if step == first:
                jax.block_until_ready(metrics)
                supervisor.started()
                ledger.enter("step")
                reporter.restart(step + 1)

            # The metrics of the step before are read while this one runs: the device never waits for the host.
            reporter.settle(step, batches)
            reporter.put(metrics)
            if step + 1 == profile[1]:
                jax.block_until_ready(state)
                jax.profiler.stop_trace()

        # The end: the last step is logged, saved and judged like any other.
        reporter.settle(settings.steps, batches, always=True)
        ledger.enter("save", settings.steps)
        save(settings.steps)
        evaluation = evaluate(settings.steps)
        checkpointer.wait()
    finally:
        batches.close()
        reporter.close()
        writer.close()
        checkpointer.close()
        ledger.flush()
    goodput = read_goodput(workdir / LEDGER_FILE)
    summary = {
        **evaluation.details,
        **evaluation.scalars,
        "steps": settings.steps,
        "seconds": round(time.time() - ledger.started, 1),
        "images_per_second": round(reporter.images_per_second, 1),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(task.shapes)),
        "damaged_records": batches.damaged,
        "checkpoint": str(checkpointer.directory / str(settings.steps)),
        **({"goodput": goodput.to_dict()} if goodput else {}),
    }
    if is_writer:
        write_json(workdir / "summary.json", summary)
        if evaluation.sheet is not None:
            evaluation.sheet.save(workdir / "samples.png", optimize=True)
        write_report(workdir)
    return Result(whole(state.opt_state["ema"].params), evaluation, summary)


def device_mesh(experiment: Experiment) -> Mesh:
    """The mesh of config.mesh over all devices. ConfigError if they cannot be laid out so."""
    try:
        return make_mesh(experiment.mesh)
    except ValueError as error:
        raise config_module.ConfigError(str(error)) from error


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


def _start(task: Task, experiment: Experiment, checkpointer: Checkpointer, optimizer, abstract: State, ledger: Ledger):
    with ledger.during("restore"):
        restored = checkpointer.restore(abstract)
    if restored is not None:
        print(f"resuming {checkpointer.directory} from step {int(restored[0].step)}", flush=True)
        return restored
    shardings = jax.tree.map(lambda s: s.sharding, abstract)
    params = jax.jit(task.init, out_shardings=shardings.params)(jax.random.key(experiment.train.seed))
    if experiment.init_from:
        loaded, metadata = load_parameters(experiment.init_from)
        frozen = (about.get("frozen", {}) for about in (task.metadata, metadata["task"]))
        for line in other_parts(*frozen, experiment.init_from):
            print(line, flush=True)
        params = jax.tree.map(place_whole, merge_by_name(params, loaded, experiment.init_from), shardings.params)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(params)
    return State(jax.device_put(jnp.zeros((), jnp.int32), shardings.step), params, opt_state), None


@jax.jit
def all_finite(state: State) -> jax.Array:
    """Whether no number of the state is infinite or NaN."""
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all()


def write_json(path: Path, values: dict) -> None:
    """Whole or not at all, whenever the process is killed."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _data(batches) -> dict:
    return {"position": batches.position, "fingerprint": batches.fingerprint}


def _evaluate(task: Task, state: State, frozen, step: int, writer: MetricWriter) -> Evaluation:
    """The task's judgement of the averaged parameters, written where the report finds it.

    TrainingDiverged, when it is written, if a loss is not finite.
    """
    began = time.perf_counter()
    result = task.evaluate(state.opt_state["ema"].params, frozen, step)
    writer.scalars(step, {**result.scalars, EVALUATED: time.perf_counter() - began})
    for name, image in result.images.items():
        writer.image(step, name, image)
    if result.samples is not None:
        columns = math.ceil(len(result.samples) ** 0.5)
        writer.image(step, "samples", tile(result.samples, columns), result.prompts)
    for name, value in result.scalars.items():
        if name.endswith("loss") and not math.isfinite(value):
            raise TrainingDiverged(f"{name} is {value} at step {step}, of parameters that are finite")
    return result


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Pictures (n, height, width, 3) as one grid in reading order, what is left of the last row black."""
    count, height, width, channels = images.shape
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * columns, height, width, channels), images.dtype)
    grid[:count] = images
    grid = grid.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)
