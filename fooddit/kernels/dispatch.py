"""Which implementation runs: what the computation is traced for, and the first one asked for that can do it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax

# A name, "auto", or names of which the first that works is taken.
Implementation = str | Sequence[str]
# The name (jax.ad_checkpoint.checkpoint_name) of what a fused kernel gives for its backward pass: a remat policy can
# keep it.
KERNEL_RESULT = "attention"
AUTO = {"tpu": ("pallas_tpu", "xla"), "gpu": ("cudnn", "xla")}


class Unsupported(NotImplementedError):
    """An implementation cannot do what it was asked for; the message says why, and what it can do."""


class Target(NamedTuple):
    """platform: "cpu", "gpu" or "tpu"; kind: JAX's device_kind."""

    platform: str
    kind: str


def target() -> Target:
    """What the computation will run on: the devices of the mesh in context (`jax.set_mesh`), which may be absent
    hardware that is compiled for, else JAX's default device."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None:
        return Target(_PLATFORMS.get(device.platform, device.platform), device.device_kind)
    default = jax.config.jax_default_device
    device = jax.devices(default)[0] if isinstance(default, str) else default or jax.devices()[0]
    return Target(_PLATFORMS.get(device.platform, device.platform), device.device_kind)


_PLATFORMS = {"cuda": "gpu", "rocm": "gpu"}


def first_that_works(
    name: str, implementation: Implementation, candidates: Mapping[str, Callable[[Target], jax.Array]]
) -> jax.Array:
    """The result of the first implementation asked for that does not raise `Unsupported`.

    "auto" asks for the target's fused kernel, then for plain XLA.

    Raises:
      ValueError: an unknown name.
      Unsupported: none works; the message has the reason of each.
    """
    where = target()
    if implementation == "auto":
        asked = AUTO.get(where.platform, ("xla",))
    else:
        asked = (implementation,) if isinstance(implementation, str) else tuple(implementation)
    unknown = [each for each in asked if each not in candidates]
    if unknown or not asked:
        raise ValueError(
            f"{name}: implementation {implementation!r}: expected 'auto', one of {', '.join(map(repr, candidates))}, "
            "or a sequence of these"
        )
    reasons = []
    for each in asked:
        try:
            return candidates[each](where)
        except Unsupported as reason:
            reasons.append(f"{each}: {reason}")
    raise Unsupported(f"{name} on {where.kind}: no implementation works; " + "; ".join(reasons))
