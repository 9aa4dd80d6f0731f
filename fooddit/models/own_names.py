"""How arrays of our own modules are called in files: torch's names and layout, one tensor for each block."""

from typing import Any

import jax
import numpy as np

from fooddit.models.tensors import Source, TensorError, TensorFolder

# A module with this name is a stack: its arrays have the blocks along their first axis.
BLOCKS = "blocks"


def own_sources(shapes: Any) -> Any:
    """Where each leaf of a tree of arrays or shapes is in a file: a tree of Source.

    A Linear's kernel is a weight of (out, in), a norm's gain a weight; a block's number stands in the name:
    dit.blocks.0.attention.query.weight. Other leaves keep their names and layout.
    """

    def source(path, leaf) -> Source:
        *parents, last = [key.key for key in path]
        names = [*parents, "weight" if last in ("kernel", "gain") else last]
        axes = (1, 0) if last == "kernel" else None
        if BLOCKS not in parents:
            return Source(".".join(names), axes)
        place = parents.index(BLOCKS) + 1
        numbers = map(str, range(leaf.shape[0]))
        return Source(tuple(".".join([*names[:place], number, *names[place:]]) for number in numbers), axes)

    return jax.tree.map_with_path(source, shapes)


def read_own(folder: TensorFolder) -> dict[str, np.ndarray]:
    """All arrays of a folder that was written with `own_sources`, by the "/"-joined path of the leaf.

    No module is needed: names and shapes say it all.

    Raises:
      TensorError: a block's tensor is missing, or has another shape than that of the first block.
    """
    leaves: dict[str, dict[int, str]] = {}
    for name, shape in folder.shapes.items():
        *parents, last = name.split(".")
        if last == "weight":
            last = {1: "gain", 2: "kernel"}.get(len(shape), last)
        block = next((part for part in parents if part.isdecimal()), "-1")
        path = "/".join([*(part for part in parents if not part.isdecimal()), last])
        leaves.setdefault(path, {})[int(block)] = name
    return {path: _leaf(folder, path, names) for path, names in leaves.items()}


def _leaf(folder: TensorFolder, path: str, names: dict[int, str]) -> np.ndarray:
    read = lambda name: folder.read(name).T if path.endswith("kernel") else folder.read(name)  # noqa: E731
    if -1 in names:
        return np.asarray(read(names[-1]), order="C")
    numbers = sorted(names)
    first = names[numbers[0]]
    for number in range(numbers[-1] + 1):
        if number not in names:
            lost = first.replace(f"{BLOCKS}.{numbers[0]}.", f"{BLOCKS}.{number}.", 1)
            raise TensorError(f"{folder.path}: no tensor {lost!r}, but {names[numbers[-1]]!r}; copy the folder again")
        if folder.shapes[names[number]] != folder.shapes[first]:
            raise TensorError(
                f"{folder.path}: {names[number]} is {folder.shapes[names[number]]}, expected {folder.shapes[first]} "
                f"as {first}; all blocks are of one shape"
            )
    return np.stack([read(names[number]) for number in numbers])
