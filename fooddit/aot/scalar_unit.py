"""Execution of a schedule's scalar instructions: which branches are taken, and so how often each bundle runs."""

import bisect
import re
from collections import Counter
from collections.abc import Callable

from fooddit.aot.bundles import Branch, Loop, Operation, Program

# Taken branches after which a loop is held to be endless; a kernel's grid has thousands of steps.
MOST_JUMPS = 1_000_000
_ADDRESS = re.compile(r"\[#allocation(\d+)(?: \+ \$(0x[0-9a-f]+))?\]")


class Run:
    """One execution of the scalar instructions from the first bundle to the last; unknown values are None.

    An unknown forward branch is not taken, so that its block runs, or taken if `skip_unknown`.
    """

    def __init__(self, program: Program, *, skip_unknown: bool):
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

    def trips_of(self, loop: Loop) -> int:
        """Trips of a loop: the most that an entry made. One that is known to be jumped over counts as a single trip."""
        if loop.branch in self.trips:
            return self.trips[loop.branch]
        if self.exact:
            return 1
        raise self._program.error(
            f"unknown trip count: the loop from {loop.first:#x} to {loop.last:#x} was not entered"
        )

    def most(self) -> list[int]:
        """How often each bundle is executed at most: the product of the trips of the loops around it."""
        weights = [1] * self._program.bundles
        for loop in self._program.loops:
            trips = self.trips_of(loop)
            for address in range(loop.first, loop.last + 1):
                weights[address] *= trips
        return weights

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

    def _taken(self, address: int, branch: Branch, back: bool) -> bool:
        if branch.predicate is None:
            return True
        value = negate(self._values.get(branch.predicate), branch.negated)
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

    def _execute(self, operation: Operation) -> None:
        if operation.code == "sphi":
            # Its operands are one register, which holds what was written last.
            written = [x for x in operation.operands if x in self._written]
            latest = max(written, key=lambda name: self._written[name], default=None)
            self._write(operation.dest, None if latest is None else self._values[latest])
            return
        guard = 1 if operation.guard is None else negate(self._values.get(operation.guard), operation.negated)
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
            return negate(self._values.get(operand[1:]), True)
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


def negate(value: int | None, negated: bool) -> int | None:
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
    "pnor": lambda x: negate(_or(x), True),
    "pnand": lambda x: negate(_and(x), True),
    "pneg": lambda x: negate(x[0], True),
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
