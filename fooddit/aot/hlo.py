"""A compiled program's traffic, read from its HLO text: bytes to and from HBM, bytes of collectives, loops multiplied.

XLA's own cost analysis counts the body of a loop once, so that a scan over 28 blocks looks 28 times cheaper than it is.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
# They move nothing, or what they move is counted where it is used.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
# Of their operands they take all, whatever is asked of their result.
_NEED_ALL = {"convolution", "dot", "reduce", "reduce-window", "sort", "scatter", "custom-call", "all-reduce", "tuple"}
_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](?:\{([^{}]*)\})?")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")


class HloError(ValueError):
    """HLO text that cannot be counted; says where, and what was found."""


class Instruction(NamedTuple):
    """One line; `shape` is its text, `operands` are names, `attributes` what follows them."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


class Collective(NamedTuple):
    """One collective of the program and how often a step runs it.

    payload: bytes of its whole result (of its whole operand where it reduces) on one device; groups: devices that take
    part in it together, by number in the program.
    """

    kind: str
    payload: int
    groups: tuple[tuple[int, ...], ...]
    trips: int

    @property
    def sent(self) -> float:
        """Bytes that one device sends in a step, in a ring: (n - 1) / n of the payload, twice that for all-reduce."""
        count = max(map(len, self.groups))
        if self.kind == "collective-permute":
            return float(self.payload * self.trips)
        return self.payload * self.trips * (count - 1) / count * (2 if self.kind.endswith("all-reduce") else 1)


class Program:
    """HLO text as computations of instructions."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        self._shares: dict[tuple[str, str, float], float] = {}
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = self.computations[header[2]] = {}
                self.entry = header[2] if header[1] else self.entry
            elif instruction := _parse(line):
                current[instruction.name] = instruction
        if not self.entry:
            raise HloError("HLO text without an ENTRY computation")

    def scheduled(self) -> Iterator[tuple[str, Instruction, int]]:
        """(computation, instruction, times it runs in one run of the program), fusions unopened; of a conditional the
        branch that moves most, and of equals the last."""
        yield from self._scheduled(self.entry, 1)

    def _scheduled(self, computation: str, times: int) -> Iterator[tuple[str, Instruction, int]]:
        for instruction in self.computations[computation].values():
            if instruction.opcode == "while":
                yield from self._scheduled(_called(instruction, "body"), times * self.trips(computation, instruction))
            elif instruction.opcode == "conditional":
                branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
                names = (
                    branches[1]
                    if branches
                    else ", ".join(re.findall(r"(?:true|false)_computation=(%?[\w.\-]+)", instruction.attributes))
                )
                branches = [name.strip().lstrip("%") for name in reversed(names.split(","))]
                yield from self._scheduled(max(branches, key=self._moved), times)
            elif instruction.opcode == "call":
                yield from self._scheduled(_called(instruction, "to_apply"), times)
            else:
                yield computation, instruction, times

    def trips(self, computation: str, loop: Instruction) -> int:
        """Of a loop that counts up to a constant by constant steps. HloError for any other."""
        if known := re.search(r'known_trip_count"?[:=]\s*\{\s*"?n"?[:=]\s*"?(\d+)', loop.attributes):
            return int(known[1])
        condition, body = (self.computations[_called(loop, name)] for name in ("condition", "body"))
        parts = [
            condition,
            *(self.computations[_called(i, "calls")] for i in condition.values() if i.opcode == "fusion"),
        ]
        compares = [i for part in parts for i in part.values() if i.opcode == "compare"]
        limits = [number for i in condition.values() if (number := _constant(i)) is not None]
        counters = [_index(i) for i in condition.values() if i.opcode == "get-tuple-element"]
        if not (len(compares) == len(limits) == len(counters) == 1 and "direction=LT" in compares[0].attributes):
            raise HloError(
                f"loop {loop.name} in {computation}: its condition is not a counter below a constant: {limits}"
            )
        start = self._start(computation, loop, counters[0])
        step = self._step(body, counters[0])
        if start is None or step is None:
            raise HloError(f"loop {loop.name} in {computation}: counts from {start} by {step}, expected two constants")
        return max(math.ceil((limits[0] - start) / step), 0)

    def _start(self, computation: str, loop: Instruction, counter: int) -> int | None:
        """What a loop's counter is at first."""
        table = self.computations[computation]
        state = _source(table, loop.operands[0])
        return _constant(_source(table, state.operands[counter])) if state.opcode == "tuple" else None

    def _step(self, body: dict[str, Instruction], counter: int) -> int | None:
        """What a loop's body adds to its counter."""
        root = next(i for i in body.values() if i.root)
        if root.opcode != "tuple":
            return None
        update = _source(body, root.operands[counter])
        numbers = [_constant(_source(body, name)) for name in update.operands if name in body]
        if update.opcode == "fusion":
            inside = self.computations[_called(update, "calls")]
            numbers += [_constant(i) for i in inside.values()]
            update = next(i for i in inside.values() if i.root)
        found = [number for number in numbers if number is not None]
        return found[0] if update.opcode == "add" and len(found) == 1 else None

    def hbm_bytes(self) -> int:
        """Read from and written to HBM in one run; what stays in VMEM (memory space 1) costs nothing."""
        return self._moved(self.entry)

    def _moved(self, computation: str) -> int:
        return sum(self._traffic(name, i) * times for name, i, times in self._scheduled(computation, 1))

    def collectives(self) -> list[Collective]:
        """All of a step, fusions looked into; one that runs beside several fusions (they, its start and its end share a
        channel) is one. Permutations of several arrays share a channel, too, but are in no fusion."""
        found, seen = [], set()
        for name, instruction, times in self.scheduled():
            for kind, payload, attributes in self._collectives_of(name, instruction):
                channel = re.search(r"channel_id=(\d+)", attributes)
                if channel and not instruction.opcode.startswith("collective-permute"):
                    if (name, channel[1]) in seen:
                        continue
                    seen.add((name, channel[1]))
                groups = _slices(attributes) if kind.startswith("network") else replica_groups(attributes)
                found.append(Collective(kind, payload, groups, times))
        return found

    def kernels(self) -> Counter[str]:
        """Calls of Mosaic kernels in a step, by kernel name."""
        found: Counter[str] = Counter()
        for _, instruction, times in self.scheduled():
            if instruction.opcode == "custom-call" and "tpu_custom_call" in instruction.attributes:
                found[re.sub(r"\.\d+$", "", instruction.name)] += times
        return found

    def _traffic(self, computation: str, instruction: Instruction) -> int:
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith(("-done", "-update")) or '"AllocateBuffer"' in instruction.attributes:
            return 0
        table = self.computations[computation]
        operands = [table[name].shape for name in instruction.operands if name in table]
        if opcode in ("copy-start", "slice-start", "async-start") or opcode.endswith("-start"):
            if opcode == "async-start" and any(self._collectives_of(computation, instruction)):
                return sum(array_bytes(part, hbm=True) for part in _parts(instruction.shape)[:2])
            # (source, destination, context): what leaves HBM is as much as what arrives.
            moved = min((array_bytes(part) for part in _parts(instruction.shape) if array_bytes(part) > 4), default=0)
            sides = [array_bytes(part, hbm=True) > 4 for part in _parts(instruction.shape)[:2]]
            return moved * sum(sides)
        if opcode in ("dynamic-slice", "slice", "gather"):
            return array_bytes(instruction.shape, hbm=True) * 2
        if opcode == "dynamic-update-slice":
            return 2 * array_bytes(operands[1])
        if opcode != "fusion":
            return array_bytes(instruction.shape, hbm=True) + sum(array_bytes(shape, hbm=True) for shape in operands)
        fused = _called(instruction, "calls")
        wholes = [array_bytes(shape, hbm=True) for shape in operands]
        read = sum(self._read(fused, i, whole) for i, whole in enumerate(wholes) if whole)
        return read + self._written(fused, instruction.shape)

    def _read(self, fused: str, index: int, whole: int) -> int:
        """Bytes that a fusion reads of its operand `index`, of `whole`: of one that it only slices, the slices."""
        return round(whole * self._share(fused, self._parameter(fused, index), 1.0))

    def _parameter(self, fused: str, index: int) -> str:
        inside = self.computations[fused].values()
        return next(i.name for i in inside if i.opcode == "parameter" and i.operands == (str(index),))

    def _share(self, fused: str, name: str, asked: float) -> float:
        """The part of a value that a fusion has to make, if `asked` of its result is wanted; fusions within are looked
        into. Element by element nothing is made that nobody takes."""
        key = fused, name, asked
        if key not in self._shares:
            table = self.computations[fused]
            users = [user for user in table.values() if name in user.operands and user.opcode != "parameter"]
            shares = (self._share_of_user(fused, table[name], user, asked) for user in users)
            self._shares[key] = asked if table[name].root else min(sum(shares), 1.0)
        return self._shares[key]

    def _share_of_user(self, fused: str, value: Instruction, user: Instruction, asked: float) -> float:
        first = user.operands[0] == value.name
        if user.opcode == "tuple" and user.root:
            # What goes out as it came in (the state of a collective under way) is not read.
            return 0.0 if value.opcode == "parameter" else asked
        if user.opcode in ("dynamic-slice", "slice", "gather") and first:
            return _elements(user.shape) / _elements(value.shape)
        if user.opcode == "dynamic-update-slice" and first:
            return 0.0
        if user.opcode == "fusion":
            wanted, inner = self._share(fused, user.name, asked), _called(user, "calls")
            places = [i for i, operand in enumerate(user.operands) if operand == value.name]
            return sum(self._share(inner, self._parameter(inner, i), wanted) for i in places)
        if user.opcode not in _NEED_ALL and _elements(user.shape) == _elements(value.shape):
            return self._share(fused, user.name, asked)
        return 1.0

    def _written(self, fused: str, shape: str) -> int:
        """Bytes that a fusion writes: of an array that it updates in place, the update."""
        inside = self.computations[fused]
        root = next(i for i in inside.values() if i.root)
        results = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
        total = 0
        for result, part in zip(results, _parts(shape)):
            if array_bytes(part, hbm=True) and result.opcode != "parameter":
                while result.opcode == "bitcast" and result.operands[0] in inside:
                    result = inside[result.operands[0]]
                update = result.opcode == "dynamic-update-slice"
                total += array_bytes(inside[result.operands[1]].shape) if update else array_bytes(part)
        return total

    def _collectives_of(self, computation: str, instruction: Instruction) -> Iterator[tuple[str, int, str]]:
        kind = instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            table = self.computations[computation]
            operands = sum(array_bytes(table[name].shape) for name in instruction.operands if name in table)
            result = sum(sorted(array_bytes(p) for p in _parts(instruction.shape))[-1:])
            yield (
                kind,
                operands if kind in ("all-reduce", "reduce-scatter", "all-to-all") else result,
                instruction.attributes,
            )
        elif transfer := re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.attributes):
            if instruction.opcode == "send":
                sent = array_bytes(self.computations[computation][instruction.operands[0]].shape)
                yield f"network {transfer[1].lower().replace('_', '-')}", sent, instruction.attributes
        elif instruction.opcode == "fusion" or kind == "async" or "called_computations={" in instruction.attributes:
            # TPU7x hands collectives to its SparseCores: an asynchronous start of a custom call.
            name = _called(instruction, "called_computations" if kind == "custom-call" else "calls")
            for inner in self.computations[name].values():
                for kind, payload, attributes in self._collectives_of(name, inner):
                    # XLA:TPU writes a reduce-scatter as a fusion of all-reduce and dynamic-slice.
                    yield "reduce-scatter" if name.startswith("all-reduce-scatter") else kind, payload, attributes


def read_dump(folder: Path) -> Program:
    """The one program that a compiler dumped into a folder as text (`xla_dump_to`), as it was compiled.

    `as_text()` of an executable tells the same, but libtpu 0.0.52 cannot print every program that it makes (it refuses
    its own asynchronous gathers).
    """
    found = sorted(folder.glob("*.after_optimizations.txt"))
    if len(found) != 1:
        raise HloError(f"{folder}: {len(found)} programs were dumped, expected one: {[path.name for path in found]}")
    return Program(found[0].read_text(encoding="utf-8"))


def array_bytes(shape: str, hbm: bool = False) -> int:
    """Of all arrays in a shape's text; with `hbm` only of those that lie there."""
    total = 0
    for dtype, dimensions, layout in _ARRAY.findall(shape):
        if hbm and re.search(r"S\([1-9]", layout):
            continue
        bits = _BITS.get(dtype) if dtype in _BITS else int(re.search(r"\d+", dtype)[0])
        total += math.prod(int(d) for d in dimensions.split(",") if d) * bits // 8
    return total


def _elements(shape: str) -> int:
    return sum(math.prod(int(d) for d in sizes.split(",") if d) for _, sizes, _ in _ARRAY.findall(shape))


def replica_groups(attributes: str) -> tuple[tuple[int, ...], ...]:
    """Devices that take part together, from any of the notations: lists, iota, a named mesh, pairs of a permutation."""
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes):
        return tuple(tuple(map(int, pair.split(","))) for pair in re.findall(r"\{(\d+,\d+)\}", pairs[1]))
    if lists := re.search(r"replica_groups=\{((?:\{[\d,]*\},?)+)\}", attributes):
        return tuple(tuple(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", lists[1]))
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        shape, source = (tuple(map(int, part.split(","))) for part in iota.groups()[:2])
        numbers = np.arange(math.prod(source)).reshape(source)
        numbers = numbers.transpose(tuple(map(int, iota[3].split(",")))) if iota[3] else numbers
        return tuple(map(tuple, numbers.reshape(shape).tolist()))
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\](?:\([^)]*\))? ?\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        together = re.findall(r"'([^']+)'", mesh[2])
        numbers = np.arange(math.prod(map(int, sizes.values()))).reshape([int(size) for size in sizes.values()])
        axes = list(sizes)
        order = [i for i, axis in enumerate(axes) if axis not in together] + [axes.index(axis) for axis in together]
        count = math.prod(int(sizes[axis]) for axis in together)
        return tuple(map(tuple, numbers.transpose(order).reshape(-1, count).tolist()))
    raise HloError(f"a collective whose groups are not understood: {attributes[:200]}")


def _slices(attributes: str) -> tuple[tuple[int, ...], ...]:
    """The slices of a transfer between hosts: "{1,2}x{0:3}" are 1 and 2, with their devices 0 to 3."""
    target = re.search(r'_xla_megascale_target="\{([\d,]+)\}', attributes)
    if target is None:
        raise HloError(f"a transfer between slices whose slices are not understood: {attributes[:200]}")
    return (tuple(map(int, target[1].split(","))),)


def _parse(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if match is None:
        return None
    rest = match[3]
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    close = _closing("(" + rest) - 1
    operands = re.findall(r"%([\w.\-]+)", rest[:close]) or [rest[:close]]
    return Instruction(match[2], shape, opcode, tuple(operands), rest[close + 1 :], bool(match[1]))


def _closing(text: str) -> int:
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return i
    raise HloError(f"unbalanced parentheses: {text[:100]}")


def _parts(shape: str) -> Sequence[str]:
    """The arrays of a shape, each with its layout."""
    return [match[0] for match in _ARRAY.finditer(shape)]


def _called(instruction: Instruction, role: str) -> str:
    return re.search(rf"{role}=\{{?%?([\w.\-]+)", instruction.attributes)[1]


def _constant(instruction: Instruction) -> int | None:
    """A constant integer's value."""
    if instruction.opcode != "constant" or not re.match(r"[su]32\[\]", instruction.shape):
        return None
    return int(instruction.operands[0]) if instruction.operands[0].isdigit() else None


def _index(instruction: Instruction) -> int:
    """Which part of a tuple a get-tuple-element takes."""
    return int(re.search(r"index=(\d+)", instruction.attributes)[1])


def _source(table: dict[str, Instruction], name: str) -> Instruction:
    """What a value is a copy of."""
    instruction = table[name]
    while instruction.opcode in ("copy", "copy-start", "copy-done", "bitcast"):
        instruction = table[instruction.operands[0]]
    return instruction
