"""Static cycle counts of TPU kernels, read from what the compiler dumps.

A TensorCore runs one VLIW bundle a cycle, and the order is fixed when a kernel is compiled, so its bundles, each times
the trips of the loops around it, are its cycles without waiting for memory. Trips and predicated blocks hang on scalar
registers: the scalar instructions that branches depend on are executed, from the text of the schedule. The
count is deterministic, so two kernels can be compared to the digit without a TPU; but a kernel that waits for HBM is
slower than its count: read it beside the bytes it moves.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from fooddit.aot.bundles import Program, ScheduleError
from fooddit.aot.scalar_unit import Run

# Not final_bundles: there, bundles without an instruction are folded into a delay of the one before, and their cycles
# are not to be seen (up to a quarter of a kernel's).
_FILE = re.compile(r"\d+-(.+)-\d+-packed-bundles-post-ra\.txt")
_SLOTS_FILE = "-pre-delay_hlo-static-per-bundle-utilization.txt"


@dataclass(frozen=True)
class Slot:
    """Uses of one kind of instruction slot in all of a kernel's cycles, and how many of them a bundle has."""

    used: int
    capacity: int


@dataclass(frozen=True)
class Schedule:
    """What one kernel does on one TensorCore, in cycles of its clock, waits for memory left out.

    `cycles` follows the branches; where one depends on data, the block it guards is run. `cycles_lower` leaves such
    blocks out, and is the same where `exact`. `cycles_upper` is every bundle in every trip of the loops around it,
    also of blocks that are known to be skipped. Slots are counted as `cycles` is; spills and fills are those in the
    text, each once. `array_bytes` are those of the arrays that it takes and gives, each once: what a kernel fetches
    again for another step of its grid is more, what the compiler keeps in VMEM from one kernel to the next is less.
    """

    name: str
    file: Path
    bundles: int
    trips: int
    cycles: int
    cycles_lower: int
    cycles_upper: int
    exact: bool
    slots: dict[str, Slot]
    spills: int
    fills: int
    array_bytes: int

    def share(self, slot: str) -> float:
        """Used part of a kind of slot, 0 to 1."""
        return self.slots[slot].used / (self.slots[slot].capacity * self.cycles)


def compiler_environment(dump: Path | None = None) -> dict[str, str]:
    """Variables with which a process compiles for TPUs it does not have; they count only before jax is imported.

    With `dump`, an existing folder, the compiler writes there what `find_kernels` finds.
    """
    variables = {
        "JAX_PLATFORMS": "cpu",
        # Not to ask a cloud's metadata server, which takes minutes where there is none.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        # Else a second process that compiles stops at the first one's lock file.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    if dump is not None:
        flags = f"--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true"
        variables["LIBTPU_INIT_ARGS"] = " ".join(filter(None, (os.environ.get("LIBTPU_INIT_ARGS"), flags)))
    return variables


def find_kernels(folder: Path) -> dict[str, Path]:
    """The schedule of each kernel and fusion in a dump, by name ("self_attention.1").

    Two of one name are refused: a dump is of one program, or a stale kernel is counted for a new one.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is None or match[1].startswith("<"):
            continue
        name = match[1]
        if name in found:
            raise ScheduleError(f"kernel {name}: two schedules, {found[name]} and {path}; dump into an empty folder")
        found[name] = path
    return found


def read_schedules(folder: Path, containing: str = "") -> dict[str, Schedule]:
    """The schedules of the kernels whose names contain a text."""
    return {name: read_schedule(path) for name, path in find_kernels(folder).items() if containing in name}


def read_schedule(path: Path) -> Schedule:
    """The schedule in one file that `find_kernels` found; the file of slots used lies beside it."""
    match = _FILE.fullmatch(path.name)
    if match is None:
        raise ScheduleError(f"{path}: not named like the dump of a schedule")
    program = Program(match[1], path, path.read_text(encoding="utf-8", errors="replace"))
    run = Run(program, skip_unknown=False)
    lower = run if run.exact else Run(program, skip_unknown=True)
    counts, most = run.counts(), run.most()
    names, capacities, rows = _read_slots(program)
    used = {name: sum(row[i] * n for row, n in zip(rows, counts)) for i, name in enumerate(names)}
    in_text = {name: sum(row[i] for row in rows) for i, name in enumerate(names)}
    outer = [loop for loop in program.loops if loop.depth == 0]
    return Schedule(
        name=program.name,
        file=path,
        bundles=program.bundles,
        trips=max((run.trips_of(loop) for loop in outer), default=1),
        cycles=sum(counts),
        cycles_lower=sum(lower.counts()),
        cycles_upper=sum(most),
        exact=run.exact,
        slots={name: Slot(used[name], capacity) for name, capacity in zip(names, capacities)},
        spills=in_text.get("SPILL", 0),
        fills=in_text.get("FILL", 0),
        array_bytes=program.array_bytes,
    )


def _read_slots(program: Program) -> tuple[list[str], list[int], list[list[int]]]:
    """Names and capacities of the kinds of slots, and a row of uses for each bundle."""
    prefix = re.sub(r"-\d+-packed-bundles-post-ra\.txt$", "", program.path.name)
    others = [
        p for p in program.path.parent.iterdir() if p.name.startswith(f"{prefix}-") and p.name.endswith(_SLOTS_FILE)
    ]
    others = [p for p in others if p.name[len(prefix) + 1 : -len(_SLOTS_FILE)].isdigit()]
    if len(others) != 1:
        raise program.error(f"{len(others)} files {prefix}-*{_SLOTS_FILE} beside it, expected one")
    lines = [line.strip() for line in others[0].read_text(encoding="utf-8").splitlines()]
    header = next((i for i, line in enumerate(lines) if line.startswith("MATMUL")), None)
    if header is None:
        raise program.error(f"no line of slots that begins with MATMUL in {others[0]}")
    names = [name.strip().split(":")[-1] for name in lines[header].split(",")]
    rows = [[int(x) for x in line.split()] for line in lines[header + 1 :] if line and line[0].isdigit()]
    if len(rows) - 1 != program.bundles:
        raise program.error(f"{program.bundles} bundles, but slots of {len(rows) - 1} in {others[0]}")
    return names, rows[0], rows[1:]
