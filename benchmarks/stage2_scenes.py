"""Stage 1, then stage 2, on dish scenes: does the model draw what dense captions in two languages ask, and what for?

    python benchmarks/stage2_scenes.py [--out runs/stage2-scenes] [--seeds 0]            (stage 1, then stage 2)
    python benchmarks/stage2_scenes.py --arms [--seeds 0 1 2]                           (equal, smaller budgets)
    python benchmarks/stage2_scenes.py --table

Stage 1 trains on short captions (names) with a text transformer of its own, stage 2 goes on from it by name with dense
captions through the frozen T5 and E-CLIP that ship with the package. Judged on combinations of attributes that neither
stage has seen, asked for in dense captions: a picture counts if all eight attributes are read from it as asked.

The arms are stage 2 alone at an equal number of steps: after stage 1, without it, with one tower, and with captions
that are other pictures' (which must fail). Each run is a process of its own and resumes where it was; once finished it
is an entry of RESULTS (OUT/results.json) and is not made again. Shares have 95 % Wilson intervals over all pictures of
all seeds; the spread over seeds stands beside them.
"""

import argparse
from pathlib import Path

import numpy as np
from finished_runs import finished, flags, keep, train

SCENES, PICTURES = 12_000, 512
STAGE_1_STEPS, STAGE_2_STEPS, ARM_STEPS = 500, 1400, 400
MAIN = "stage 1, then stage 2"
# Of a run's summary, which also says where on a disk it was.
KEPT = ("steps", "seconds", "alignment")
ARMS = {
    "with stage 1": {},
    "without stage 1": {"init_from": ""},
    "T5 alone": {"towers.eclip": ""},
    "E-CLIP alone": {"towers.t5": ""},
    "captions shuffled (must fail)": {"data.source": "SHUFFLED"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/stage2-scenes"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", action="store_true", help="the arms, at their smaller budget")
    parser.add_argument("--table", action="store_true", help="only print what is finished")
    parser.add_argument("--results", type=Path, help="a file of finished runs, read and written (OUT/results.json)")
    arguments = parser.parse_args()
    out, path = arguments.out, arguments.results or arguments.out / "results.json"
    out.mkdir(parents=True, exist_ok=True)
    for seed in [] if arguments.table else arguments.seeds:
        for name in ARMS if arguments.arms else [MAIN]:
            if f"{name}, seed {seed}" in finished(path):
                continue
            first = train(stage_1(seed), out / f"stage1-{seed}")
            then = train(stage_2(name, seed, out), out / f"{slug(name)}-{seed}")
            runs = {"stage 1": first, "stage 2": then}
            found = {stage: {kept: summary[kept] for kept in KEPT} for stage, summary in runs.items()}
            keep(path, f"{name}, seed {seed}", found)
    print(table(finished(path)))


def stage_1(seed: int) -> list[str]:
    """Short captions, the text transformer trained along; the shape of stage 2's model."""
    return flags(
        "quickstart",
        {
            "data.source": f"scenes:{SCENES}",
            "data.batch_size": 64,
            "data.short": 0.9,
            "data.dense": 0.0,
            "train.steps": STAGE_1_STEPS,
            "train.seed": seed,
            "evaluate_every": 0,
            "evaluation.alignment": PICTURES,
        },
    )


def stage_2(name: str, seed: int, out: Path) -> list[str]:
    """Dense captions, frozen towers, from stage 1; no image prompts, of which scenes have none."""
    settings = {
        "init_from": str(out / f"stage1-{seed}"),
        "data.source": str(out / f"stage1-{seed}" / f"records-scenes-{SCENES}-64"),
        "space.autoencoder": "builtin:scenes",
        "data.reference_size": 0,
        "model.image_tokens": 0,
        "train.steps": STAGE_2_STEPS if name == MAIN else ARM_STEPS,
        "train.seed": seed,
        "evaluate_every": 0,
        "evaluation.alignment": PICTURES,
        **ARMS.get(name, {}),
    }
    if settings["data.source"] == "SHUFFLED":
        settings["data.source"] = str(shuffled(out / f"stage1-{seed}" / f"records-scenes-{SCENES}-64"))
    return flags("stage2:quick", settings)


def shuffled(source: Path) -> Path:
    """The same records, each training picture with the captions of another one."""
    from dataclasses import replace

    from fooddit.data.records import SPLITS, RecordWriter, open_dataset, write_manifest

    folder = source.with_name(f"{source.name}-shuffled")
    if folder.exists():
        return folder
    work = folder.with_suffix(".partial")
    work.mkdir(exist_ok=True)
    entries = {}
    for split in SPLITS:
        dataset, writer = open_dataset(source, split), RecordWriter(work, split)
        count = len(dataset)
        order, others = np.random.default_rng(0).permutation(count), np.empty(count, int)
        others[order] = np.roll(order, 1)
        captions = [record.captions for record in dataset]
        for number, record in enumerate(dataset):
            other = others[number] if split == "train" else number
            record = replace(record, captions=captions[other])
            writer.write(record, dish=int(dataset.dishes[number]), twin=int(dataset.twins[number]))
        entries[split] = writer.close()
    write_manifest(work, "scenes, captions shuffled", entries)
    work.rename(folder)
    return folder


def table(results: dict[str, dict]) -> str:
    lines = [
        "| run | steps | seeds | minutes | all exact | en | zh | lowest and highest seed |",
        "|---|--:|--:|--:|---|---|---|---|",
    ]
    for name in (MAIN, *ARMS):
        found = [summaries for key, summaries in sorted(results.items()) if key.startswith(f"{name}, seed ")]
        if found:
            lines.append(row(name, found))
    return "\n".join(lines)


def row(name: str, found: list[dict]) -> str:
    """Minutes are those of both stages; where there is no stage 1 they are of stage 2 alone."""
    from fooddit.evaluation.alignment import wilson

    alignments = [summaries["stage 2"]["alignment"] for summaries in found]
    shares = [a["all_exact"] for a in alignments]

    def pooled(values: list[float], count: int) -> str:
        successes = round(sum(value * count for value in values))
        low, high = wilson(successes, count * len(values))
        return f"{np.mean(values):.3f} ({low:.3f}-{high:.3f})"

    languages = [
        pooled([a["per_language"][lang][0] for a in alignments], alignments[0]["n"] // 2) for lang in ("en", "zh")
    ]
    stages = ("stage 2",) if ARMS.get(name, {}).get("init_from") == "" else ("stage 1", "stage 2")
    minutes = np.mean([sum(summaries[stage]["seconds"] for stage in stages) for summaries in found]) / 60
    steps = " + ".join(str(found[0][stage]["steps"]) for stage in stages)
    return (
        f"| {name} | {steps} | {len(found)} | {minutes:.1f} | {pooled(shares, alignments[0]['n'])} "
        f"| {languages[0]} | {languages[1]} | {min(shares):.3f}, {max(shares):.3f} |"
    )


def slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")


if __name__ == "__main__":
    main()
