"""Static cycle counts of TPU kernels, read from what the compiler dumps.

A TensorCore runs one VLIW bundle a cycle, and the order is fixed when a kernel is compiled, so its bundles, each times
the trips of the loops around it, are its cycles without waiting for memory. Trips and predicated blocks hang on scalar
registers: the scalar instructions that branches depend on are executed here, from the text of the schedule. The
count is deterministic, so two kernels can be compared to the digit without a TPU; but a kernel that waits for HBM is
slower than its count: read it beside the bytes it moves.
"""

import bisect
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Bundles after a branch that are executed whether or not it is taken: four on v5e, v5p and v6e, six on tpu7x.
DELAY_SLOTS = (4, 6)
# Taken branches after which a loop is held to be endless; a kernel's grid has thousands of steps.
MOST_JUMPS = 1_000_000
# Not final_bundles: there, bundles without an instruction are folded into a delay of the one before, and their cycles
# are not to be seen (up to a quarter of a kernel's).
_FILE = re.compile(r"\d+-(.+)-\d+-packed-bundles-post-ra\.txt")
_SLOTS_FILE = "-pre-delay_hlo-static-per-bundle-utilization.txt"
_BUNDLE = re.compile(r"^ *(?:0x)?([0-9a-f]+) +(LH|LB|LE|PB|PF|CT)? *: *>* *\{", re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_OPERAND = re.compile(r"inlined_call_operand\.\w* \[shape: (\w+)\[([\d,]*)\], index: \d+, kind: \w+")
_END = re.compile(r"/\*[^*]*\bEnd region \d+")
_BRANCH = re.compile(r"sbr\.\w+ *(?:\((!?)(%p\w+)\))? *target bundleno = (\d+)")
_ASSIGNMENT = re.compile(r"(%[sp]\d\w*) = ([\w.]+)(.*)", re.DOTALL)
_STORE = re.compile(r"%\w+ = sst +\[smem:\[(#\w+_spill)\]\](.*)", re.DOTALL)
_SPILL = re.compile(r" *\[smem:\[(#\w+_spill)\]\]")
_ADDRESS = re.compile(r"\[#allocation(\d+)(?: \+ \$(0x[0-9a-f]+))?\]")
_GUARD = re.compile(r"\((!?)(%p\w+)(?:, *(%\w+))?\)")


class ScheduleError(ValueError):
    """A dump from which no cycles can be had; says which kernel and file, and what was found there."""


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
    program = _Program(match[1], path, path.read_text(encoding="utf-8", errors="replace"))
    run = _Run(program, skip_unknown=False)
    lower = run if run.exact else _Run(program, skip_unknown=True)
    counts, most = run.counts(), program.most(run)
    names, capacities, rows = _read_slots(program)
    used = {name: sum(row[i] * n for row, n in zip(rows, counts)) for i, name in enumerate(names)}
    in_text = {name: sum(row[i] for row in rows) for i, name in enumerate(names)}
    outer = [loop for loop in program.loops if loop.depth == 0]
    return Schedule(
        name=program.name,
        file=path,
        bundles=program.bundles,
        trips=max((program.trips(loop, run) for loop in outer), default=1),
        cycles=sum(counts),
        cycles_lower=sum(lower.counts()),
        cycles_upper=sum(most),
        exact=run.exact,
        slots={name: Slot(used[name], capacity) for name, capacity in zip(names, capacities)},
        spills=in_text.get("SPILL", 0),
        fills=in_text.get("FILL", 0),
        array_bytes=program.array_bytes,
    )


def _read_slots(program: "_Program") -> tuple[list[str], list[int], list[list[int]]]:
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


@dataclass(frozen=True)
class _Loop:
    """Bundles first to last, both in it, and how many loops are around it."""

    first: int
    last: int
    branch: int
    depth: int


@dataclass(frozen=True)
class _Branch:
    target: int
    predicate: str | None
    negated: bool


@dataclass(frozen=True)
class _Operation:
    """dest = code(operands) if the guard holds, else `otherwise` (None: what dest was before)."""

    dest: str
    code: str
    operands: tuple[str, ...]
    guard: str | None = None
    negated: bool = False
    otherwise: str | None = None

    def sources(self) -> list[str]:
        return [x for x in (*self.operands, self.guard, self.otherwise) if x is not None]


class _Program:
    """The text of a schedule: its branches, loops, and the scalar instructions that branches depend on."""

    def __init__(self, name: str, path: Path, text: str):
        self.name, self.path = name, path
        starts = list(_BUNDLE.finditer(text))
        self.bundles = len(starts)
        if not starts or [int(m[1], 16) for m in starts] != list(range(len(starts))):
            raise self.error(f"{len(starts)} lines of bundles whose addresses do not count from 0")
        self.marks = [m[2] for m in starts]
        ends = [m.start() for m in starts[1:]] + [len(text)]
        self._texts = [text[m.end() : end] for m, end in zip(starts, ends)]
        self.array_bytes = _operand_bytes(text)
        self.branches = self._find_branches()
        self.delay = self._find_delay()
        self.loops = self._find_loops()
        self.operations = self._find_operations()

    def error(self, what: str) -> ScheduleError:
        return ScheduleError(f"kernel {self.name}: {what} ({self.path})")

    def _find_branches(self) -> dict[int, _Branch]:
        branches = {}
        for address, text in enumerate(self._texts):
            if match := _BRANCH.search(_COMMENT.sub("", text)):
                branches[address] = _Branch(int(match[3]), match[2], bool(match[1]))
        return branches

    def _find_delay(self) -> int:
        """Bundles that are executed after a branch. A region ends with the last of them, so all branches have an end
        at that distance."""
        ends = {i for i, text in enumerate(self._texts) if _END.search(text)}
        found = [n for n in DELAY_SLOTS if all(address + n in ends for address in self.branches)]
        return max(found, default=DELAY_SLOTS[0])

    def _find_loops(self) -> list[_Loop]:
        """Loops from the headers that branches go back to, to the last of the bundles after the branch."""
        spans = [(b.target, min(at + self.delay, self.bundles - 1), at)
                 for at, b in self.branches.items() if b.target <= at]  # fmt: skip
        for first, _, at in spans:
            if self.marks[first] != "LB":
                raise self.error(f"the branch at {at:#x} goes back to {first:#x}, which is no loop's header")
        if headers := [i for i, mark in enumerate(self.marks) if mark == "LB" and i not in {s[0] for s in spans}]:
            raise self.error(f"a loop's header at {headers[0]:#x}, but no branch that goes back to it")
        depth = lambda first, at: sum(f < first and at < a for f, _, a in spans)
        return [_Loop(first, last, at, depth(first, at)) for first, last, at in spans]

    def _find_operations(self) -> list[tuple[int, list[_Operation]]]:
        """(address, operations) of the bundles that hold something a branch depends on; phis come first in each."""
        definitions: dict[str, list[tuple[int, _Operation]]] = {}
        for address, text in enumerate(self._texts):
            for part in _COMMENT.sub("", text).split(";;"):
                if operation := _parse(part.strip(" {}\n")):
                    definitions.setdefault(operation.dest, []).append((address, operation))
        needed = {b.predicate for b in self.branches.values() if b.predicate}
        waiting = list(needed)
        while waiting:
            for _, operation in definitions.get(waiting.pop(), ()):
                fresh = [x for x in operation.sources() if x in definitions and x not in needed]
                needed.update(fresh)
                waiting += fresh
        by_address: dict[int, list[_Operation]] = {address: [] for address in self.branches}
        for dest in needed:
            for address, operation in definitions.get(dest, ()):
                by_address.setdefault(address, []).append(operation)
        for operations in by_address.values():
            operations.sort(key=lambda o: o.code != "sphi")
        return sorted(by_address.items())

    def trips(self, loop: _Loop, run: "_Run") -> int:
        """Trips of a loop: the most that an entry made. One that is known to be jumped over counts as a single trip."""
        if loop.branch in run.trips:
            return run.trips[loop.branch]
        if run.exact:
            return 1
        raise self.error(f"unknown trip count: the loop from {loop.first:#x} to {loop.last:#x} was not entered")

    def most(self, run: "_Run") -> list[int]:
        """How often each bundle is executed at most: the product of the trips of the loops around it."""
        weights = [1] * self.bundles
        for loop in self.loops:
            trips = self.trips(loop, run)
            for address in range(loop.first, loop.last + 1):
                weights[address] *= trips
        return weights


def _operand_bytes(text: str) -> int:
    """Bytes of the arrays that a kernel names as its inputs and outputs, wherever they lie."""
    total = 0
    for kind, sizes in {m[0]: m.groups() for m in _OPERAND.finditer(text)}.values():
        bits = int(re.search(r"\d+", kind)[0]) if re.search(r"\d+", kind) else 8
        total += math.prod(int(size) for size in sizes.split(",") if size) * bits // 8
    return total


def _parse(text: str) -> _Operation | None:
    """The operation of a scalar instruction; a spill to scalar memory is a name as a register is."""
    if store := _STORE.match(text):
        dest, code, rest = store[1], "smov", store[2]
    elif match := _ASSIGNMENT.match(text):
        dest, code, rest = match.groups()
        if code == "sld":
            spill = _SPILL.match(rest)
            # What is loaded from elsewhere is data.
            rest = f"{spill[1]} {rest[spill.end() :]}" if spill else ""
    else:
        return None
    guard = _GUARD.search(rest)
    operands = tuple(x.strip() for x in _GUARD.sub("", rest).split(",") if x.strip())
    if guard is None:
        return _Operation(dest, code, operands)
    return _Operation(dest, code, operands, guard[2], bool(guard[1]), guard[3])


class _Run:
    """One execution of the scalar instructions from the first bundle to the last; unknown values are None.

    An unknown forward branch is not taken, so that its block runs, or taken if `skip_unknown`.
    """

    def __init__(self, program: _Program, *, skip_unknown: bool):
        self._program, self._skip_unknown = program, skip_unknown
        self.exact = True
        self.trips: dict[int, int] = {}
        self._values: dict[str, int | None] = {}
        self._written: dict[str, int] = {}
        self._clock = 0
        self._spans: Counter[tuple[int, int]] = Counter()
        self._follow()

    def counts(self) -> list[int]:
        """How often each bundle was executed."""
        steps = [0] * (self._program.bundles + 1)
        for (first, last), times in self._spans.items():
            steps[first] += times
            steps[last + 1] -= times
        total, counts = 0, []
        for step in steps[:-1]:
            total += step
            counts.append(total)
        return counts

    def _follow(self) -> None:
        program, addresses = self._program, [address for address, _ in self._program.operations]
        position, trips = 0, Counter()
        for _ in range(MOST_JUMPS):
            last, target = program.bundles - 1, program.bundles
            index = bisect.bisect_left(addresses, position)
            while index < len(addresses) and addresses[index] <= last:
                address, operations = program.operations[index]
                for operation in operations:
                    self._execute(operation)
                branch = program.branches.get(address)
                if branch is not None and target == program.bundles:
                    back = branch.target <= address
                    taken = self._taken(address, branch, back)
                    if back:
                        trips[address] += 1
                        if not taken:
                            self.trips[address] = max(self.trips.get(address, 0), trips.pop(address))
                    if taken:
                        last, target = min(address + program.delay, program.bundles - 1), branch.target
                index += 1
            self._spans[position, last] += 1
            position = target
            if position >= program.bundles:
                return
        raise program.error(f"no end after {MOST_JUMPS} jumps")

    def _taken(self, address: int, branch: _Branch, back: bool) -> bool:
        if branch.predicate is None:
            return True
        value = _negate(self._values.get(branch.predicate), branch.negated)
        if value is not None:
            return bool(value)
        if back and not self._skip_unknown:
            raise self._program.error(
                f"unknown trip count: the branch at {address:#x} back to {branch.target:#x} depends on "
                f"{branch.predicate}, which depends on data"
            )
        self.exact = False
        if back or not self._skip_unknown:
            return False
        for inside, operations in self._program.operations:
            if address + self._program.delay < inside < branch.target:
                for operation in operations:
                    self._write(operation.dest, None)
        return True

    def _execute(self, operation: _Operation) -> None:
        if operation.code == "sphi":
            # Its operands are one register, which holds what was written last.
            written = [x for x in operation.operands if x in self._written]
            latest = max(written, key=lambda name: self._written[name], default=None)
            self._write(operation.dest, None if latest is None else self._values[latest])
            return
        guard = 1 if operation.guard is None else _negate(self._values.get(operation.guard), operation.negated)
        if guard is None:
            self._write(operation.dest, None)
        elif guard:
            compute = _CODES.get(operation.code)
            known = [self._read(x) for x in operation.operands]
            self._write(operation.dest, compute(known) if compute else None)
        elif operation.otherwise is not None:
            self._write(operation.dest, self._read(operation.otherwise))

    def _read(self, operand: str) -> int | None:
        if operand[0] in "%#":
            return self._values.get(operand)
        if operand.startswith("!"):
            return _negate(self._values.get(operand[1:]), True)
        if address := _ADDRESS.fullmatch(operand):
            # Where an allocation begins is not known, but only distances within one decide how often a loop runs.
            return int(address[1]) * 2**18 + int(address[2] or "0", 16)
        try:
            return _signed(int(operand, 0))
        except ValueError:
            return None

    def _write(self, dest: str, value: int | None) -> None:
        self._clock += 1
        self._values[dest], self._written[dest] = value, self._clock


def _negate(value: int | None, negated: bool) -> int | None:
    return value if value is None or not negated else int(not value)


def _signed(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def _of_known(compute: Callable[..., int]) -> Callable[[list[int | None]], int | None]:
    """`compute` where all operands are known, as a signed 32-bit number."""
    return lambda operands: None if None in operands or not operands else _signed(int(compute(*operands)))


def _or(operands: list[int | None]) -> int | None:
    return 1 if any(operands) else None if None in operands else 0


def _and(operands: list[int | None]) -> int | None:
    return 0 if 0 in operands else None if None in operands else 1


def _select(operands: list[int | None]) -> int | None:
    condition, yes, no = operands
    return (yes if yes == no else None) if condition is None else yes if condition else no


_CODES: dict[str, Callable[[list[int | None]], int | None]] = {
    "smov": lambda x: x[0] if x else None,
    "smov.u32": lambda x: x[0] if x else None,
    "sld": lambda x: x[0] if x else None,
    "pmov": lambda x: x[0] if x else None,
    "scalar_select": _select,
    "por": _or,
    "pand": _and,
    "pnor": lambda x: _negate(_or(x), True),
    "pnand": lambda x: _negate(_and(x), True),
    "pneg": lambda x: _negate(x[0], True),
    "pxor": _of_known(lambda a, b: a != b),
    "sadd.s32": _of_known(lambda a, b: a + b),
    "ssub.s32": _of_known(lambda a, b: a - b),
    "smul.u32": _of_known(lambda a, b: a * b),
    "smulhi.u32": _of_known(lambda a, b: (a % 2**32) * (b % 2**32) >> 32),
    "sand.u32": _of_known(lambda a, b: a & b),
    "sor.u32": _of_known(lambda a, b: a | b),
    "sxor.u32": _of_known(lambda a, b: a ^ b),
    "sshll.u32": _of_known(lambda a, b: a << b),
    "sshrl.u32": _of_known(lambda a, b: (a % 2**32) >> b),
    "sshra.s32": _of_known(lambda a, b: a >> b),
}
for _name, _compare in {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}.items():
    _CODES[f"scmp.{_name}.s32.totalorder"] = _of_known(_compare)
    _CODES[f"scmp.{_name}.u32.totalorder"] = _of_known(lambda a, b, f=_compare: f(a % 2**32, b % 2**32))
