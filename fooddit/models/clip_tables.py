"""Where each of our leaves is in a published CLIP, SigLIP or SigLIP 2, and their config.json as one of ours.

After the layouts of transformers 5 (models/clip, siglip, siglip2), whose defaults a config.json may leave out.
"""

from functools import partial
from typing import Any

from fooddit.models.eclip_config import EclipConfig, ImageTowerConfig, TextTowerConfig
from fooddit.models.tensors import Source, TensorError

_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
_HALF = (0.5, 0.5, 0.5)
_CLIP_MEAN, _CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_SHAPE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_TEXT = _SHAPE | {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
_CLIP_IMAGE = _SHAPE | {"image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP = _SHAPE | {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_SIGLIP_TEXT = _SIGLIP | {"vocab_size": 32000, "max_position_embeddings": 64}
_SIGLIP_IMAGE = _SIGLIP | {"image_size": 224, "patch_size": 16, "num_patches": 256, "vision_use_head": True}


def clip(config: dict, preprocessing: dict) -> tuple[EclipConfig, Any]:
    """(config, tree of Source) of a CLIP by its config.json and preprocessor_config.json ({} for its defaults).

    Raises:
      TensorError: an architecture that this module is not.
    """
    text, image = (_section(config, name, known) for name, known in (("text", _CLIP_TEXT), ("vision", _CLIP_IMAGE)))
    end = text["eos_token_id"]
    end = end[0] if isinstance(end, list) else end
    tower = ImageTowerConfig(
        **_tower(image),
        **_picture(image, preprocessing, _CLIP_MEAN, _CLIP_DEVIATION),
        pooling="class",
        pre_norm=True,
        projection="linear",
    )
    caption = TextTowerConfig(
        **_tower(text),
        vocabulary=text["vocab_size"],
        length=text["max_position_embeddings"],
        causal=True,
        pooling="end",
        # Old files say 2, and mean the highest id.
        end=text["vocab_size"] - 1 if end == 2 else end,
        projection="linear",
    )
    found = EclipConfig(tower, caption, config.get("projection_dim", 512), logit_bias=False)
    patches = Source("vision_model.embeddings.patch_embedding.weight", (2, 3, 1, 0), stored=_patches(tower))
    sources = {
        "image": {
            "patches": {"kernel": patches},
            "class_token": Source("vision_model.embeddings.class_embedding"),
            "table": Source("vision_model.embeddings.position_embedding.weight"),
            "pre_norm": _norm("vision_model.pre_layrnorm"),
            "blocks": _blocks("vision_model", tower.depth),
            "norm": _norm("vision_model.post_layernorm"),
            "projection": {"kernel": Source("visual_projection.weight", (1, 0))},
        },
        "text": _text(caption) | {"projection": {"kernel": Source("text_projection.weight", (1, 0))}},
        "logit_scale": Source("logit_scale"),
    }
    return found, sources


def siglip(config: dict, preprocessing: dict, *, flexible: bool = False) -> tuple[EclipConfig, Any]:
    """As `clip`, of a SigLIP or a SigLIP 2 of one size; `flexible`: of a SigLIP 2 for any aspect (NaFlex)."""
    text, image = (_section(config, name, known) for name, known in (("text", _SIGLIP_TEXT), ("vision", _SIGLIP_IMAGE)))
    if not image["vision_use_head"]:
        raise TensorError(
            "config.json: vision_use_head is false: it gives no vector a picture; expected one with a head"
        )
    if flexible:
        image["image_size"] = round(image["num_patches"] ** 0.5) * _side(image["patch_size"], "patch_size")
    tower = ImageTowerConfig(
        **_tower(image),
        **_picture(image, preprocessing, _HALF, _HALF),
        pooling="attention",
        interpolation="bilinear" if flexible else "bicubic",
        projection="none",
    )
    caption = TextTowerConfig(
        **_tower(text),
        vocabulary=text["vocab_size"],
        length=text["max_position_embeddings"],
        pooling="last",
        projection="affine",
    )
    patches = "vision_model.embeddings.patch_embedding"
    kernel = Source(f"{patches}.weight", (2, 3, 1, 0), stored=_patches(tower))
    sources = {
        "image": {
            "patches": {
                "kernel": Source(f"{patches}.weight", (1, 0)) if flexible else kernel,
                "bias": Source(f"{patches}.bias"),
            },
            "table": Source("vision_model.embeddings.position_embedding.weight"),
            "blocks": _blocks("vision_model", tower.depth),
            "norm": _norm("vision_model.post_layernorm"),
            "pool": _attention_pool("vision_model.head", tower.width),
        },
        "text": _text(caption) | {"projection": _linear("text_model.head")},
        "logit_scale": Source("logit_scale", stored=(1,)),
        "logit_bias": Source("logit_bias", stored=(1,)),
    }
    return EclipConfig(tower, caption, tower.width), sources


# By the model_type of a config.json; the SigLIP 2 of one size calls itself "siglip".
PUBLISHED = {"clip": clip, "siglip": siglip, "siglip2": partial(siglip, flexible=True)}


def _section(config: dict, name: str, known: dict) -> dict:
    # Old files say it twice, and the second one counts.
    return known | (config.get(f"{name}_config_dict") or config.get(f"{name}_config") or {})


def _tower(values: dict) -> dict:
    if values["hidden_act"] not in _ACTIVATIONS:
        raise TensorError(
            f"config.json: hidden_act is {values['hidden_act']!r}, expected one of {', '.join(_ACTIVATIONS)}"
        )
    return {
        "width": values["hidden_size"],
        "depth": values["num_hidden_layers"],
        "head_dim": values["hidden_size"] // values["num_attention_heads"],
        "mlp_width": values["intermediate_size"],
        "norm": "layer",
        "epsilon": values["layer_norm_eps"],
        "activation": _ACTIVATIONS[values["hidden_act"]],
        "positions": "learned",
        "bias": True,
    }


def _picture(values: dict, preprocessing: dict, mean: tuple, deviation: tuple) -> dict:
    return {
        "patch": _side(values["patch_size"], "patch_size"),
        "image_size": _side(values["image_size"], "image_size"),
        "mean": tuple(preprocessing.get("image_mean", mean)),
        "deviation": tuple(preprocessing.get("image_std", deviation)),
    }


def _side(value, name: str) -> int:
    sides = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1:
        raise TensorError(f"config.json: {name} is {value}, expected a square")
    return sides.pop()


def _patches(tower: ImageTowerConfig) -> tuple[int, ...]:
    """Shape of the convolution that makes the patches: ours is a product with (row, column, colour) in one axis."""
    return tower.width, 3, tower.patch, tower.patch


def _text(tower: TextTowerConfig) -> dict:
    return {
        "embedding": Source("text_model.embeddings.token_embedding.weight"),
        "table": Source("text_model.embeddings.position_embedding.weight"),
        "blocks": _blocks("text_model", tower.depth),
        "norm": _norm("text_model.final_layer_norm"),
    }


def _blocks(model: str, depth: int) -> dict:
    def names(part: str) -> tuple[str, ...]:
        return tuple(f"{model}.encoder.layers.{i}.{part}" for i in range(depth))

    def norm(part: str) -> dict:
        return {"gain": Source(names(f"{part}.weight")), "bias": Source(names(f"{part}.bias"))}

    def linear(part: str) -> dict:
        return {"kernel": Source(names(f"{part}.weight"), (1, 0)), "bias": Source(names(f"{part}.bias"))}

    attention = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
    return {
        "attention_norm": norm("layer_norm1"),
        "attention": {ours: linear(f"self_attn.{theirs}") for ours, theirs in attention.items()},
        "mlp_norm": norm("layer_norm2"),
        "mlp": {"up": linear("mlp.fc1"), "down": linear("mlp.fc2")},
    }


def _attention_pool(head: str, width: int) -> dict:
    def third(number: int) -> dict:
        weight = Source(f"{head}.attention.in_proj_weight", (1, 0), part=(number, 3))
        return {"kernel": weight, "bias": Source(f"{head}.attention.in_proj_bias", part=(number, 3))}

    return {
        "probe": Source(f"{head}.probe", stored=(1, 1, width)),
        "query": third(0),
        "key": third(1),
        "value": third(2),
        "out": _linear(f"{head}.attention.out_proj"),
        "norm": _norm(f"{head}.layernorm"),
        "mlp": {"up": _linear(f"{head}.mlp.fc1"), "down": _linear(f"{head}.mlp.fc2")},
    }


def _norm(name: str) -> dict:
    return {"gain": Source(f"{name}.weight"), "bias": Source(f"{name}.bias")}


def _linear(name: str) -> dict:
    return {"kernel": Source(f"{name}.weight", (1, 0)), "bias": Source(f"{name}.bias")}
