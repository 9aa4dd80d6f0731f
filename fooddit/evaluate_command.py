"""`fooddit evaluate`: how good a checkpoint's pictures are, or a folder's, as report.json and report.html."""

import argparse
import itertools
import json
import os
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

from fooddit.output_folder import require_writable

REPORT, PAGE, SETTINGS, PICTURES, FEATURES = "report.json", "report.html", "settings.json", "pictures", "features"
_FULL_DISK = "what is there is whole; free some and run the same command again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fooddit evaluate`."""
    parser.add_argument(
        "--checkpoint", metavar="DIR", help="a run's workdir: pictures are drawn from held-out captions"
    )
    parser.add_argument("--step", type=int, help="a checkpoint's step (default: the newest)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="pictures of any model instead, with metadata.jsonl")
    parser.add_argument("--records", metavar="DIR", help="the real pictures (default: those the run was trained on)")
    parser.add_argument(
        "--features",
        action="append",
        metavar="NETWORK",
        help="builtin:scene_reader (default), inception:FILE, inception-clean:FILE or eclip:DIR; may be repeated",
    )
    parser.add_argument("--num", type=int, default=256, metavar="N", help="pictures to draw (256)")
    parser.add_argument("--seed", type=int, default=0, help="of the first pictures (0)")
    parser.add_argument("--guidance-scale", type=float, help="1 is none (default: the run's)")
    parser.add_argument("--steps", type=int, help="of the sampler (default: the run's)")
    parser.add_argument("--real", type=int, default=2048, metavar="N", help="training pictures to compare with (2048)")
    parser.add_argument("--tail", type=float, metavar="N", help="categories with fewer are the long tail")
    parser.add_argument("--skip-nearest", action="store_true", help="do not look through all training pictures")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the pictures and the report")


def run(args: argparse.Namespace) -> int:
    """Draws what is not drawn yet, measures, and writes the report; returns the exit code."""
    _check(args)
    require_writable(args.out)
    from fooddit.data.disk import naming_full_disk
    from fooddit.evaluation.features import open_features
    from fooddit.parallel.compilation_cache import keep_compiled_programs

    keep_compiled_programs()
    networks = [open_features(source) for source in dict.fromkeys(args.features or ["builtin:scene_reader"])]
    if len({network.name for network in networks}) < len(networks):
        raise ValueError(f"--features: found two networks called {networks[0].name!r}, give each only once")
    with naming_full_disk(args.out, _FULL_DISK):
        return _evaluate(args, networks)


def _evaluate(args: argparse.Namespace, networks: list) -> int:
    import jax

    from fooddit.data.records import open_dataset
    from fooddit.evaluation.feature_store import FeatureStore
    from fooddit.evaluation.measurements import Material, gather
    from fooddit.evaluation.picture_folder import common_shape, read_folder
    from fooddit.evaluation.set_page import set_page
    from fooddit.evaluation.set_report import set_report
    from fooddit.evaluation.subjects import find_subjects
    from fooddit.parallel import make_mesh

    pipeline = None if args.checkpoint is None else _pipeline(args)
    source, cache = (args.records, "") if args.records else _records_of(pipeline, args.checkpoint)
    train_set, holdout_set = (open_dataset(source, split, cache=cache) for split in ("train", "holdout"))
    if pipeline is None:
        folder, settings = args.images, {"images": str(args.images.absolute()), "dataset": holdout_set.fingerprint}
        _require_same(args.out, settings)
    else:
        folder, settings = args.out / PICTURES, _draw(args, pipeline, holdout_set)
    pictures = read_folder(folder)
    material = Material(
        folder,
        pictures,
        find_subjects(pictures, holdout_set),
        common_shape(folder, pictures),
        train_set,
        holdout_set,
    )
    store = FeatureStore(args.out / FEATURES)
    # Networks look at pictures on all devices; drawing stays on one, where a picture has always the same bits.
    with jax.set_mesh(make_mesh()):
        measured = gather(material, networks, store, _bar, real_count=args.real, nearest=not args.skip_nearest)
    _keep_settings(args.out, settings)
    report = set_report(material, measured, args.tail)
    report |= {"settings": settings | {"records": str(source)}, **_titles(args, report)}
    _write(args.out / REPORT, json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    _write(args.out / PAGE, set_page(report, material))
    _say(report, args.out)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for arguments that do not go together, before anything is loaded."""
    if (args.checkpoint is None) == (args.images is None):
        raise ValueError(
            "give --checkpoint DIR to draw pictures with a run, or --images DIR for pictures that are there"
        )
    if args.images is not None and not args.records:
        raise ValueError("--images needs --records DIR: the real pictures to compare with (fooddit prepare makes them)")
    if args.num < 2 or args.real < 2:
        raise ValueError(f"found --num {args.num}, --real {args.real}; expected at least 2 of each to compare")
    if args.images is not None and args.images.absolute() == args.out.absolute():
        raise ValueError(f"--out {args.out}: is the folder of --images; give another one for the report")


def _pipeline(args: argparse.Namespace):
    from fooddit.pipeline import Pipeline

    return Pipeline.from_checkpoint(args.checkpoint, args.step)


def _records_of(pipeline, checkpoint: str) -> tuple[str, str]:
    """The records that a run was trained on, and where copies of remote ones are kept. ValueError if they are gone."""
    from fooddit.data.staging import is_remote
    from fooddit.tasks.run_data import records_folder

    data = pipeline.experiment.data
    source = records_folder(data.source, data.image_size, Path(checkpoint))
    if not is_remote(source) and not Path(source).is_dir():
        raise ValueError(f"{checkpoint} was trained on {source}, which is not there; give --records DIR")
    return str(source), data.cache


def _draw(args: argparse.Namespace, pipeline, holdout_set) -> dict:
    """Draws the pictures that are not in the folder yet, and returns what they are drawn with."""
    from fooddit.evaluation.picture_folder import plan, write_metadata
    from fooddit.pipeline import BATCH_SIZE

    given = {"guidance_scale": args.guidance_scale, "steps": args.steps}
    sampling = {name: getattr(pipeline.experiment.sampling, name) if v is None else v for name, v in given.items()}
    settings = {"checkpoint": pipeline.name, "dataset": holdout_set.fingerprint, "seed": args.seed, **sampling}
    wanted = plan(holdout_set, args.num, args.seed, BATCH_SIZE)
    _require_same(args.out, settings)
    _keep_settings(args.out, settings)
    folder = args.out / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    missing = [picture for picture in wanted if not (folder / picture.name).is_file()]
    with _bar("drawing", len(wanted)) as bar, _first_warning():
        bar.update(len(wanted) - len(missing))
        for seed, group in itertools.groupby(missing, key=lambda picture: picture.seed):
            group = list(group)
            drawn = pipeline.stream([picture.prompt for picture in group], seed=seed, **sampling)
            for picture, made in zip(group, drawn, strict=True):
                made.save(folder / picture.name)
                bar.update(1)
    write_metadata(folder, wanted)
    return settings


def _require_same(out: Path, settings: dict) -> None:
    """Raises FileExistsError if what is there is of other pictures, or of pictures drawn with other settings."""
    path = out / SETTINGS
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: no JSON ({error}); give another --out, or move {out} away") from error
    if changed := [name for name in {**settings, **found} if found.get(name) != settings.get(name)]:
        name = changed[0]
        raise FileExistsError(
            f"{out} holds another evaluation ({name}: {found.get(name)}, now {settings.get(name)}); give another "
            "--out, or move it away"
        )


def _keep_settings(out: Path, settings: dict) -> None:
    out.mkdir(parents=True, exist_ok=True)
    _write(out / SETTINGS, json.dumps(settings, indent=2) + "\n")


def _titles(args: argparse.Namespace, report: dict) -> dict[str, str]:
    source = Path(args.checkpoint).absolute().name if args.checkpoint else args.images.absolute().name
    height, width = report["shape"]
    drawn = "drawn from held-out captions" if args.checkpoint else f"of {args.images}"
    parts = [f"{report['pictures']:,} pictures of {width} x {height} {drawn}", time.strftime("%d %B %Y")]
    return {"title": f"How good are the pictures of {source}?", "subtitle": " · ".join(parts)}


def _say(report: dict, out: Path) -> None:
    """The figures that matter most, and where the rest is."""
    for network in report["networks"]:
        for against, words in (("same_dishes", "photos of the same dishes"), ("training", "training pictures")):
            found, real = network[against]["pictures"], network[against]["real"]
            for name in ("fid", "kid", "cmmd"):
                if found and name in found:
                    beside = f"; real photos {real[name]['value']:.4g}" if real else ""
                    print(f"{name.upper()} {found[name]['value']:.4g} ({network['name']}, from {words}{beside})")
    print(out / PAGE)


def _bar(label: str, total: int):
    from tqdm import tqdm

    from fooddit.streams import Lasting

    return tqdm(total=total, desc=label, unit="picture", delay=1, file=Lasting(sys.stderr))


@contextmanager
def _first_warning():
    """Of captions that are longer than the model reads there may be thousands."""
    seen = []
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: seen.append(str(message))
        yield
    if seen:
        more = f" (and {len(seen) - 1} warnings more)" if len(seen) > 1 else ""
        print(f"fooddit evaluate: {seen[0]}{more}", file=sys.stderr)


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
