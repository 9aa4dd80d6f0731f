"""What a compiled program needs and how fast it could run: memory, traffic, and a roofline of one run of it."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from fooddit.aot.hlo import Program as Hlo
from fooddit.aot.operations import biggest, flops, kernel_flops
from fooddit.aot.program import Program
from fooddit.aot.topology import Topology


@dataclass(frozen=True)
class Figures:
    """Of one run of a program (a train step, or a batch drawn), on one device unless said otherwise; None where the
    backend does not tell.

    Attributes:
      peak_hbm_bytes: arguments, results that do not take an argument's place, temporaries and code.
      model_flops, executed_flops: of all devices; the second with what rematerialisation computes again.
      hbm_bytes: to and from HBM. collective_bytes: sent by a device, by kind; "network": to other slices or nodes.
      kernel_cycles: static cycles of all calls of our kernels, a device. kernels: by kernel, calls and cycles of one.
      roofline_seconds: the longest of what compute, HBM and interconnect take, as if they overlapped wholly; `bound` is
        which. mfu_bound: share of the peak that the model's FLOPs, at most those executed, would then use.
    """

    what: str
    config: str
    topology: str
    devices: int
    chips: int
    fits: bool
    argument_bytes: int | None = None
    temporary_bytes: int | None = None
    code_bytes: int | None = None
    peak_hbm_bytes: int | None = None
    capacity_bytes: int | None = None
    headroom_bytes: int | None = None
    model_flops: float | None = None
    executed_flops: float | None = None
    hbm_bytes: int | None = None
    collective_bytes: dict[str, float] | None = None
    kernel_cycles: int | None = None
    kernels: dict[str, dict[str, int]] | None = None
    compute_seconds: float | None = None
    hbm_seconds: float | None = None
    interconnect_seconds: float | None = None
    roofline_seconds: float | None = None
    bound: str | None = None
    mfu_bound: float | None = None
    images_per_second_per_chip: float | None = None
    compile_seconds: float | None = None
    biggest: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def figures(program: Program, compiled, topology: Topology, hlo: Hlo | None, kernels: dict | None, **known) -> Figures:
    """Of an executable; `hlo` is its text (TPUs), `kernels` what `KernelCycles.result` gives, None if not measured."""
    chip, jaxpr = topology.accelerator, program.traced.jaxpr.jaxpr
    memory = compiled.memory_analysis()
    code = memory.generated_code_size_in_bytes
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.argument_size_in_bytes + fresh + memory.temp_size_in_bytes + code
    executed, inside = flops(jaxpr), kernel_flops(jaxpr)
    told: dict[str, Any] = {}
    if topology.is_tpu:
        told = {"hbm_bytes": hlo.hbm_bytes(), "collective_bytes": _sent(hlo, topology)}
        seconds = executed / (chip.flops * len(topology.devices))
        if kernels is not None:
            told["kernel_cycles"] = sum(k["calls"] * k["cycles"] for k in kernels.values())
            told["kernels"] = kernels
            outside = (executed - inside) / (chip.flops * len(topology.devices))
            seconds = outside + told["kernel_cycles"] / chip.clock
        told |= _roofline(program, topology, told | {"compute_seconds": seconds, "executed_flops": executed})
    return Figures(
        what=program.what,
        topology=str(topology),
        devices=len(topology.devices),
        chips=topology.chips,
        fits=peak <= chip.hbm_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        code_bytes=code,
        peak_hbm_bytes=peak,
        capacity_bytes=int(chip.hbm_bytes),
        headroom_bytes=int(chip.hbm_bytes) - peak,
        model_flops=program.model_flops,
        executed_flops=executed,
        **told,
        **known,
    )


class Refusal(NamedTuple):
    """A compiler's word that memory does not suffice: bytes used and there are, and the biggest tensors."""

    used: int | None
    capacity: int | None
    biggest: list[str]


def out_of_memory(message: str) -> Refusal | None:
    """What an XLA error says of memory; None if it is about something else."""
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    used = re.search(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm", message)
    used = used or re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", message)
    bytes_of = lambda number, unit: int(float(number) * 1024 ** " KMGT".index(unit or " "))  # noqa: E731
    sizes = re.findall(r"Size: ([\d.]+\w?)\s.*?Shape: (\S+)", message, re.DOTALL)
    biggest = [f"{size} {shape}" for size, shape in dict.fromkeys(sizes)][:10]
    return Refusal(*((bytes_of(*used.group(1, 2)), bytes_of(*used.group(3, 4))) if used else (None, None)), biggest)


def does_not_fit(program: Program, message: str, topology: Topology, **known) -> Figures | None:
    """Figures of a program that the compiler refused for want of memory; None if it was refused for another reason."""
    refusal = out_of_memory(message)
    if refusal is None:
        return None
    capacity = refusal.capacity or int(topology.accelerator.hbm_bytes)
    return Figures(
        what=program.what,
        topology=str(topology),
        devices=len(topology.devices),
        chips=topology.chips,
        fits=False,
        peak_hbm_bytes=refusal.used,
        capacity_bytes=capacity,
        headroom_bytes=None if refusal.used is None else capacity - refusal.used,
        model_flops=program.model_flops,
        executed_flops=flops(program.traced.jaxpr.jaxpr),
        biggest=refusal.biggest or biggest(program.traced.jaxpr.jaxpr),
        **known,
    )


def _sent(hlo: Hlo, topology: Topology) -> dict[str, float]:
    """Bytes that a device sends, by kind of collective; those between slices are named so."""
    sent: dict[str, float] = {}
    share = len(topology.devices) // topology.slices
    for collective in hlo.collectives():
        kind = collective.kind
        between = kind.startswith("network")
        if not between and any(device // share != group[0] // share for group in collective.groups for device in group):
            kind = f"network {kind}"
        sent[kind] = sent.get(kind, 0.0) + collective.sent
    return sent


def _roofline(program: Program, topology: Topology, told: dict[str, Any]) -> dict[str, Any]:
    chip = topology.accelerator
    crossing = sum(sent for kind, sent in told["collective_bytes"].items() if kind.startswith("network"))
    inside = sum(told["collective_bytes"].values()) - crossing
    seconds = {
        "compute": told["compute_seconds"],
        "HBM": told["hbm_bytes"] / chip.hbm_bandwidth,
        "interconnect": inside / chip.link_bandwidth + crossing / chip.network_bandwidth,
    }
    bound = max(seconds, key=seconds.get)
    peak = chip.flops * len(topology.devices)
    return {
        "compute_seconds": seconds["compute"],
        "hbm_seconds": seconds["HBM"],
        "interconnect_seconds": seconds["interconnect"],
        "roofline_seconds": seconds[bound],
        "bound": bound,
        # The convention of three times the forward pass counts a gradient of the first layer's input that nobody makes.
        "mfu_bound": min(program.model_flops, told["executed_flops"]) / (seconds[bound] * peak),
        "images_per_second_per_chip": program.examples / seconds[bound] / topology.chips,
    }
