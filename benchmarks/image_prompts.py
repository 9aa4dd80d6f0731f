"""Image prompts on styled scenes: what no caption names is taken from a reference, and the caption is still obeyed.

    python benchmarks/image_prompts.py [--out runs/image-prompts] [--seeds 0 1 2]        (trains and measures)
    python benchmarks/image_prompts.py --measure                                        (finished runs only)

A style is a glaze's hue and one of sixteen table textures; its pictures share nothing else, and captions name neither.
Stage 2 is trained on (reference, target) pairs of one style; the control on references that are the target itself.
Judged on styles never seen: every picture is asked for by a text that contradicts its reference in all six attributes
that text names. At each image_scale: the share of pictures with the reference's style (hue within 10 degrees and the
texture right), with all that the text says, and with the reference's own attributes in place of the text's (copies).
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STYLES, STEPS, PICTURES, BATCH = 12_000, 800, 256, 64
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
ARMS = {"another picture of the dish": "other", "the target itself (control)": "same"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/image-prompts"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--json", type=Path, help="where the figures go (OUT/sweep.json)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in arguments.seeds:
        for name, references in ARMS.items():
            workdir = arguments.out / f"{references}-{seed}"
            if not arguments.measure:
                train(workdir, references, seed, arguments.out)
            if (workdir / "summary.json").exists():
                rows += [{"arm": name, "seed": seed, **row} for row in sweep(workdir)]
    path = arguments.json or arguments.out / "sweep.json"
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


def train(workdir: Path, references: str, seed: int, out: Path) -> None:
    """In a process of its own; resumes, and does nothing if it is finished. All runs read the records of the first."""
    if (workdir / "summary.json").exists():
        return
    settings = {
        "data.source": records(out),
        "data.references": references,
        "train.steps": STEPS,
        "train.seed": seed,
        "evaluate_every": 0,
        "evaluation.alignment": PICTURES,
    }
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, str(ROOT / "main.py"), f"--config={ROOT}/configs/stage2.py:quick", *flags]
    with workdir.with_suffix(".log").open("a") as log:
        code = subprocess.run([*command, f"--workdir={workdir}"], cwd=ROOT, stdout=log, stderr=log).returncode
    if code:
        sys.exit(f"{workdir.with_suffix('.log')}: main.py ended with {code}")


def records(out: Path) -> Path:
    from fooddit.data.prepare import prepare

    folder = out / "records"
    if not folder.exists():
        prepare(f"styles:{STYLES}", folder, size=64)
    return folder


def sweep(workdir: Path) -> list[dict]:
    """Figures of a run at each scale, kept beside it."""
    from fooddit.pipeline import Pipeline
    from fooddit.tasks.style_alignment import style_alignment

    kept = workdir / "sweep.json"
    if kept.exists():
        return json.loads(kept.read_text())
    pipe = Pipeline.from_checkpoint(workdir)
    artist = pipe._artist(pipe.experiment.data.image_size)
    rows = []
    for scale in SCALES:
        sampling = replace(pipe.experiment.sampling, image_scale=scale)
        found = style_alignment(artist, pipe.params, pipe.frozen, PICTURES, BATCH, sampling)
        rows.append({"image_scale": scale, **found.to_dict()})
        print(f"{workdir.name}: image_scale {scale}: style {found.shares['style']:.3f}, "
              f"text {found.shares['named_exact']:.3f}, copies {found.copied:.3f}", flush=True)  # fmt: skip
    kept.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    return rows


def table(rows: list[dict]) -> str:
    from fooddit.evaluation.alignment import wilson

    def share(found: list[dict], value) -> str:
        values, count = [value(row) for row in found], found[0]["n"]
        low, high = wilson(round(sum(v * count for v in values)), count * len(values))
        return f"{np.mean(values):.3f} ({low:.3f}-{high:.3f})"

    lines = [
        "| trained on | image_scale | seeds | hue | texture | both | all that the text says | copies |",
        "|---|--:|--:|---|---|---|---|---|",
    ]
    for arm in ARMS:
        for scale in SCALES:
            found = [row for row in rows if row["arm"] == arm and row["image_scale"] == scale]
            if found:
                columns = [
                    share(found, lambda r, n=name: r["shares"][n])
                    for name in ("hue", "texture", "style", "named_exact")
                ]
                copies = share(found, lambda r: r["copied"])
                lines.append(f"| {arm} | {scale} | {len(found)} | {' | '.join(columns)} | {copies} |")
    if rows:
        oracle, chance = rows[0]["oracle"], rows[0]["chance"]
        of = "chance: hue {hue:.3f}, texture {texture:.3f}, both {style:.4f}".format(**chance)
        read = "the reader on real renders: both {style:.3f}, all named {named_exact:.3f}".format(**oracle)
        lines.append(f"\n{of}; {read}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
