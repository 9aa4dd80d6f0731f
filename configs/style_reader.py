"""The reader of styled scenes that ships with the package: the oracle of image prompts.

python main.py --config=configs/style_reader.py --workdir=runs/style_reader --export=FILE.safetensors
"""

from configs.base import base, check_variant


def get_config(variant: str = "full"):
    variant = check_variant(variant)
    config = base("read_styles")
    config.topology = "v6e:2x2"
    config.data.batch_size = 128
    config.train.steps = {"full": 600, "quick": 300, "tiny": 2}[variant]
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = 100
    config.checkpoint.every = 250
    if variant == "tiny":
        config.data.batch_size = 8
    return config
