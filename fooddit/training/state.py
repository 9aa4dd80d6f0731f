"""What a run is at one moment: one frozen tree."""

from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """step: finished optimizer steps; params: the trainable ones; opt_state: of `optimizer.make_optimizer`."""

    step: Int[Array, ""]
    params: Any
    opt_state: Any
