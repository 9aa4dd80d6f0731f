"""An AutoencoderKL of your own pictures from scratch, in the diffusers layout: 256 px, eight times smaller latents.

python main.py --config=configs/autoencoder_kl.py --workdir=runs/kl --config.data.source=RECORDS --export=FOLDER
"""

from configs.base import base, check_variant


def get_config(variant: str = "full"):
    variant = check_variant(variant)
    config = base("autoencode_kl")
    config.topology = "v6e:4x4"
    config.model.latent_channels = 16
    config.model.use_quant_conv = config.model.use_post_quant_conv = False
    config.latent.kl = 1e-4
    config.adversarial.weight = 0.05
    config.adversarial.start = 20000
    config.data.image_size = 256
    config.data.batch_size = 128
    config.data.flip = True
    config.train.steps = 200000
    config.optimizer.learning_rate = config.optimizer.discriminator.learning_rate = 1e-4
    config.optimizer.warmup = config.optimizer.discriminator.warmup = 1000
    config.optimizer.weight_decay = 0.0
    config.evaluate_every = 5000
    config.checkpoint.every = 1000
    if variant != "full":
        # Of scenes, on a CPU.
        config.model.block_out_channels = (32, 32, 64, 64)
        config.model.layers_per_block, config.model.norm_num_groups = 1, 8
        config.perceptual.features = "builtin:scene_reader"
        config.adversarial.discriminator.width = 32
        config.adversarial.start = 100
        config.data.image_size, config.data.batch_size = 64, 16
        config.optimizer.learning_rate = config.optimizer.discriminator.learning_rate = 1e-3
        config.optimizer.warmup = config.optimizer.discriminator.warmup = 50
        config.train.steps = 500
        config.evaluate_every = 250
    if variant == "tiny":
        config.model.block_out_channels, config.model.norm_num_groups = (8, 8, 8, 8), 2
        config.adversarial.discriminator.width = 8
        config.data.batch_size, config.data.image_size = 8, 32
        config.train.steps = 2
    return config
