"""Stage 2 of 3: the model learns what it is asked: dense captions through T5 and E-CLIP, pictures through E-CLIP.

The full size is meant for a TPU pod (v6e:16x16) at 512 px, UMT5-xxl and E-CLIP read online in bfloat16; it starts from
a run of stage 1: --config.init_from=runs/stage1. `:quick` takes minutes on a CPU (dish scenes at 64 px, the towers that
ship with the package), `:tiny` two steps. Your own: --config.data.source=DIR (`fooddit prepare` writes it),
--config.towers.t5=DIR and --config.towers.eclip=DIR (folders), --config.space.autoencoder=DIR. On photos the distances
inside training want a network that knows photos: --config.evaluation.features=inception:FILE or eclip:DIR.
"""

from configs.base import base, check_variant


def get_config(variant: str = "full"):
    variant = check_variant(variant)
    config = base("denoise", data={"source": "scenes:12000", "batch_size": 64})
    config.data.short, config.data.dense, config.data.dropped = 0.15, 0.75, 0.1
    config.topology = "v6e:16x16" if variant == "full" else "v6e:2x2"
    if variant == "full":
        config.towers.t5, config.towers.t5_length, config.towers.eclip = "umt5-xxl", 256, "eclip-l"
        config.towers.dtype = "bfloat16"
        config.space.autoencoder, config.space.patch, config.space.dtype = "flux", 2, "bfloat16"
        config.model.size, config.model.dtype, config.model.remat = "xl", "bfloat16", "dots"
        config.model.image_tokens = 256
        config.text.width = 1024
        config.data.batch_size = 1024
        config.data.image_size, config.data.grid, config.data.max_aspect = 512, 16, 2.0
        config.data.reference_size = 256
        config.data.threads = 16
        config.timesteps.shift = config.sampling.shift = 2.0
        config.train.steps = 200_000
        config.optimizer.warmup = 5000
        config.optimizer.ema = 0.9999
        config.checkpoint.every = 1000
        config.evaluate_every = 5000
        config.evaluation.examples, config.evaluation.distance = 8192, 4096
        config.evaluation.batch_size = 256
        config.mesh.data, config.mesh.fsdp = -1, 16
        return config
    config.towers.t5, config.towers.t5_length, config.towers.eclip = "builtin:t5", 48, "builtin:eclip"
    config.space.autoencoder, config.space.patch = "builtin:dishes", 2
    config.data.grid = 16
    config.data.reference_size = 64
    config.model.width, config.model.depth, config.model.scan_unroll = 256, 4, 4
    config.model.image_tokens, config.model.image_width = 16, 128
    config.text.width = 64
    config.objective.prediction = "x0"
    config.timesteps.shift = config.sampling.shift = 2.0
    # Half way through a run on styles twice as many styles are recovered as without, and as many texts obeyed.
    config.sampling.image_guidance_scale = 2.0
    config.optimizer.learning_rate, config.optimizer.warmup, config.optimizer.ema = 2e-3, 50, 0.99
    config.train.steps = 1000
    config.checkpoint.every = 250
    config.evaluate_every = 250
    config.evaluation.alignment = 256
    if variant == "tiny":
        config.data.source = "styles:32"
        config.data.batch_size = 8
        config.model.width, config.model.depth = 32, 2
        config.model.image_width, config.model.image_tokens = 32, 4
        config.train.steps = 2
        config.train.log_every = 1
        config.sampling.steps = 2
        config.evaluation.examples, config.evaluation.samples, config.evaluation.alignment = 8, 4, 8
        config.evaluation.distance = 4
    return config
