"""A T5 of your own captions (in UMT5's shape), from scratch: a stand-in where no published one is at hand.

python main.py --config=configs/t5.py --workdir=runs/t5 --config.data.source=RECORDS --export=DIR
"""

from configs.base import base, check_variant


def get_config(variant: str = "full"):
    variant = check_variant(variant)
    config = base("span_corruption")
    config.topology = "v6e:2x2"
    if variant == "full":
        config.model.vocabulary, config.model.width, config.model.mlp = 16384, 512, 1024
        config.model.depth = config.model.decoder_depth = 8
        config.model.heads, config.model.head_dim = 6, 64
        config.model.dtype = "bfloat16"
        config.data.batch_size, config.data.length = 512, 256
        config.train.steps = 50_000
        config.optimizer.warmup = 2000
        config.checkpoint.every = config.evaluate_every = 2500
        return config
    config.model.vocabulary, config.model.scan_unroll = 1024, 3
    config.train.steps = 1000
    config.optimizer.learning_rate, config.optimizer.ema = 3e-3, 0.99
    config.evaluate_every = 500
    config.checkpoint.every = 250
    if variant == "tiny":
        config.data.source = "scenes:32"
        config.data.batch_size = 8
        config.model.width, config.model.mlp = 32, 64
        config.model.depth = config.model.decoder_depth = 2
        config.model.heads, config.model.head_dim = 2, 16
        config.train.steps, config.train.log_every = 2, 1
        config.examples = 16
    return config
