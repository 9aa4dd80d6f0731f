"""The text of a TPU kernel's schedule: its bundles, branches and loops, and the scalar instructions they depend on."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

# Bundles after a branch that are executed whether or not it is taken: four on v5e, v5p and v6e, six on tpu7x.
DELAY_SLOTS = (4, 6)
_BUNDLE = re.compile(r"^ *(?:0x)?([0-9a-f]+) +(LH|LB|LE|PB|PF|CT)? *: *>* *\{", re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_OPERAND = re.compile(r"inlined_call_operand\.\w* \[shape: (\w+)\[([\d,]*)\], index: \d+, kind: \w+")
_END = re.compile(r"/\*[^*]*\bEnd region \d+")
_BRANCH = re.compile(r"sbr\.\w+ *(?:\((!?)(%p\w+)\))? *target bundleno = (\d+)")
_ASSIGNMENT = re.compile(r"(%[sp]\d\w*) = ([\w.]+)(.*)", re.DOTALL)
_STORE = re.compile(r"%\w+ = sst +\[smem:\[(#\w+_spill)\]\](.*)", re.DOTALL)
_SPILL = re.compile(r" *\[smem:\[(#\w+_spill)\]\]")
_GUARD = re.compile(r"\((!?)(%p\w+)(?:, *(%\w+))?\)")


class ScheduleError(ValueError):
    """A dump from which no cycles can be had; says which kernel and file, and what was found there."""


@dataclass(frozen=True)
class Loop:
    """Bundles first to last, both in it, and how many loops are around it."""

    first: int
    last: int
    branch: int
    depth: int


@dataclass(frozen=True)
class Branch:
    target: int
    predicate: str | None
    negated: bool


@dataclass(frozen=True)
class Operation:
    """dest = code(operands) if the guard holds, else `otherwise` (None: what dest was before)."""

    dest: str
    code: str
    operands: tuple[str, ...]
    guard: str | None = None
    negated: bool = False
    otherwise: str | None = None

    def sources(self) -> list[str]:
        return [x for x in (*self.operands, self.guard, self.otherwise) if x is not None]


class Program:
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

    def _find_branches(self) -> dict[int, Branch]:
        branches = {}
        for address, text in enumerate(self._texts):
            if match := _BRANCH.search(_COMMENT.sub("", text)):
                branches[address] = Branch(int(match[3]), match[2], bool(match[1]))
        return branches

    def _find_delay(self) -> int:
        """Bundles that are executed after a branch. A region ends with the last of them, so all branches have an end
        at that distance."""
        ends = {i for i, text in enumerate(self._texts) if _END.search(text)}
        found = [n for n in DELAY_SLOTS if all(address + n in ends for address in self.branches)]
        return max(found, default=DELAY_SLOTS[0])

    def _find_loops(self) -> list[Loop]:
        """Loops from the headers that branches go back to, to the last of the bundles after the branch."""
        spans = [(b.target, min(at + self.delay, self.bundles - 1), at)
                 for at, b in self.branches.items() if b.target <= at]  # fmt: skip
        for first, _, at in spans:
            if self.marks[first] != "LB":
                raise self.error(f"the branch at {at:#x} goes back to {first:#x}, which is no loop's header")
        if headers := [i for i, mark in enumerate(self.marks) if mark == "LB" and i not in {s[0] for s in spans}]:
            raise self.error(f"a loop's header at {headers[0]:#x}, but no branch that goes back to it")
        depth = lambda first, at: sum(f < first and at < a for f, _, a in spans)
        return [Loop(first, last, at, depth(first, at)) for first, last, at in spans]

    def _find_operations(self) -> list[tuple[int, list[Operation]]]:
        """(address, operations) of the bundles that hold something a branch depends on; phis come first in each."""
        definitions: dict[str, list[tuple[int, Operation]]] = {}
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
        by_address: dict[int, list[Operation]] = {address: [] for address in self.branches}
        for dest in needed:
            for address, operation in definitions.get(dest, ()):
                by_address.setdefault(address, []).append(operation)
        for operations in by_address.values():
            operations.sort(key=lambda o: o.code != "sphi")
        return sorted(by_address.items())


def _operand_bytes(text: str) -> int:
    """Bytes of the arrays that a kernel names as its inputs and outputs, wherever they lie."""
    total = 0
    for kind, sizes in {m[0]: m.groups() for m in _OPERAND.finditer(text)}.values():
        bits = int(re.search(r"\d+", kind)[0]) if re.search(r"\d+", kind) else 8
        total += math.prod(int(size) for size in sizes.split(",") if size) * bits // 8
    return total


def _parse(text: str) -> Operation | None:
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
        return Operation(dest, code, operands)
    return Operation(dest, code, operands, guard[2], bool(guard[1]), guard[3])
