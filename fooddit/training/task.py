"""What differs between experiments, behind one protocol: the loop knows nothing else of a task."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np
from PIL import Image

from fooddit.config import OPERATIONAL
from fooddit.parallel import MeshConfig
from fooddit.training.checkpoint import CheckpointConfig
from fooddit.training.frozen import Frozen
from fooddit.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class TrainConfig:
    """Attributes:
    steps: length of the run in optimizer steps.
    seed: of the parameters, the data order and every noise.
    accumulate: parts that a batch is split into, their gradients summed.
    log_every: steps between lines of metrics.
    max_skipped: non-finite steps in a row after which the run stops.
    hang_seconds: without progress for so long a run dumps its stacks and exits with 42, which asks for a restart; more
      than the longest compilation and evaluation take. 0 waits for ever.
    heartbeat_seconds: of several processes, one that gives no sign of life for so long is given up, and the run ends.
    """

    steps: int = field(default=1000, metadata=OPERATIONAL)
    seed: int = 0
    accumulate: int = field(default=1, metadata=OPERATIONAL)
    log_every: int = field(default=20, metadata=OPERATIONAL)
    max_skipped: int = field(default=20, metadata=OPERATIONAL)
    hang_seconds: float = field(default=1800.0, metadata=OPERATIONAL)
    heartbeat_seconds: int = field(default=100, metadata=OPERATIONAL)

    def __post_init__(self):
        for name in ("steps", "accumulate", "log_every", "max_skipped"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, found {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"train.seed must be from 0 to {2**32 - 1}, found {self.seed}")
        if self.hang_seconds != 0 and self.hang_seconds < 10:
            raise ValueError(
                f"train.hang_seconds must be 0 (no watch) or at least 10, found {self.hang_seconds}: a run that only "
                "compiles would be restarted for ever"
            )
        if self.heartbeat_seconds < 5:
            raise ValueError(f"train.heartbeat_seconds must be at least 5, found {self.heartbeat_seconds}")


@dataclass(frozen=True)
class Experiment:
    """The part of a config that every task shares; a task's own dataclass adds its fields.

    Attributes:
      task: name in `fooddit.tasks.TASKS`.
      init_from: a run to take parameters from by name (its averaged ones); "" starts from random ones.
      profile: "10:15" writes a profiler trace of those steps to the workdir; "" none.
      topology: the hardware that the config is meant for, as `fooddit compile` takes it; "" is no accelerator.
      evaluate_every: steps between evaluations by the task (0: only at the end).
    """

    task: str = ""
    init_from: str = ""
    profile: str = field(default="", metadata=OPERATIONAL)
    topology: str = field(default="", metadata=OPERATIONAL)
    evaluate_every: int = field(default=0, metadata=OPERATIONAL)
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig, metadata=OPERATIONAL)
    mesh: MeshConfig = field(default_factory=MeshConfig, metadata=OPERATIONAL)

    def __post_init__(self):
        profile_steps(self.profile)
        if self.evaluate_every < 0:
            raise ValueError(f"evaluate_every must be at least 0 (only at the end), found {self.evaluate_every}")


def profile_steps(text: str) -> tuple[int, int]:
    """First and last step of "FIRST:LAST"; (-1, -1) for "".

    Raises:
      ValueError: another form.
    """
    if not text:
        return -1, -1
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise ValueError(f'profile: found {text!r}, expected two steps such as "10:15", the first one smaller')
    return int(first), int(last)


@dataclass(frozen=True)
class Evaluation:
    """What a task's evaluation gives.

    Attributes:
      scalars: numbers by name.
      images: uint8 (height, width, 3) pictures by name, for TensorBoard.
      samples: uint8 (n, height, width, 3) pictures that go into the report as a grid, with their `prompts`.
      sheet: a page of samples to show to people; the last one becomes samples.png.
      details: JSON for summary.json.
    """

    scalars: dict[str, float] = field(default_factory=dict)
    images: dict[str, np.ndarray] = field(default_factory=dict)
    samples: np.ndarray | None = None
    prompts: tuple[str, ...] = ()
    sheet: Image.Image | None = None
    details: dict[str, Any] = field(default_factory=dict)


class BatchIterator(Protocol):
    """Batches of numpy arrays; `position` counts the global batches drawn and is all there is to resume.

    `damaged` counts the records that could not be read and were left out, each once.
    """

    position: int
    damaged: int
    fingerprint: dict

    def __next__(self) -> dict[str, np.ndarray]: ...
    def close(self) -> None: ...


class StepProgram(Protocol):
    """What the step of a task computes; it can be compiled without any data.

    Attributes:
      shapes, axes: trees of the trainable parameters' shapes and logical axis names.
      frozen: what the step reads and does not train; `device_batch` and `loss` take its arrays, a dict by part.
      flops_per_example: model FLOPs of one example's forward and backward pass.
      batch_shapes: of the global batch that `device_batch` takes; "index", the examples' global numbers, is among them.
    """

    shapes: Any
    axes: Any
    frozen: Frozen
    flops_per_example: float
    batch_shapes: dict[str, jax.ShapeDtypeStruct]

    def init(self, key: jax.Array) -> Any:
        """The trainable parameters; called under jit with the parameters' shardings."""

    def device_batch(self, frozen: Any, batch: dict) -> dict:
        """What the step takes, from a batch on the devices: for example pictures encoded to latents."""

    def loss(self, params: Any, frozen: Any, batch: dict, key: jax.Array) -> tuple[jax.Array, dict]:
        """Mean loss over the batch and metrics; all noise from `key` and the examples' global numbers."""


class Task(StepProgram, Protocol):
    """One kind of experiment: what its step computes, on data, and how its parameters are judged.

    Attributes:
      metadata: JSON saved with every checkpoint: what generation needs, where frozen arrays came from and their hash.
    """

    metadata: dict

    def batches(self, position: int, rows: np.ndarray | None = None) -> BatchIterator:
        """The batches from a position on: of each the rows that this process's devices hold, all of them if None."""

    def evaluate(self, params: Any, frozen: Any, step: int) -> Evaluation:
        """Judges parameters (the averaged ones). Every process of a run calls it, and the first one's words count."""
