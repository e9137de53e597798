"""Functions of a row as short programs that a kernel can run.

A kernel calls the functions of the family and its link that everything else calls. They are traced once, for as many rows
as a kernel has lanes; calls are unfolded, what is computed twice is computed once, what nobody asks for is dropped, and
primitives that kernels lack are replaced by those in `special`. Whether a family can run in a kernel is then a question
about names: those of the primitives that are left, against those that the compiler knows (`Program.primitives`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxglm.irls.fused.special import REWRITES

CALLS = frozenset(["pjit", "jit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"])

Operand = Any  # the number of a value (int), or a `Constant`


@dataclass(frozen=True)
class Constant:
    """A number that is part of the program."""

    value: np.ndarray


@dataclass(frozen=True)
class Equation:
    """results = primitive(operands), where results are numbers of values."""

    primitive: Any
    parameters: dict[str, Any]
    operands: tuple[Operand, ...]
    results: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """Equations in the order in which they are computed. Values 0, 1, ... are the arguments; outputs: operands."""

    equations: tuple[Equation, ...]
    outputs: tuple[Operand, ...]
    structure: Any

    def __call__(self, *arguments: Any) -> Any:
        """Compute the outputs from arguments like those that the program was traced with."""
        values: dict[int, Any] = dict(enumerate(jax.tree.leaves(arguments)))

        def read(operand: Operand) -> Any:
            return operand.value if isinstance(operand, Constant) else values[operand]

        for equation in self.equations:
            results = _apply(equation, [read(operand) for operand in equation.operands])
            values.update(zip(equation.results, results, strict=True))
        return jax.tree.unflatten(self.structure, [read(operand) for operand in self.outputs])

    def primitives(self, arguments: Sequence[Any]) -> frozenset[str]:
        """The names of all primitives that a call with arguments of these shapes consists of."""
        return _names(jax.make_jaxpr(self)(*arguments))


def trace(function: Callable[..., Any], *arguments: Any) -> Program:
    """The program of a function, for arguments of these shapes (arrays, or `jax.ShapeDtypeStruct`s, in any structure)."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    builder = _Builder(len(closed.jaxpr.invars))
    outputs = builder.add(closed, list(range(len(closed.jaxpr.invars))))
    return Program(_needed(builder.equations, outputs), tuple(outputs), jax.tree.structure(shape))


def _apply(equation: Equation, operands: list[Any]) -> Sequence[Any]:
    name = equation.primitive.name
    if name in REWRITES:
        typed = [jax.numpy.asarray(operand) for operand in operands]
        return [REWRITES[name](equation.parameters, *typed)]
    results = equation.primitive.bind(*operands, **equation.parameters)
    return results if equation.primitive.multiple_results else [results]


class _Builder:
    """Collects equations, each different one once."""

    def __init__(self, n_arguments: int) -> None:
        self.equations: list[Equation] = []
        self.known: dict[Any, tuple[int, ...]] = {}
        self.count = n_arguments

    def add(self, program: Any, arguments: list[Operand]) -> list[Operand]:
        """Add the equations of a jaxpr, whose constants may hang on it; returns the operands that are its outputs."""
        jaxpr = getattr(program, "jaxpr", program)
        constants = [Constant(np.asarray(value)) for value in getattr(program, "consts", ())]
        place: dict[Any, Operand] = dict(zip(jaxpr.constvars, constants, strict=True))
        place.update(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> Operand:
            return Constant(np.asarray(atom.val, atom.aval.dtype)) if hasattr(atom, "val") else place[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            place.update(zip(equation.outvars, self.results(equation, operands), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def results(self, equation: Any, operands: list[Operand]) -> Sequence[Operand]:
        """The operands that hold an equation's results."""
        name, parameters = equation.primitive.name, equation.params
        if name in CALLS:
            return self.add(parameters.get("jaxpr") or parameters.get("call_jaxpr"), operands)
        if name == "convert_element_type" and _dtype(equation.invars[0]) == _dtype(equation.outvars[0]):
            return operands
        key = (name, tuple(map(_identity, operands)), repr(sorted(parameters.items())))
        if key not in self.known:
            self.known[key] = tuple(range(self.count, self.count + len(equation.outvars)))
            self.count += len(equation.outvars)
            self.equations.append(Equation(equation.primitive, parameters, tuple(operands), self.known[key]))
        return self.known[key]


def _dtype(atom: Any) -> Any:
    return atom.aval.dtype


def _identity(operand: Operand) -> Any:
    """What makes two operands the same."""
    if isinstance(operand, Constant):
        return operand.value.shape, operand.value.dtype.str, operand.value.tobytes()
    return operand


def _needed(equations: list[Equation], outputs: Sequence[Operand]) -> tuple[Equation, ...]:
    """Those equations that the outputs depend on."""
    wanted = {operand for operand in outputs if not isinstance(operand, Constant)}
    kept = []
    for equation in reversed(equations):
        if wanted.intersection(equation.results):
            kept.append(equation)
            wanted.update(operand for operand in equation.operands if not isinstance(operand, Constant))
    return tuple(reversed(kept))


def _names(program: Any) -> frozenset[str]:
    """The names of the primitives of a jaxpr, inside calls too."""
    found = set()
    for equation in getattr(program, "jaxpr", program).eqns:
        found.add(equation.primitive.name)
        for value in equation.params.values():
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                found |= _names(value)
    return frozenset(found)
