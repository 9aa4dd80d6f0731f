"""Stage 1 of 3: class names and short captions at low cost, from scratch.

The full size is meant for a TPU pod (v6e:16x16) at 256 px; `:quick` takes minutes on a CPU (64 px, pixels), `:tiny` two
steps. Give your own records with --config.data.source=DIR (`fooddit prepare` writes them).
"""

from configs.base import base, check_variant


def get_config(variant: str = "full"):
    variant = check_variant(variant)
    config = base("denoise", data={"source": "scenes:2000", "batch_size": 64})
    config.data.short, config.data.dense, config.data.dropped = 0.8, 0.1, 0.1
    config.topology = "v6e:16x16" if variant == "full" else "v6e:2x2"
    if variant == "full":
        config.model.size = "xl"
        config.model.dtype = "bfloat16"
        config.model.remat = "dots"
        config.data.batch_size = 2048
        config.data.image_size = 256
        config.data.grid = 16
        config.data.max_aspect = 2.0
        config.data.threads = 16
        config.space.patch = 16
        config.objective.prediction = "x0"
        config.text.width, config.text.depth, config.text.head_dim = 1024, 12, 128
        config.text.dtype, config.text.scan_unroll = "bfloat16", 1
        config.text.vocabulary = 16384
        config.text.length = 128
        config.train.steps = 200_000
        config.optimizer.warmup = 5000
        config.optimizer.ema = 0.9999
        config.checkpoint.every = 1000
        config.evaluate_every = 5000
        config.evaluation.examples = 8192
        config.evaluation.batch_size = 256
        config.mesh.data, config.mesh.fsdp = -1, 16
        return config
    # A patch of 8 x 8 pixels holds more values than so narrow a model can carry noise for: it predicts x0.
    config.space.patch = 8
    config.objective.prediction = "x0"
    # In so many values the picture's layout stays visible in much noise: training and sampling spend more time there.
    config.timesteps.shift = config.sampling.shift = 3.0
    config.optimizer.learning_rate, config.optimizer.ema = 2e-3, 0.99
    config.train.steps = 1000
    config.evaluate_every = 500
    config.checkpoint.every = 250
    config.model.scan_unroll = 4
    config.evaluation.nearest = True
    if variant == "tiny":
        config.data.source = "scenes:32"
        config.data.batch_size = 8
        config.model.width, config.model.depth = 32, 2
        config.text.width, config.text.depth = 32, 1
        config.train.steps = 2
        config.train.log_every = 1
        config.sampling.steps = 2
        config.evaluation.examples, config.evaluation.samples, config.evaluation.batch_size = 8, 4, 4
    return config
