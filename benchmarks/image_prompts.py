"""Image prompts on styled scenes: what no caption names is taken from a reference, and the caption is still obeyed.

    python benchmarks/image_prompts.py [--out runs/image-prompts] [--seeds 0 1 2] [--arms other same]
    python benchmarks/image_prompts.py --table [--results FILE]                         (what is finished)

A style is a glaze's hue and one of sixteen table textures; its pictures share nothing else, and captions name neither.
Stage 2 is trained on (reference, target) pairs of one style; the control on references that are the target itself.
Judged on styles never seen: every picture is asked for by a text that contradicts its reference in all six attributes
that text names. At each image_scale: the share of pictures with the reference's style (hue within 10 degrees and the
texture right), with all that the text says, and with the reference's own attributes in place of the text's (copies).
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from finished_runs import finished, flags, keep, train
from image_prompts_chart import draw_chart

from fooddit.evaluation.alignment import wilson
from fooddit.pipeline import Pipeline
from fooddit.tasks.style_alignment import style_alignment, style_requests

STYLES, STEPS, PICTURES, BATCH = 12_000, 2400, 256, 64
SHIFT = 3.0
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
ARMS = {"other": "another picture of the dish", "same": "the target itself (control)"}
TITLES = {arm: f"Trained on {name}" for arm, name in zip(ARMS, ("another picture of the style", "the target itself"))}
COLUMNS = ("hue", "texture", "style", "named_exact")
# Rows of the picture: requests in English, which are every other one.
SHOWN = (0, 2, 4, 6, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/image-prompts"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--table", action="store_true", help="only print what is finished")
    parser.add_argument("--results", type=Path, help="a file of finished runs, read and written (OUT/results.json)")
    arguments = parser.parse_args()
    out, path = arguments.out, arguments.results or arguments.out / "results.json"
    out.mkdir(parents=True, exist_ok=True)
    for seed in [] if arguments.table else arguments.seeds:
        for arm in arguments.arms:
            if f"{arm}, seed {seed}" not in finished(path):
                workdir = out / f"{arm}-{seed}"
                train(flags("stage2:quick", settings(arm, seed, out)), workdir)
                keep(path, f"{arm}, seed {seed}", sweep(workdir))
                if arm == "other":
                    chart(workdir, finished(path), out / "sweep.png")
    print(table(finished(path)))


def settings(arm: str, seed: int, out: Path) -> dict:
    """What an arm's run changes of stage 2's quick form; all runs read the same records."""
    return {
        "data.source": records(out),
        "data.references": arm,
        "train.steps": STEPS,
        "train.seed": seed,
        # What no text says is decided early, where there is nearly nothing but noise.
        "timesteps.shift": SHIFT,
        "sampling.shift": SHIFT,
        "evaluate_every": 0,
        "evaluation.alignment": PICTURES,
    }


def records(out: Path) -> Path:
    from fooddit.data.prepare import prepare

    folder = out / "records"
    if not folder.exists():
        prepare(f"styles:{STYLES}", folder, size=64)
    return folder


def sweep(workdir: Path) -> list[dict]:
    """A finished run's figures at each scale."""
    rows = []
    for scale, artist, pipe, sampling in at_scales(workdir):
        found = style_alignment(artist, pipe.params, pipe.frozen, PICTURES, BATCH, sampling)
        rows.append({"image_scale": scale, **found.to_dict()})
        print(f"{workdir.name}: image_scale {scale}: style {found.shares['style']:.3f}, "
              f"text {found.shares['named_exact']:.3f}, copies {found.copied:.3f}", flush=True)  # fmt: skip
    return rows


def at_scales(workdir: Path):
    """(scale, artist, pipeline, sampling) of a run at each scale in turn."""
    pipe = Pipeline.from_checkpoint(workdir)
    artist = pipe._artist(pipe.experiment.data.image_size)
    for scale in SCALES:
        yield scale, artist, pipe, replace(pipe.experiment.sampling, image_scale=scale)


def chart(workdir: Path, results: dict, path: Path) -> None:
    """The sweep of all finished runs, with pictures of this one."""
    prompts: list = []
    columns: list[np.ndarray] = []
    for _, artist, pipe, sampling in at_scales(workdir):
        if not prompts:
            requests = style_requests(max(SHOWN) + 1, artist.reader.reference_size)[0]
            prompts = [requests[i] for i in SHOWN]
            columns.append(np.stack([prompt.image for prompt in prompts]))
        columns.append(artist.draw(pipe.params, pipe.frozen, prompts, SHOWN, batch_size=len(SHOWN), sampling=sampling))
    pictures = np.stack(columns, axis=1)
    draw_chart(results, TITLES, [prompt.text for prompt in prompts], pictures, path)


def table(results: dict[str, list[dict]]) -> str:
    def share(found: list[dict], value) -> str:
        values, count = [value(row) for row in found], found[0]["n"]
        low, high = wilson(round(sum(v * count for v in values)), count * len(values))
        return f"{np.mean(values):.3f} ({low:.3f}-{high:.3f})"

    lines = [
        "| trained on | image_scale | seeds | hue | texture | both | all that the text says | copies |",
        "|---|--:|--:|---|---|---|---|---|",
    ]
    rows = [{"arm": key.partition(",")[0], **row} for key, found in results.items() for row in found]
    for arm, name in ARMS.items():
        for scale in SCALES:
            found = [row for row in rows if row["arm"] == arm and row["image_scale"] == scale]
            if found:
                columns = [
                    share(found, lambda r, n=n: r["shares"][n]) for n in ("hue", "texture", "style", "named_exact")
                ]
                copies = share(found, lambda r: r["copied"])
                lines.append(f"| {name} | {scale} | {len(found)} | {' | '.join(columns)} | {copies} |")
    if rows:
        of = "chance: hue {hue:.3f}, texture {texture:.3f}, both {style:.4f}".format(**rows[0]["chance"])
        read = "the reader on real renders: both {style:.3f}, all named {named_exact:.3f}".format(**rows[0]["oracle"])
        lines.append(f"\n{of}; {read}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
