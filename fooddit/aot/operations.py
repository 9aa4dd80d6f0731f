"""FLOPs and Pallas kernels of a program, counted in its jaxpr: loops multiplied, on no backend in particular."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from jax.extend import core


class Operation(NamedTuple):
    """An equation, how often one run of the program executes it, and on how many devices each time (under shard_map
    its shapes are those of one device's part)."""

    equation: core.JaxprEqn
    times: int
    devices: int


class Kernel(NamedTuple):
    """A Pallas kernel: one device's call, and how often that happens."""

    name: str
    equation: core.JaxprEqn
    times: int


def operations(jaxpr: core.Jaxpr, times: int = 1, devices: int = 1) -> Iterator[Operation]:
    """All equations, inner ones in place of those that hold them.

    Of a `cond` the last branch (the one for true) is counted: where an exception is guarded, write it as the first. A
    `while` of unknown trips counts once.
    """
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "scan":
            yield from operations(parameters["jaxpr"].jaxpr, times * parameters["length"], devices)
        elif name == "cond":
            yield from operations(parameters["branches"][-1].jaxpr, times, devices)
        elif name == "shard_map":
            yield from operations(
                _open(parameters["jaxpr"]), times, devices * math.prod(parameters["mesh"].shape.values())
            )
        elif name == "pallas_call" or not (inner := list(_inner(parameters))):
            yield Operation(equation, times, devices)
        else:
            for each in inner:
                yield from operations(each, times, devices)


def flops(jaxpr: core.Jaxpr) -> float:
    """Of matrix products, convolutions and kernels (by their CostEstimate), on all devices together."""
    return sum(float(_flops(op.equation)) * op.times * op.devices for op in operations(jaxpr))


def kernel_flops(jaxpr: core.Jaxpr) -> float:
    """The part of `flops` that is in Pallas kernels."""
    found = (op for op in operations(jaxpr) if op.equation.primitive.name == "pallas_call")
    return sum(float(_flops(op.equation)) * op.times * op.devices for op in found)


def kernels(jaxpr: core.Jaxpr) -> list[Kernel]:
    """The Pallas kernels of a program, calls of the same kernel on the same shapes together."""
    found: dict[tuple, Kernel] = {}
    for op in operations(jaxpr):
        if op.equation.primitive.name == "pallas_call":
            name = _name(op.equation)
            key = (name, *(str(v.aval) for v in (*op.equation.invars, *op.equation.outvars)))
            before = found[key].times if key in found else 0
            found[key] = Kernel(name, op.equation, before + op.times)
    return list(found.values())


def biggest(jaxpr: core.Jaxpr, count: int = 5) -> list[str]:
    """The largest arrays that a program makes, on all devices together, before XLA fuses any away."""
    sizes = {}
    for op in operations(jaxpr):
        for variable in op.equation.outvars:
            aval = variable.aval
            if hasattr(aval, "shape") and hasattr(aval.dtype, "itemsize"):
                sizes[f"{aval.dtype}{list(aval.shape)}"] = math.prod(aval.shape) * aval.dtype.itemsize * op.devices
    largest = sorted(sizes, key=sizes.get, reverse=True)[:count]
    return [f"{sizes[name] / 1e9:.2f} GB {name} (all devices)" for name in largest]


def _flops(equation: core.JaxprEqn) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        numbers, kernel = parameters["dimension_numbers"], equation.invars[1].aval.shape
        inputs = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
        return 2 * math.prod(equation.outvars[0].aval.shape) * inputs
    if name == "pallas_call":
        estimate = parameters["cost_estimate"]
        return estimate.flops if estimate is not None else 0
    return 0


def _name(equation: core.JaxprEqn) -> str:
    parameters = equation.params
    return parameters.get("name") or parameters["name_and_src_info"].name


def _inner(parameters: dict) -> Iterator[core.Jaxpr]:
    for value in parameters.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(each, (core.Jaxpr, core.ClosedJaxpr)):
                yield _open(each)


def _open(jaxpr) -> core.Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
