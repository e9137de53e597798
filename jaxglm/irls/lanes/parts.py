"""Long stretches of a program, each a function of its own, written once however often it is called.

Solving the system of a step takes p^3 / 3 instructions without a loop, and a fit solves one at its start, at each step and at
its end. The time of a compiler grows faster than the length of a function. So what is long, has no loops and is called by
name (by `jax.jit`, which traces it once) becomes a function, whose arguments and results go through a little memory. A function
of rows that are seldom looked at (`irls.seldom.by_row`) becomes one of a single row, called for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm.irls.lanes.code import KINDS, LLVM_TYPES, Code, Number
from jaxglm.irls.lanes.entries import STRUCTURAL, shaped
from jaxglm.irls.lanes.flow import CALLS, called

LONG = 1000  # numbers that are computed: systems of a dozen columns and more
MOVING = {*STRUCTURAL, "unstack", "select_n", "convert_element_type"}


@dataclass(frozen=True)
class Part:
    """A function that has been written. jaxpr: of what; name: its own; room: numbers that it is given and leaves; results: its
    arrays; unknown: what those of their numbers are called there that are not known before, and come back through memory."""

    jaxpr: Any
    name: str
    room: int
    results: list[np.ndarray]
    unknown: tuple[str, ...]


class Parts:
    """The long stretches of one program. write: writes a closed jaxpr of arrays of numbers into a `Code`."""

    def __init__(self, write: Callable[[Code, Any, list[np.ndarray]], list[np.ndarray]]) -> None:
        self.write = write
        self.written: dict[tuple[int, tuple[int | str, ...]], Part] = {}  # by the jaxpr, which stays and so keeps its id
        self.lengths: dict[int, tuple[Any, float]] = {}

    def worth(self, closed: Any, operands: Sequence[Any]) -> bool:
        """Whether a call of a closed jaxpr on these is one of a function: it is long, and of vectors of one floating-point
        type."""
        jaxpr = closed.jaxpr
        if id(jaxpr) not in self.lengths:
            self.lengths[id(jaxpr)] = jaxpr, length(jaxpr)
        return LONG < self.lengths[id(jaxpr)][1] < np.inf and self.takes(closed, operands)

    def takes(self, closed: Any, operands: Sequence[Any]) -> bool:
        """Whether a call can be one of a function: of vectors of one floating-point type."""
        if not all(isinstance(operand, np.ndarray) for operand in operands):
            return False
        variables = (*closed.jaxpr.invars, *closed.jaxpr.outvars)
        kinds = {KINDS.get(np.dtype(variable.aval.dtype)) for variable in variables}
        return kinds in ({"f64"}, {"f32"}) and not all(number.uniform for number in _numbers(operands))

    def call_by_row(self, code: Code, closed: Any, operands: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """Write a call for each row, of a closed jaxpr that takes rows (n,) or single numbers; None if that cannot be. In each
        call all rows are the same one, so that it is computed once."""
        (n,) = closed.jaxpr.outvars[0].aval.shape
        rows = [[np.full_like(of, of[row]) if of.ndim else of for of in operands] for row in range(n)]
        if not all(self.takes(closed, row) for row in rows):
            return None
        calls = [self.call(code, closed, row) for row in rows]
        return [np.array([call[index][row] for row, call in enumerate(calls)]) for index in range(len(calls[0]))]

    def call(self, code: Code, closed: Any, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Write a call. What is known, or given twice, as in a symmetric matrix, is so in the function too."""
        jaxpr, numbers = closed.jaxpr, _numbers(operands)
        given = list({number.text: number for number in numbers if number.constant is None}.values())
        places = {number.text: place for place, number in enumerate(given)}
        pattern = tuple(places.get(number.text, number.text) for number in numbers)
        if (id(jaxpr), pattern) not in self.written:
            self.written[id(jaxpr), pattern] = self._function(code, closed, operands, places)
        part, kind = self.written[id(jaxpr), pattern], given[0].kind
        code.room = max(code.room, part.room)
        for place, number in enumerate(given):
            code.put(number, "%room", place)
        after = code.write("ptr", True, f"getelementptr {LLVM_TYPES[kind]}, ptr %room, i64 {len(given) * code.lanes}")
        code.declared[f"@{part.name}"] = f"declare void @{part.name}(ptr, ptr)"
        code.lines.append(f"  call void @{part.name}(ptr %room, ptr {after.text})")
        found = [code.take(kind, after.text, place) for place in range(len(part.unknown))]
        back = dict(zip(part.unknown, found, strict=True))
        return shaped([back.get(number.text, number) for number in _numbers(part.results)], part.results)

    def _function(self, code: Code, closed: Any, operands: Sequence[np.ndarray], places: dict[str, int]) -> Part:
        own, numbers = Code(code.lanes, code.ready, code.functions), _numbers(operands)
        given = [own.take(numbers[0].kind, "%given", place) for place in range(len(places))]
        arguments = [given[places[number.text]] if number.constant is None else number for number in numbers]
        results = self.write(own, closed, shaped(arguments, operands))
        unknown = {number.text: number for number in _numbers(results) if number.constant is None}
        for place, number in enumerate(unknown.values()):
            own.put(number, "%found", place)
        name = f"part{len(code.functions)}"
        code.functions.append(name)
        code.ready(own.text(name, "ptr noalias readonly %given, ptr noalias %found"))
        return Part(closed.jaxpr, name, len(given) + len(unknown), results, tuple(unknown))


def _numbers(arrays: Sequence[np.ndarray]) -> list[Number]:
    return [number for array in arrays for number in array.reshape(-1)]


def length(jaxpr: Any) -> float:
    """How many floating-point numbers a jaxpr computes, of whatever function; infinite where it has loops or branches."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name in CALLS:
            inner = called(equation.params)
            total += length(getattr(inner, "jaxpr", inner))
        elif equation.primitive.name in ("while", "scan", "cond"):
            return np.inf
        elif equation.primitive.name not in MOVING:
            total += sum(variable.aval.size for variable in equation.outvars if np.issubdtype(variable.aval.dtype, np.floating))
    return total
