"""What a step reads and does not train: text towers, autoencoders, a base. Laid out like parameters, not saved."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from jax.sharding import Mesh

from fooddit.parallel import parameter_shardings


class FrozenPart(Protocol):
    """One network with its arrays.

    Attributes:
      shapes, axes: trees of its arrays' shapes and logical axis names.
      description: JSON that says where the arrays came from, with their hash; it goes into every checkpoint.
    """

    shapes: Any
    axes: Any
    description: dict

    def load(self, shardings: Any = None) -> Any:
        """The arrays, each device's part only where `shardings` (a tree of them) are given."""


def identity(description: Mapping[str, Any]) -> dict[str, Any]:
    """What a part's description says of its arrays, as JSON: where their hash is in it, it does not matter where they
    lie."""
    places = ("autoencoder", "eclip", "source") if {"fingerprint", "sha256"} & description.keys() else ()
    return json.loads(json.dumps({name: value for name, value in description.items() if name not in places}))


@dataclass(frozen=True)
class Frozen:
    """The frozen parts of a task by name; its step takes a dict of their arrays."""

    parts: Mapping[str, FrozenPart] = field(default_factory=dict)

    @property
    def shapes(self) -> dict:
        return {name: part.shapes for name, part in self.parts.items()}

    @property
    def description(self) -> dict:
        return {name: part.description for name, part in self.parts.items()}

    def shardings(self, mesh: Mesh) -> dict:
        """As parameters are cut: by the parts' logical axes."""
        return {name: parameter_shardings(mesh, part.shapes, part.axes) for name, part in self.parts.items()}

    def load(self, mesh: Mesh | None = None) -> dict:
        """All arrays, laid out on the mesh; whole on one device without one."""
        placed = {} if mesh is None else self.shardings(mesh)
        return {name: part.load(placed.get(name)) for name, part in self.parts.items()}
