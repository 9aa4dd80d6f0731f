"""Stage 2 on real photos, from nothing: FOODDIT_PHOTOS=DIR FOODDIT_WEIGHTS=DIR python benchmarks/photos_stage2.py

Prepares the photos of finished dishes, trains a T5 and an E-CLIP on them, stores what these and TAEF2 (its published
`taef2_encoder` and `taef2_decoder` are in FOODDIT_WEIGHTS) make of them, trains configs/stage2.py:quick on that and
evaluates it against the held-out dishes. Each step is a command that is printed and can be run by hand; what is
finished in OUT is not done again.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/photos-stage2"))
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    missing = [name for name in ("FOODDIT_PHOTOS", "FOODDIT_WEIGHTS") if not os.environ.get(name)]
    if missing:
        sys.exit(
            f"{' and '.join(missing)}: not set; expected folders of photos with metadata.jsonl and of TAEF2's weights"
        )
    for made, command in commands(arguments.out, arguments.steps):
        print("$ python", shlex.join(command), flush=True)
        if not made.exists():
            subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def commands(out: Path, steps: int) -> list[tuple[Path, list[str]]]:
    """What each command makes, and the command."""
    out = out.absolute()
    records, cache, run = out / "records", out / "cache", out / "run"
    words = [f"--config.data.source={records}", "--config.evaluate_every=0"]
    stage_2 = [
        f"--config={ROOT}/configs/stage2.py:quick",
        f"--config.data.source={records}",
        f"--config.data.image_size={SIZE}",
        "--config.data.batch_size=32",
        f"--config.space.autoencoder={os.environ['FOODDIT_WEIGHTS']}",
        f"--config.towers.t5={out / 't5'}",
        "--config.towers.t5_length=96",
        f"--config.towers.eclip={out / 'eclip'}",
    ]
    fooddit = ["-m", "fooddit"]
    return [
        (
            records,
            [
                *fooddit,
                "prepare",
                os.environ["FOODDIT_PHOTOS"],
                str(records),
                f"--size={SIZE}",
                "--where=shot=finished",
            ],
        ),
        (
            out / "t5",
            [
                "main.py",
                f"--config={ROOT}/configs/t5.py:quick",
                *words,
                "--config.model.vocabulary=2048",
                "--config.train.steps=600",
                f"--workdir={out / 'run-t5'}",
                f"--export={out / 't5'}",
            ],
        ),
        (
            out / "eclip",
            [
                "main.py",
                f"--config={ROOT}/configs/eclip.py:quick",
                *words,
                "--config.data.batch_size=64",
                "--config.data.short=0.5",
                "--config.model.text.vocabulary=2048",
                "--config.model.text.length=96",
                "--config.train.steps=300",
                f"--workdir={out / 'run-eclip'}",
                f"--export={out / 'eclip'}",
            ],
        ),
        (
            cache / "eclip_pooled" / "stream.json",
            [*fooddit, "prepare", "--cache", str(records), str(cache), "--text", *stage_2],
        ),
        (
            run / "summary.json",
            [
                "main.py",
                *stage_2,
                f"--config.data.features={cache}",
                f"--config.space.statistics={records / 'latent_statistics.json'}",
                f"--config.train.steps={steps}",
                "--config.evaluate_every=0",
                "--config.evaluation.alignment=0",
                f"--workdir={run}",
            ],
        ),
        (
            out / "report" / "report.html",
            [
                *fooddit,
                "evaluate",
                f"--checkpoint={run}",
                "--features=builtin:scene_reader",
                f"--features=eclip:{out / 'eclip'}",
                "--num=128",
                f"--out={out / 'report'}",
            ],
        ),
    ]


if __name__ == "__main__":
    main()
