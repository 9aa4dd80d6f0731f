"""E-CLIP on real photos, of which there are few: FOODDIT_PHOTOS=DIR python benchmarks/eclip_photos.py [--steps 400]

Trains the size of configs/eclip.py:quick on the photos of finished dishes, a quarter of the dishes held out, and prints
how well held-out photos and captions find each other, with 95 % intervals, beside colour histograms and chance.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import main as training  # noqa: E402
from configs.eclip import get_config  # noqa: E402
from fooddit.config import build  # noqa: E402
from fooddit.data.prepare import prepare  # noqa: E402
from fooddit.tasks.contrastive_step import ContrastiveExperiment  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--holdout", type=float, default=0.25)
    args = parser.parse_args()
    photos = os.environ.get("FOODDIT_PHOTOS")
    if not photos:
        sys.exit("FOODDIT_PHOTOS is not set; expected a folder of photos with metadata.jsonl")
    with tempfile.TemporaryDirectory(prefix="fooddit-eclip-") as folder:
        records = Path(folder) / "records"
        print(prepare(photos, records, size=96, holdout=args.holdout, where={"shot": "finished"}, progress=False))
        training.run(experiment(records, args), Path(folder) / "run")


def experiment(records: Path, args) -> ContrastiveExperiment:
    config = get_config("quick")
    config.data.source, config.data.batch_size = str(records), args.batch_size
    # Mirrored: no caption of a photo says left or right.
    config.data.flip, config.data.short = True, 0.5
    config.model.text.vocabulary, config.model.text.length = 2048, 96
    config.train.steps, config.evaluate_every, config.checkpoint.every = args.steps, args.steps // 4, args.steps
    return build(ContrastiveExperiment, config.to_dict())


if __name__ == "__main__":
    main()
