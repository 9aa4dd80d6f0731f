"""Starting from another run: parameters taken over by name, with a list of what was missing and unexpected."""

from collections.abc import Mapping
from typing import Any

import jax

from fooddit.config import ConfigError
from fooddit.models.tensors import TensorError
from fooddit.training.checkpoint_layout import find_checkpoints
from fooddit.training.exported import exported_metadata, is_exported
from fooddit.training.frozen import identity
from fooddit.training.resume import newest_metadata


def source_metadata(source: str) -> dict[str, Any]:
    """Metadata of the run, or of the exported model, that config.init_from names; reads no arrays.

    ConfigError if there is none.
    """
    try:
        if is_exported(source):
            return exported_metadata(source)
        metadata = newest_metadata(find_checkpoints(source))
    except (FileNotFoundError, TensorError) as error:
        raise ConfigError(f"config.init_from: {error}") from error
    if metadata is None:
        raise ConfigError(f"config.init_from: {source} has no whole step; see: python -m fooddit checkpoint list")
    return metadata


def merge_by_name(params: Any, loaded: dict, source: str) -> Any:
    """`params` with every leaf that `loaded` has under the same name and shape; prints what it did not find.

    Args:
      source: what `loaded` came from, for the messages.

    Raises:
      ConfigError: nothing fits.
    """
    found = {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(loaded)}
    missing, reshaped, used = [], [], set()

    def pick(path, leaf):
        name = _name(path)
        other = found.get(name)
        if other is None:
            missing.append(name)
            return leaf
        used.add(name)
        if other.shape != leaf.shape:
            reshaped.append(f"{name} {other.shape} -> {leaf.shape}")
            return leaf
        return other

    merged = jax.tree.map_with_path(pick, params)
    unexpected = sorted(set(found) - used)
    if len(missing) + len(reshaped) == len(jax.tree.leaves(params)):
        raise ConfigError(f"config.init_from: {source} has no parameter of this model's names and shapes")
    taken, total = len(used) - len(reshaped), len(jax.tree.leaves(params))
    print(f"starting from {source}: {taken} of {total} parameters by name", flush=True)
    for title, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped)):
        print("\n    ".join([f"  {title}: {len(names) or 'none'}", *names]), flush=True)
    return merged


def other_parts(ours: Mapping[str, Any], theirs: Mapping[str, Any], source: str) -> list[str]:
    """Lines on frozen parts that `source` has been trained with and that are others here; of a picture space's latents
    a model has to learn anew. `ours`, `theirs`: frozen parts' descriptions by name."""
    return [
        f"warning: {source} was trained with the {name} {dict(theirs[name])}, this run has {dict(found)}"
        for name, found in ours.items()
        if name in theirs and identity(found) != identity(theirs[name])
    ]


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
