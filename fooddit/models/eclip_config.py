"""The choices that make a model of the CLIP family, ours and published ones, and the sizes of ours by name."""

from dataclasses import dataclass, field

from fooddit.models.dit import ATTENTION, REMAT_POLICIES
from fooddit.models.layers import DTYPES

NORMS = ("rms", "layer")
ACTIVATIONS = ("swiglu", "gelu", "gelu_tanh", "quick_gelu")
POSITIONS = ("rope", "learned")
PROJECTIONS = ("linear", "affine", "none")
IMAGE_POOLING = ("mean", "class", "attention")
INTERPOLATIONS = ("bicubic", "bilinear")
TEXT_POOLING = ("mean", "end", "last")


@dataclass(frozen=True)
class TowerConfig:
    """The transformer of one tower.

    Attributes:
      mlp_width: of a plain MLP; SwiGLU's is 8/3 of the width, and this 0.
      norm: "rms", or "layer" with biases; epsilon is added under its root.
      activation: "swiglu", or that of a plain MLP: "gelu", "gelu_tanh", "quick_gelu" (x sigmoid(1.702 x)).
      positions: "rope" (axial and with QK-norm), or "learned": a table that is added to the tokens.
      bias: whether attention and a plain MLP have biases.
      projection: of the pooled vector into the common space: "linear", "affine" (with a bias), "none".
    """

    width: int = 256
    depth: int = 4
    head_dim: int = 32
    mlp_width: int = 0
    norm: str = "rms"
    epsilon: float = 1e-6
    activation: str = "swiglu"
    positions: str = "rope"
    bias: bool = False
    projection: str = "linear"

    def __post_init__(self):
        if min(self.width, self.depth, self.head_dim) < 1 or self.width % self.head_dim or self.head_dim % 4:
            raise ValueError(
                "expected a depth of at least 1 and a head_dim that is a multiple of 4 and divides the width, found "
                f"width {self.width}, depth {self.depth} and head_dim {self.head_dim}"
            )
        choices = {"norm": NORMS, "activation": ACTIVATIONS, "positions": POSITIONS, "projection": PROJECTIONS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: found {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if (self.activation == "swiglu") != (self.mlp_width == 0):
            raise ValueError(
                f"mlp_width: found {self.mlp_width} with the activation {self.activation!r}, expected 0 with swiglu "
                "and a width with the others"
            )
        if self.bias and self.positions == "rope":
            raise ValueError("bias: attention with positions 'rope' has none, expected False or positions 'learned'")
        if not self.epsilon > 0:
            raise ValueError(f"epsilon: found {self.epsilon}, expected more than 0")


@dataclass(frozen=True)
class ImageTowerConfig(TowerConfig):
    """A vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929).

    Attributes:
      patch: side of a token in pixels; image_size: of the square picture that it is made for. Others do as well: RoPE
        knows no size, a learned table is resized by `interpolation` ("bicubic" or "bilinear", see `resize_table`).
      pooling: "mean" over the patches, "class" (a token of its own) or "attention" (see `AttentionPool`).
      pre_norm: a norm before the first block, after patches without a bias, as CLIP has it.
      mean, deviation: of the pixels in [0, 1] that it was trained with, a channel; it is given pixels in [-1, 1].
    """

    patch: int = 16
    image_size: int = 256
    pooling: str = "mean"
    pre_norm: bool = False
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self):
        super().__post_init__()
        if self.patch < 1 or self.image_size < self.patch or self.image_size % self.patch:
            raise ValueError(f"image_size: found {self.image_size}, expected a multiple of the patch, {self.patch}")
        for name, known in (("pooling", IMAGE_POOLING), ("interpolation", INTERPOLATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: found {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if len(self.mean) != 3 or len(self.deviation) != 3 or not min(self.deviation) > 0:
            raise ValueError(
                f"mean, deviation: found {self.mean} and {self.deviation}, expected three numbers each, the deviations "
                "more than 0"
            )

    @property
    def tokens(self) -> int:
        """Patches of a picture of `image_size`."""
        return (self.image_size // self.patch) ** 2


@dataclass(frozen=True)
class TextTowerConfig(TowerConfig):
    """A transformer over token ids.

    Attributes:
      length: the most tokens of a caption.
      causal: a token sees those before it and no others (with learned positions).
      pooling: "mean" over the caption's tokens; "end": its first token `end`; "last": the last of `length` positions,
        padding or not, which is then attended to like text, as SigLIP has it.
    """

    vocabulary: int = 32768
    length: int = 64
    causal: bool = False
    pooling: str = "mean"
    end: int = 0

    def __post_init__(self):
        super().__post_init__()
        if min(self.vocabulary, self.length) < 1:
            raise ValueError(
                f"vocabulary, length: expected at least 1 of each, found {self.vocabulary} and {self.length}"
            )
        if self.pooling not in TEXT_POOLING:
            raise ValueError(f"pooling: found {self.pooling!r}, expected one of {', '.join(TEXT_POOLING)}")
        if self.causal and self.positions == "rope":
            raise ValueError("causal: attention with positions 'rope' sees both ways, expected positions 'learned'")
        if not 0 <= self.end < self.vocabulary:
            raise ValueError(f"end: found token {self.end}, expected one of a vocabulary of {self.vocabulary}")


@dataclass(frozen=True)
class EclipConfig:
    """Both towers.

    Attributes:
      embed: width of the common space.
      logit_bias: whether logits have one (SigLIP's sigmoid loss needs it).
      dtype: of the activations; what is pooled is float32.
      remat: "none", "dots" (keep the results of matrix products) or "full": what the backward pass recomputes.
      attention: kernel of attention with RoPE, see `fooddit.kernels`.
      scan_unroll: blocks to unroll in the scans over depth.
    """

    image: ImageTowerConfig = field(default_factory=ImageTowerConfig)
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    embed: int = 256
    logit_bias: bool = True
    dtype: str = "float32"
    remat: str = field(default="none", metadata={"operational": True})
    attention: str = field(default="auto", metadata={"operational": True})
    scan_unroll: int = field(default=1, metadata={"operational": True})

    def __post_init__(self):
        choices = {"dtype": DTYPES, "remat": REMAT_POLICIES, "attention": ATTENTION}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"model.{name}: found {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if self.embed < 1 or self.scan_unroll < 1:
            raise ValueError(
                f"model.embed, model.scan_unroll: expected at least 1, found {self.embed} and {self.scan_unroll}"
            )
        for name, tower in (("image", self.image), ("text", self.text)):
            if tower.projection == "none" and tower.width != self.embed:
                raise ValueError(
                    f"model.{name}: without a projection its width, {tower.width}, must be model.embed, {self.embed}"
                )


def _size(width: int, depth: int, text_width: int, text_depth: int, embed: int) -> EclipConfig:
    image = ImageTowerConfig(width=width, depth=depth, head_dim=128)
    return EclipConfig(image, TextTowerConfig(width=text_width, depth=text_depth, head_dim=128), embed)


SIZES = {
    "eclip-s": _size(384, 12, 384, 6, 384),
    "eclip-b": _size(768, 12, 512, 12, 512),
    "eclip-l": _size(1024, 24, 768, 12, 768),
}
