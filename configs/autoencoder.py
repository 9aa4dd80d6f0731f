"""The tiny autoencoder of dish scenes that ships with the package (64 px, eight times smaller latents).

python main.py --config=configs/autoencoder.py --workdir=runs/autoencoder --export=FILE.safetensors
"""

from configs.base import base, check_variant


def get_config(variant: str = "full"):
    variant = check_variant(variant)
    config = base("autoencode")
    config.topology = "v6e:2x2"
    config.data.batch_size = 64
    config.train.steps = {"full": 3000, "quick": 500, "tiny": 2}[variant]
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 200
    config.optimizer.weight_decay = 0.0
    config.evaluate_every = 1000
    config.checkpoint.every = 500
    if variant == "tiny":
        config.data.batch_size = 8
        config.model.width = 24
    return config
