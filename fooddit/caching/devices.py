"""An experiment's frozen encoders on the devices at hand, for a cache of what they make of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fooddit.caching.build import Encoders
from fooddit.caching.captions import CaptionEncoder
from fooddit.caching.pictures import PictureEncoder
from fooddit.models.latent_statistics import sums_of_moments
from fooddit.models.picture_space import PictureSpace
from fooddit.parallel import MeshConfig, batch_sharding, batch_shares, make_mesh
from fooddit.training.frozen import Frozen, FrozenPart

# A batch of these for each device: an autoencoder's first stages at 512 pixels need a gigabyte for eight pictures.
PICTURES, CAPTIONS = 8, 32


def device_encoders(space: PictureSpace | None, towers: Mapping[str, Any]) -> Encoders:
    """Encoders that read a batch split over all devices; arrays of the large ones are cut over them, too.

    space: whose moments are wanted, None: none. towers: text towers by name (a T5Encoder, an EclipEncoder).
    """
    pooled = frozenset(name for name, part in towers.items() if _gives_pooled(part))
    return Encoders(
        space=None if space is None else space.description,
        towers={name: part.description for name, part in towers.items()},
        pooled=pooled,
        load_space=lambda: _picture_encoder(space),
        load_tower=lambda name: _caption_encoder(towers[name]),
    )


def _picture_encoder(space: PictureSpace) -> PictureEncoder:
    mesh, params = _load(space)
    moments = _on_devices(mesh, params, space.moments)
    return PictureEncoder(moments, lambda found: sums_of_moments(params, found), PICTURES * batch_shares(mesh))


def _caption_encoder(part: Any) -> CaptionEncoder:
    mesh, params = _load(part)
    features = _on_devices(mesh, params, lambda *given: text_features(part, *given))
    return CaptionEncoder(part.tokenize, features, CAPTIONS * batch_shares(mesh))


def _load(part: FrozenPart) -> tuple[Mesh, Any]:
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
    return mesh, Frozen({"part": part}).load(mesh)["part"]


def _on_devices(mesh: Mesh, params: Any, function: Callable) -> Callable:
    """`function` of params and arrays with a row an example, compiled, for arrays of the host."""
    compiled, sharding = jax.jit(function), batch_sharding(mesh)

    def run(*arrays: np.ndarray):
        with jax.set_mesh(mesh):
            return compiled(params, *(jax.device_put(array, sharding) for array in arrays))

    return run


def text_features(part: Any, params: Any, ids: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """A text tower's vectors of tokens, and of captions if it has them."""
    module = part.bind(params)
    if not hasattr(module, "encode_text"):
        return module(ids, mask), None
    found = module.encode_text(ids, mask)
    return found.tokens, found.pooled


def _gives_pooled(part: Any) -> bool:
    ids, mask = (jax.ShapeDtypeStruct((1, part.length), dtype) for dtype in (jnp.int32, jnp.bool))
    return jax.eval_shape(lambda *a: text_features(part, *a), part.shapes, ids, mask)[1] is not None
