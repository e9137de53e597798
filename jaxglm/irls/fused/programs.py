"""Functions of a row as short programs that a kernel can run.

A kernel calls the functions of the family and its link that everything else calls. They are traced once, for as many rows
as a kernel has lanes; calls are unfolded, constants computed, what is computed twice is computed once, what nobody asks for
is dropped, and primitives that kernels lack are replaced by those in `special`. Whether a family can run in a kernel is
then a question about names: those of the primitives that are left, against those that the compiler knows.

Row functions are elementwise, so a constant stays a single number here, whatever its shape where it was traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm.irls.fused.special import REWRITES

CALLS = frozenset(["pjit", "jit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"])

Operand = Any  # the number of a value (int), or a `Constant`


@dataclass(frozen=True)
class Constant:
    """A number that is part of the program."""

    value: np.ndarray


@dataclass(frozen=True)
class Equation:
    """results = primitive(operands), where results are numbers of values, and all have this shape."""

    primitive: Any
    parameters: dict[str, Any]
    operands: tuple[Operand, ...]
    results: tuple[int, ...]
    shape: tuple[int, ...]

    def compute(self, operands: Sequence[Any]) -> Sequence[Any]:
        """The results. Operands of the program's constants are single numbers."""
        name = self.primitive.name
        if name in REWRITES:
            return [REWRITES[name](self.parameters, *operands)]
        full = [operand if operand.shape == self.shape else _filled(operand, self.shape) for operand in operands]
        # A kernel's functions have one accuracy, its best.
        parameters = {key: None if key == "accuracy" else value for key, value in self.parameters.items()}
        results = self.primitive.bind(*full, **parameters)
        return results if self.primitive.multiple_results else [results]


@dataclass(frozen=True)
class Program:
    """Equations in the order in which they are computed. inputs: the shapes of values 0, 1, ..., the arguments; outputs:
    operands, with their shapes; structure: of the output."""

    inputs: tuple[jax.ShapeDtypeStruct, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Operand, ...]
    shapes: tuple[tuple[int, ...], ...]
    structure: Any

    def __call__(self, *arguments: Any) -> Any:
        """Compute the outputs from arguments like those that the program was traced with."""
        values: dict[int, Any] = dict(enumerate(jax.tree.leaves(arguments)))

        def read(operand: Operand) -> Any:
            return operand.value if isinstance(operand, Constant) else values[operand]

        for equation in self.equations:
            results = equation.compute([read(operand) for operand in equation.operands])
            values.update(zip(equation.results, results, strict=True))
        pairs = zip(map(read, self.outputs), self.shapes, strict=True)
        return jax.tree.unflatten(self.structure, [jnp.broadcast_to(value, shape) for value, shape in pairs])

    @property
    def primitives(self) -> frozenset[str]:
        """The names of all primitives that a call consists of."""
        return frozenset(_names(jax.make_jaxpr(self)(*self.inputs)))


def trace(function: Callable[..., Any], *arguments: Any) -> Program:
    """The program of a function, for arguments of these shapes (arrays, or `jax.ShapeDtypeStruct`s, in any structure)."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    leaves, structure = jax.tree.flatten(shape)
    inputs = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(arguments))
    builder = _Builder(len(inputs))
    outputs = builder.add(closed, list(range(len(inputs))))
    shapes = tuple(leaf.shape for leaf in leaves)
    return Program(inputs, _needed(builder.equations, outputs), tuple(outputs), shapes, structure)


def _filled(number: Any, shape: tuple[int, ...]) -> Any:
    """An array of one number. Kernels know no unsigned constants beyond the signed ones, but their complements."""
    if np.issubdtype(number.dtype, np.unsignedinteger) and int(number) > np.iinfo(number.dtype).max // 2:
        return ~jnp.broadcast_to(~number, shape)
    return jnp.broadcast_to(number, shape)


class _Builder:
    """Collects equations, each different one once."""

    def __init__(self, n_arguments: int) -> None:
        self.equations: list[Equation] = []
        self.known: dict[Any, tuple[int, ...]] = {}
        self.count = n_arguments

    def add(self, program: Any, arguments: Sequence[Operand]) -> list[Operand]:
        """Add the equations of a jaxpr, whose constants may hang on it; returns the operands that are its outputs."""
        jaxpr = getattr(program, "jaxpr", program)
        constants = [Constant(_number(value)) for value in getattr(program, "consts", ())]
        place: dict[Any, Operand] = dict(zip(jaxpr.constvars, constants, strict=True))
        place.update(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> Operand:
            return Constant(np.asarray(atom.val, atom.aval.dtype)) if hasattr(atom, "val") else place[atom]

        for equation in jaxpr.eqns:
            operands = tuple(read(atom) for atom in equation.invars)
            place.update(zip(equation.outvars, self.results(equation, operands), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def results(self, equation: Any, operands: tuple[Operand, ...]) -> Sequence[Operand]:
        """The operands that hold an equation's results."""
        name, parameters = equation.primitive.name, equation.params
        if name in CALLS:
            return self.add(parameters.get("jaxpr") or parameters.get("call_jaxpr"), operands)
        if name == "optimization_barrier":
            return operands
        given = [operand.value if isinstance(operand, Constant) else None for operand in operands]
        same = _same(name, equation, operands, given)
        if same is not None:
            return [same]
        shape = equation.outvars[0].aval.shape
        if all(value is not None for value in given):
            with jax.ensure_compile_time_eval():
                computed = Equation(equation.primitive, parameters, operands, (), ()).compute(given)
                return [Constant(np.asarray(value)) for value in computed]
        key = (name, tuple(map(_identity, operands)), repr(sorted(parameters.items())))
        if key not in self.known:
            self.known[key] = tuple(range(self.count, self.count + len(equation.outvars)))
            self.count += len(equation.outvars)
            self.equations.append(Equation(equation.primitive, parameters, operands, self.known[key], shape))
        return self.known[key]


def _same(name: str, equation: Any, operands: Sequence[Operand], given: Sequence[Any]) -> Operand | None:
    """The operand that an equation gives back unchanged, if it does."""
    atoms = equation.invars
    if name in ("convert_element_type", "copy", "copy_p") and atoms[0].aval.dtype == equation.outvars[0].aval.dtype:
        return operands[0]
    if name == "broadcast_in_dim" and (given[0] is not None or atoms[0].aval.shape == equation.outvars[0].aval.shape):
        return operands[0]
    if name == "select_n" and given[0] is not None:
        return operands[1 + int(given[0])]
    if name in ("and", "or") and atoms[0].aval.dtype == np.bool_:
        for this, other in ((0, 1), (1, 0)):
            if given[this] is not None:  # x and True, x or False; x and False, x or True
                return operands[other] if bool(given[this]) == (name == "and") else operands[this]
    return None


def _number(value: Any) -> np.ndarray:
    """The number that an array holds in all places. Raises ValueError if it does not."""
    numbers = np.asarray(value).reshape(-1)
    if not (numbers == numbers[0]).all() and not np.isnan(numbers).all():
        raise ValueError("a row function holds an array of different numbers")
    return np.asarray(numbers[0])


def _identity(operand: Operand) -> Any:
    """What makes two operands the same."""
    return (operand.value.dtype.str, operand.value.tobytes()) if isinstance(operand, Constant) else operand


def _needed(equations: Sequence[Equation], outputs: Sequence[Operand]) -> tuple[Equation, ...]:
    """Those equations that the outputs depend on."""
    wanted = {operand for operand in outputs if not isinstance(operand, Constant)}
    kept = []
    for equation in reversed(equations):
        if wanted.intersection(equation.results):
            kept.append(equation)
            wanted.update(operand for operand in equation.operands if not isinstance(operand, Constant))
    return tuple(reversed(kept))


def _names(program: Any) -> Iterable[str]:
    """The names of the primitives of a jaxpr, inside calls too."""
    for equation in getattr(program, "jaxpr", program).eqns:
        if equation.primitive.name not in CALLS:
            yield equation.primitive.name
        for value in equation.params.values():
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                yield from _names(value)
