"""Which batch, rematerialisation and mesh: compiles them all for a topology and ranks those that fit."""

import json
import sys

from fooddit.aot.compilation import compile_request
from fooddit.aot.request import named_topology
from fooddit.config import ConfigError
from fooddit.config_file import read_experiment

REMAT = ("none", "dots", "full")


def settings(experiment, devices: int) -> list[dict]:
    """Config keys and values to try: the batch halved, as it is and doubled; every remat policy; fsdp a quarter, as it
    is and four times, where they divide the devices."""
    batch, fsdp = experiment.data.batch_size, experiment.mesh.fsdp
    batches = [size for size in (batch // 2, batch, batch * 2) if size and size % devices == 0] or [batch]
    shares = [share for share in sorted({max(fsdp // 4, 1), fsdp, fsdp * 4}) if devices % share == 0] or [fsdp]
    policies = REMAT if hasattr(experiment.model, "remat") else (None,)
    return [
        {"data.batch_size": size, "mesh.fsdp": share, **({"model.remat": policy} if policy else {})}
        for size in batches
        for share in shares
        for policy in policies
    ]


def sweep(request: dict, *, as_json: bool = False) -> int:
    """Prints a line for each setting as it is compiled, and the best that fits; exit code 1 if none does."""
    experiment = read_experiment(request["config_flags"])
    topology = named_topology(request, experiment)
    tried = []
    for setting in settings(experiment, len(topology.devices)):
        flags = [f"--config.{key}={value}" for key, value in setting.items()]
        try:
            found = compile_request(request | {"config_flags": request["config_flags"] + flags}, measure_kernels=False)
        except ConfigError as error:
            print(f"{setting}: {error}", file=sys.stderr)
            continue
        tried.append((setting, found))
        print(_line(setting, found), file=sys.stderr if as_json else sys.stdout, flush=True)
    fitting = [(setting, found) for setting, found in tried if found.fits]
    best = max(fitting, key=lambda pair: pair[1].images_per_second_per_chip or 0, default=None)
    if as_json:
        print(
            json.dumps({"settings": [s | f.to_dict() for s, f in tried], "best": best and best[0] | best[1].to_dict()})
        )
    elif best:
        print("best: " + " ".join(f"--config.{key}={value}" for key, value in best[0].items()))
    else:
        print("none fits")
    return 0 if best else 1


def _line(setting: dict, found) -> str:
    name = " ".join(f"{key}={value}" for key, value in setting.items())
    peak = "?" if found.peak_hbm_bytes is None else f"{found.peak_hbm_bytes / 1e9:.1f}"
    if not found.fits or found.images_per_second_per_chip is None:
        return f"{name}: {peak} GB, {'fits' if found.fits else 'does not fit'}"
    again = found.executed_flops / found.model_flops - 1
    return (
        f"{name}: {peak} GB, {found.hbm_bytes / 1e9:.1f} GB of traffic, {again:.1%} recomputed, "
        f"{1000 * found.roofline_seconds:.1f} ms ({found.bound}), {found.images_per_second_per_chip:.1f} images/s/chip"
    )
