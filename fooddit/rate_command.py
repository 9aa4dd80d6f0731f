"""`fooddit rate`: people rate pictures under a written standard, in a browser."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATABASE = "sqlite:///ratings.db"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the actions of `fooddit rate`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = _action(actions, "new", _new, "a project of the pictures in a folder; its first round is open")
    new.add_argument("name")
    new.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="with or without metadata.jsonl")
    new.add_argument("--standard", default="generated", metavar="NAME|FILE", help="generated, photos, or your own")
    new.add_argument("--pairs", type=Path, metavar="FILE", help="a CSV of two pictures a line: which one is better?")
    new.add_argument("--raters", type=int, default=3, metavar="N", help="how many rate each item (3)")
    rater = _action(actions, "add-rater", _add_rater, "somebody who rates; prints their token, which is kept nowhere")
    rater.add_argument("name")
    rater.add_argument("--lead", action="store_true", help="who may also look at results and open rounds")
    out = _action(actions, "shut-out", _shut_out, "a rater's token is worth nothing any more; what they said is kept")
    out.add_argument("name")
    again = _action(actions, "again", _again, "a round of the items on which raters differ")
    again.add_argument("project", type=int)
    again.add_argument("--apart", type=float, default=1.0, metavar="LEVELS", help="more than so many levels (1)")
    export = _action(actions, "export", _export, "items.parquet, labels.parquet, label-studio.json of a project")
    export.add_argument("project", type=int)
    export.add_argument("out", type=Path, metavar="DIR")
    serve = _action(actions, "serve", _serve, "the page on which people rate")
    serve.add_argument("--host", default="127.0.0.1", help="where it listens (127.0.0.1: this machine alone)")
    serve.add_argument("--port", type=int, default=8300)
    serve.add_argument(
        "--name", action="append", default=[], metavar="HOST", help="that the page is asked by, from outside"
    )
    serve.add_argument("--alone", metavar="RATER", help="who rates without a token, on this machine alone")


def run(args: argparse.Namespace) -> int:
    """Does the action; returns the exit code."""
    try:
        from fooddit.rating.database import open_database
    except ImportError as error:
        raise ValueError(f"rating needs more packages ({error.name}): pip install 'fooddit[studio]'") from error
    from fooddit.rating.store import Store

    return args.do(args, Store(open_database(args.database)))


def _action(actions, name: str, do, text: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("--database", default=DATABASE, metavar="URL", help=f"SQLAlchemy's ({DATABASE})")
    parser.set_defaults(do=do)
    return parser


def _new(args: argparse.Namespace, store) -> int:
    from fooddit.rating.records import Settings
    from fooddit.standards import load_standard

    rows = list(_pairs(args.pictures, args.pairs) if args.pairs else _items(args.pictures))
    if not rows:
        raise ValueError(f"{args.pictures}: found no picture; expected {', '.join(_kinds())}")
    mode = "pairs" if args.pairs else "levels"
    folder = str(args.pictures.resolve())
    project = store.add_project(args.name, folder, load_standard(args.standard), mode, Settings(raters=args.raters))
    store.add_items(project, rows)
    store.open_round(project)
    print(f"project {project}: {len(rows)} items, each for {args.raters} raters")
    return 0


def _add_rater(args: argparse.Namespace, store) -> int:
    token = store.add_rater(args.name, "lead" if args.lead else "rater")
    print(f"{args.name} opens http://127.0.0.1:8300/#token={token} (or the address that the page is served at)")
    return 0


def _shut_out(args: argparse.Namespace, store) -> int:
    store.shut_out(args.name)
    return 0


def _again(args: argparse.Namespace, store) -> int:
    from fooddit.rating.protocol import ratings_of, to_ask_again

    ratings = ratings_of(store.given(args.project), tuple(store.standard(args.project).subs))
    why = to_ask_again(ratings, args.apart)
    if not why:
        print(f"no item's raters are more than {args.apart:g} levels apart: nothing to ask again")
        return 0
    print(
        f"round {store.open_round(args.project, 'again', why)}: {len(why)} of {len(ratings.keys)} items are asked again"
    )
    return 0


def _export(args: argparse.Namespace, store) -> int:
    from fooddit.rating.exports import to_label_studio, write_tables

    files = {key: found[0] for key, (found, _) in store.items(args.project).items()}
    try:
        written = write_tables(store, args.project, args.out)
    except ImportError as error:
        raise ValueError(f"tables need more packages ({error.name}): pip install 'fooddit[prep]'") from error
    tasks = to_label_studio(store.given(args.project), files)
    written.append(args.out / "label-studio.json")
    written[-1].write_text(json.dumps(tasks, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print("\n".join(map(str, written)))
    return 0


def _serve(args: argparse.Namespace, store) -> int:
    import uvicorn

    from fooddit.rating.server import application, check_address

    check_address(args.host, args.alone is not None)
    alone = None if args.alone is None else store.rater_named(args.alone)
    names = ("localhost", "127.0.0.1", "::1", *args.name, *([args.host] if args.host not in ("0.0.0.0", "::") else []))
    print(f"http://{args.host}:{args.port}", flush=True)
    uvicorn.run(application(store, names, alone), host=args.host, port=args.port, log_level="warning")
    return 0


def _items(folder: Path) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """Pictures of a folder, by name, with the texts of its metadata.jsonl where there is one."""
    captions: dict[str, str] = {}
    metadata = folder / "metadata.jsonl"
    if metadata.is_file():
        for number, line in enumerate(metadata.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                captions[row["file_name"]] = next(
                    str(row[key]) for key in ("prompt", "title", "text", "file_name") if key in row
                )
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{metadata}, line {number}: expected an object with file_name ({error})") from error
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _kinds():
            name = path.relative_to(folder).as_posix()
            yield name, [name], {"caption": captions[name]} if name in captions else {}


def _pairs(folder: Path, file: Path) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    import csv

    with file.open(encoding="utf-8-sig", newline="") as lines:
        for number, row in enumerate(csv.reader(lines), 1):
            if len(row) != 2 or not all((folder / name).is_file() for name in row):
                raise ValueError(f"{file}, line {number}: found {row}, expected two pictures of {folder}")
            yield " | ".join(row), row, {}


def _kinds() -> tuple[str, ...]:
    from fooddit.rating.server import PICTURES

    return tuple(PICTURES)
