"""E-CLIP: an image tower and a text tower, trained on a catalogue's pictures and captions in Chinese and English.

The full size is meant for a TPU pod (v6e:8x8) at 256 px; `:quick` takes minutes on two CPU cores (dish scenes, 64 px),
`:tiny` two steps. Give your own records with --config.data.source=DIR (`fooddit prepare` writes them). --export=DIR
writes the folder that --config.towers.eclip takes.
"""

from configs.base import base, check_variant
from fooddit.config import to_dict
from fooddit.models.eclip_config import SIZES


def get_config(variant: str = "full"):
    variant = check_variant(variant)
    config = base("contrastive", data={"source": "scenes:12000", "batch_size": 128})
    config.topology = "v6e:8x8" if variant == "full" else "v6e:2x2"
    if variant == "full":
        config.model.update(to_dict(SIZES["eclip-b"]))
        config.model.dtype = "bfloat16"
        config.model.remat = "dots"
        config.data.batch_size = 16384
        config.data.image_size = 256
        config.data.max_aspect = 2.0
        config.data.threads = 16
        config.train.steps = 100_000
        config.optimizer.warmup = 5000
        config.optimizer.ema = 0.9999
        config.checkpoint.every = 1000
        config.evaluate_every = 5000
        config.evaluation.examples, config.evaluation.baseline, config.evaluation.batch_size = 4096, 20_000, 1024
        return config
    config.model.embed = 128
    config.model.scan_unroll = 3
    config.model.image.width, config.model.image.depth = 128, 3
    config.model.image.patch, config.model.image.image_size = 8, 64
    config.model.text.width, config.model.text.depth = 128, 2
    config.model.text.vocabulary, config.model.text.length = 1024, 48
    config.train.steps = 500
    config.optimizer.learning_rate, config.optimizer.warmup, config.optimizer.ema = 2e-3, 50, 0.98
    config.checkpoint.every = 250
    config.evaluate_every = 250
    if variant == "tiny":
        config.data.source = "scenes:32"
        config.data.batch_size = 8
        config.model.image.width, config.model.image.depth = 32, 1
        config.model.text.width, config.model.text.depth, config.model.text.vocabulary = 32, 1, 300
        config.train.steps = 2
        config.train.log_every = 1
        config.evaluation.examples, config.evaluation.baseline = 32, 16
    return config
