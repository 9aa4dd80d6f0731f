"""From nothing to a model of dish scenes in a few minutes on two CPU cores: what `make quickstart` runs.

64 px in the 8 x 8 latents of the autoencoder that ships with the package; a text transformer is trained along.
"""

from configs.base import base, check_variant


def get_config(variant: str = "full"):
    variant = check_variant(variant)
    config = base("denoise", data={"source": "scenes:12000", "batch_size": 128})
    config.topology = "v6e:2x2"
    config.space.autoencoder, config.space.patch = "builtin:scenes", 2
    config.data.grid = 16
    config.data.short, config.data.dense, config.data.dropped = 0.0, 0.9, 0.1
    config.model.width, config.model.depth, config.model.scan_unroll = 256, 4, 4
    config.text.width, config.text.depth = 64, 1
    config.text.length = 48
    config.objective.prediction = "x0"
    config.timesteps.shift = 2.0
    config.sampling.shift = 2.0
    config.train.steps = {"full": 750, "quick": 300, "tiny": 2}[variant]
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 50
    config.optimizer.ema = 0.99
    config.checkpoint.every = 250
    config.evaluate_every = 375
    config.evaluation.alignment = 256
    if variant == "tiny":
        config.data.source = "scenes:32"
        config.data.batch_size = 8
        config.model.width, config.model.depth = 32, 2
        config.sampling.steps = 2
        config.evaluation.examples, config.evaluation.samples, config.evaluation.alignment = 8, 4, 8
    return config
