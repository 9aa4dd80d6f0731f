"""What transformers calls the settings and the tensors of T5, and what we do."""

from fooddit.models.t5 import FEED_FORWARDS, T5Config
from fooddit.models.tensors import Source, TensorError

# model_type -> the feed-forward layer of a config.json that does not name one.
MODEL_TYPES = {"t5": "relu", "mt5": "gated-gelu", "umt5": "gated-gelu"}
_REQUIRED = {
    "vocab_size": "vocabulary",
    "d_model": "width",
    "num_layers": "depth",
    "num_heads": "heads",
    "d_kv": "head_dim",
    "d_ff": "mlp",
}
_OPTIONAL = {
    "relative_attention_num_buckets": "buckets",
    "relative_attention_max_distance": "max_distance",
    "layer_norm_epsilon": "epsilon",
}
_ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}
_GATED, _PLAIN = {"gate": "wi_0", "up": "wi_1", "down": "wo"}, {"up": "wi", "down": "wo"}


def t5_config(settings: dict, where: str) -> T5Config:
    """The shape that a config.json tells of.

    Raises:
      TensorError: another kind of model, or settings that are missing, unknown or impossible; `where` is named.
    """
    kind = settings.get("model_type")
    if kind not in MODEL_TYPES:
        raise TensorError(
            f"{where}: config.json has model_type {kind!r}, expected one of {', '.join(MODEL_TYPES)} (flan is t5)"
        )
    if missing := [name for name in _REQUIRED if name not in settings]:
        raise TensorError(f"{where}: config.json says nothing of {', '.join(missing)}; download it again")
    feed_forward = settings.get("feed_forward_proj", MODEL_TYPES[kind])
    if feed_forward not in FEED_FORWARDS:
        raise TensorError(
            f"{where}: config.json has feed_forward_proj {feed_forward!r}, expected {' or '.join(FEED_FORWARDS)}"
        )
    values = {ours: settings[theirs] for theirs, ours in _REQUIRED.items()}
    values |= {ours: settings[theirs] for theirs, ours in _OPTIONAL.items() if theirs in settings}
    depth = settings.get("num_decoder_layers")
    try:
        return T5Config(
            **values,
            decoder_depth=values["depth"] if depth is None else depth,
            feed_forward=feed_forward,
            bias_in_every_layer=kind == "umt5",
        )
    except (TypeError, ValueError) as error:
        raise TensorError(f"{where}: config.json: {error}") from error


def t5_settings(config: T5Config) -> dict:
    """The config.json of a T5 of ours, whose output matrix is its embedding."""
    kind, model = ("umt5", "UMT5") if config.bias_in_every_layer else ("t5", "T5")
    return {
        "architectures": [f"{model}ForConditionalGeneration"],
        "model_type": kind,
        **{theirs: getattr(config, ours) for theirs, ours in (_REQUIRED | _OPTIONAL).items()},
        "num_decoder_layers": config.decoder_depth,
        "feed_forward_proj": config.feed_forward,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
    }


def encoder_sources(config: T5Config, embedding: str) -> dict:
    """Where the leaves of `t5.T5EncoderStack` are; `embedding` is the name of that tensor."""
    block = _Blocks("encoder", config.depth, config)
    blocks = {
        "attention_norm": block.norm(0),
        "attention": block.attention(0, "SelfAttention", own_bias=config.bias_in_every_layer),
        "mlp_norm": block.norm(1),
        "mlp": block.feed_forward(1),
    }
    return {"embedding": Source(embedding), "blocks": blocks, **block.ends()}


def decoder_sources(config: T5Config) -> dict:
    """Where the leaves of `t5_decoder.T5DecoderStack` are."""
    block = _Blocks("decoder", config.decoder_depth, config)
    blocks = {
        "attention_norm": block.norm(0),
        "attention": block.attention(0, "SelfAttention", own_bias=config.bias_in_every_layer),
        "cross_norm": block.norm(1),
        "cross": block.attention(1, "EncDecAttention", own_bias=False),
        "mlp_norm": block.norm(2),
        "mlp": block.feed_forward(2),
    }
    return {"blocks": blocks, **block.ends()}


class _Blocks:
    """Sources of the blocks of one stack, all layers of each leaf stacked."""

    def __init__(self, stack: str, depth: int, config: T5Config):
        self._stack, self._depth, self._config = stack, depth, config

    def norm(self, layer: int) -> dict:
        return {"gain": self._source(f"layer.{layer}.layer_norm")}

    def attention(self, layer: int, name: str, *, own_bias: bool) -> dict:
        stem = f"layer.{layer}.{name}"
        bias = {"position_bias": self._source(f"{stem}.relative_attention_bias")} if own_bias else {}
        return {ours: self._linear(f"{stem}.{theirs}") for ours, theirs in _ATTENTION.items()} | bias

    def feed_forward(self, layer: int) -> dict:
        names = _GATED if self._config.feed_forward == "gated-gelu" else _PLAIN
        return {ours: self._linear(f"layer.{layer}.DenseReluDense.{theirs}") for ours, theirs in names.items()}

    def ends(self) -> dict:
        """What belongs to no block: the last norm, and position biases that all layers share."""
        found = {"norm": {"gain": Source(f"{self._stack}.final_layer_norm.weight")}}
        if not self._config.bias_in_every_layer:
            name = f"{self._stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            found["position_bias"] = Source(name)
        return found

    def _linear(self, name: str) -> dict:
        return {"kernel": self._source(name, (1, 0))}

    def _source(self, name: str, axes: tuple[int, ...] | None = None) -> Source:
        return Source(tuple(f"{self._stack}.block.{i}.{name}.weight" for i in range(self._depth)), axes)
