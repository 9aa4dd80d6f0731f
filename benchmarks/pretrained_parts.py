"""The small frozen parts of stage 2 that ship with the package (`builtin:t5`, `builtin:eclip`, `builtin:dishes`).

    python benchmarks/pretrained_parts.py [--out runs/parts] [--parts t5 eclip dishes]

All learn from dish scenes and styled scenes together, from nothing: T5 by span corruption on their captions, E-CLIP by
contrast of pictures and captions, with patches that must tell their pixels, `dishes` as an autoencoder. They show the
path that published ones take, on data of which every word is known; they are not for photos. They are written to
OUT/t5, OUT/eclip and OUT/dishes.safetensors; copied to fooddit/models/pretrained/ they are the ones of the package.
About seventy minutes on two idle cores, fifty of them for the autoencoder.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 6000
# Of each part: its config, and what it changes of it. Styles are finer than what the autoencoder of scenes keeps.
PARTS = {
    "t5": ("t5.py:quick", {"train.steps": 1500}),
    "eclip": ("eclip.py:quick", {"train.steps": 800}),
    "dishes": ("autoencoder.py", {"train.steps": 6000, "model.channels": 16, "latent.noise": 0.1}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/parts"))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    arguments = parser.parse_args()
    records = merged_records(arguments.out)
    for name in arguments.parts:
        config, changes = PARTS[name]
        folder, weights = arguments.out / f"{name}.new", arguments.out / f"{name}.safetensors"
        if (arguments.out / name).exists() or weights.exists():
            continue
        command = [
            sys.executable,
            str(ROOT / "main.py"),
            f"--config={ROOT}/configs/{config}",
            f"--config.data.source={records}",
            *(f"--config.{key}={value}" for key, value in changes.items()),
            f"--workdir={arguments.out}/run-{name}",
            f"--export={weights if name == 'dishes' else folder}",
        ]
        subprocess.run(command, cwd=ROOT, check=True)
        if name != "dishes":
            store_as_half(folder, arguments.out / name)


def merged_records(out: Path) -> Path:
    """Scenes and styled scenes in one dataset; dishes and near-duplicates keep numbers of their own."""
    from fooddit.data.prepare import prepare
    from fooddit.data.records import SPLITS, RecordWriter, open_dataset, write_manifest

    folder = out / "records"
    if folder.exists():
        return folder
    parts = []
    for kind in ("scenes", "styles"):
        part = out / kind
        if not part.exists():
            prepare(f"{kind}:{PICTURES}", part, size=64)
        parts.append(part)
    work = out / "records.partial"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    entries = {}
    for split in SPLITS:
        writer, first = RecordWriter(work, split), 0
        datasets = [open_dataset(part, split) for part in parts]
        for dataset in datasets:
            for number, record in enumerate(dataset):
                numbers = {"dish": dataset.dishes[number], "twin": dataset.twins[number]}
                writer.write(record, **{name: int(value) + first for name, value in numbers.items()})
            first += int(max(dataset.dishes.max(), dataset.twins.max())) + 1
        entries[split] = writer.close()
    write_manifest(work, f"scenes:{PICTURES} and styles:{PICTURES}", entries)
    work.rename(folder)
    return folder


def store_as_half(folder: Path, out: Path) -> None:
    """The same folder, its tensors float16: half of the package's size for an error of a thousandth."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    halved = {name: array.astype(np.float16) for name, array in tensors.items() if not name.startswith("decoder.")}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    folder.rename(out)


if __name__ == "__main__":
    main()
