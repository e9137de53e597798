"""From the functions of one fit to instructions over lanes.

What JAX traced of a function of one fit is written for many fits, one a lane. Arrays are taken apart: an array of a fit is
a NumPy array of `Number`s, so that moving its entries about costs nothing when the program runs, and entries that nobody
asks for are not computed. Loops stay loops. One whose condition is the same in all lanes is a loop as in any program, like
that over the rows of a block; one whose condition differs by lane runs until it holds in none, and a lane in which it does
not hold any more keeps what it has. Branches work alike: both are computed and one is chosen, unless all lanes choose
together, which they do where a program asks whether `anywhere` something is needed (`irls.seldom`).

Only what is in `Memory` is an array when the program runs: rows, of which a loop looks at some at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm.irls.lanes.code import DTYPES, KINDS, Code, Number, constant, is_one, is_zero
from jaxglm.irls.lanes.entries import STRUCTURAL, Untranslatable, constants, elementwise, of_one, shaped
from jaxglm.irls.lanes.flow import CALLS, called, carried_differing, is_anywhere, needed
from jaxglm.irls.lanes.folding import folded
from jaxglm.irls.lanes.functions import REWRITES, jaxpr_of
from jaxglm.irls.lanes.parts import Parts
from jaxglm.irls.lanes.sums import Sums
from jaxglm.irls.seldom import BY_ROW

UNROLLED = 64  # turns of a loop that are written out
LLVM_OF = {"f64": "double", "f32": "float"}
ALIGNED = {"f64": 8, "f32": 4}
FLOATING = {"add": "fadd contract", "sub": "fsub contract", "div": "fdiv"}
FLOATING |= {"add_any": "fadd contract"}
INTEGER = {
    "add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor", "shift_left": "shl",
    "shift_right_arithmetic": "ashr", "shift_right_logical": "lshr",
}  # fmt: skip
NAMED = frozenset(["pjit", "jit"])  # calls of which JAX keeps one jaxpr
COMPARISONS = frozenset(["eq", "ne", "lt", "le", "gt", "ge"])
REDUCTIONS = {
    "reduce_sum": "add", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "mul", "reduce_or": "or", "reduce_and": "and",
}  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """An array (T, ...) of the program that lies in memory. address: the text of a pointer to it; kind: of its numbers; shape:
    of what is at one place of the leading axis; step: how many numbers such places are apart; uniform: whether its numbers
    are the same in all lanes, and stored once."""

    address: str
    kind: str
    shape: tuple[int, ...]
    step: int
    uniform: bool


class Translator:
    """Writes programs into a `Code`."""

    def __init__(self, code: Code, parts: Parts | None = None) -> None:
        self.code = code
        self.parts = parts or Parts(lambda own, jaxpr, given: Translator(own, self.parts).run(jaxpr, given))
        self.functions: dict[Any, Any] = {}
        self.needed: dict[tuple[int, tuple[bool, ...]], Any] = {}
        self.sums = Sums(code)

    def run(self, closed: Any, arguments: Sequence[Any], wanted: Sequence[bool] | None = None) -> list[Any]:
        """Write a closed jaxpr; arguments and results are arrays of `Number`s, arguments also `Memory`, and results that are
        not wanted may be None."""
        jaxpr = getattr(closed, "jaxpr", closed)
        values: dict[Any, Any] = {}
        for variable, value in zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=True):
            values[variable] = constants(np.asarray(value))
        values.update(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> Any:
            return constants(np.asarray(atom.val, atom.aval.dtype)) if hasattr(atom, "val") else values[atom]

        asked = wanted or (True,) * len(jaxpr.outvars)
        key = (id(jaxpr), tuple(asked))
        if key not in self.needed:
            self.needed[key] = (jaxpr, needed(jaxpr, asked))  # a jaxpr that stays keeps its id
        for equation, of_results in self.needed[key][1]:
            results = self.equation(equation, [read(atom) for atom in equation.invars], of_results)
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) if one else None for atom, one in zip(jaxpr.outvars, asked, strict=True)]

    def equation(self, equation: Any, operands: list[Any], needed: Sequence[bool]) -> Sequence[Any]:
        """Write one equation, of whose results some are needed."""
        name, parameters = equation.primitive.name, equation.params
        if name in CALLS:
            return self._call(name, parameters, operands, needed)
        if name in ("optimization_barrier", "copy", "copy_p", "stop_gradient"):
            return operands
        if name == "while":
            return self._while(parameters, operands)
        if name == "scan":
            return self._scan(parameters, operands)
        if name == "cond":
            return self._cond(parameters, operands)
        if name == "dynamic_slice" and isinstance(operands[0], Memory):
            return [self._load(operands[0], operands[1:], parameters["slice_sizes"])]
        if any(isinstance(operand, Memory) for operand in operands):
            raise Untranslatable(f"{name} of rows in memory")
        if name in STRUCTURAL:
            return [STRUCTURAL[name](parameters, *operands)]
        if name == "unstack":  # JAX 0.12 on
            moved = np.moveaxis(operands[0], parameters["axis"], 0)
            return [moved[place, ...] for place in range(len(moved))]
        if name == "dot_general":
            return [self._dot_general(parameters, KINDS[np.dtype(equation.outvars[0].aval.dtype)], *operands)]
        if name in REDUCTIONS:
            return [self._reduce(REDUCTIONS[name], parameters["axes"], operands[0])]
        return [self._elementwise(equation, operands)]

    def _call(self, name: str, parameters: dict[str, Any], operands: list[Any], needed: Sequence[bool]) -> Sequence[Any]:
        inner = called(parameters)
        if is_anywhere(name, getattr(inner, "jaxpr", inner)):
            return [elementwise(self.code.any, operand) for operand in operands]
        if name in NAMED and parameters["name"] == BY_ROW:
            found = self.parts.call_by_row(self.code, inner, operands)
            if found is not None:
                return found
        if name in NAMED and self.parts.worth(inner, operands):
            return self.parts.call(self.code, inner, operands)
        return self.run(inner, operands, needed)

    def _elementwise(self, equation: Any, operands: list[np.ndarray]) -> np.ndarray:
        name, parameters = equation.primitive.name, equation.params
        kind = KINDS[np.dtype(equation.outvars[0].aval.dtype)]

        def each(*numbers: Number) -> Number:
            if name not in ("convert_element_type", "select_n") and all(n.constant is not None for n in numbers):
                return folded(equation, numbers, kind)
            return self.number(name, parameters, numbers, kind)

        return elementwise(each, *operands)

    def number(self, name: str, parameters: dict[str, Any], numbers: Sequence[Number], kind: str) -> Number:
        """Write one operation on numbers."""
        code, first = self.code, numbers[0]
        floating = first.kind in ("f64", "f32")
        table = FLOATING if floating else INTEGER
        if name == "add" and floating and numbers[1].text in self.sums.terms:
            return self.sums.sum(self.sums.terms[numbers[1].text], first)
        if name == "mul" and floating:
            return self.sums.product(first, numbers[1])
        if name == "div" and floating and is_one(numbers[1]):
            return first
        if name == "sub" and floating and is_zero(numbers[1]):
            return first
        if name in table:
            return code.binary(table[name], numbers[0], numbers[1])
        if name in COMPARISONS:
            return self._compare(name, numbers)
        if name in ("max", "min") and floating:
            return code.call("maximum" if name == "max" else "minimum", numbers)
        if name in ("max", "min"):
            return code.select(self._compare("gt" if name == "max" else "lt", numbers), numbers[0], numbers[1])
        if name in ("abs", "floor", "ceil", "sqrt", "sin", "cos") and floating:
            return code.call("fabs" if name == "abs" else name, numbers)
        if name == "round" and floating and int(parameters["rounding_method"]) == 1:
            return code.call("roundeven", numbers)
        if name == "neg":
            return code.unary("fneg", first) if floating else code.binary("sub", constant(0, first.kind), first)
        if name == "not":
            return code.binary("xor", first, constant(True if first.kind == "bool" else -1, first.kind))
        if name == "select_n":
            return self._select(first, numbers[1:])
        if name == "convert_element_type":
            return self.convert(first, kind)
        if name == "bitcast_convert_type":
            return code.convert("bitcast", first, kind)
        if name == "is_finite":
            size = code.call("fabs", [first])
            return self._compare("lt", [size, constant(np.inf, first.kind)])
        if name in REWRITES:
            return self._rewritten(name, parameters, numbers)
        raise Untranslatable(f"the function {name}")

    def _compare(self, name: str, numbers: Sequence[Number]) -> Number:
        kind = numbers[0].kind
        if kind in ("f64", "f32"):
            operation = f"fcmp {'une' if name == 'ne' else 'o' + name}"
        elif name in ("eq", "ne"):
            operation = f"icmp {name}"
        else:
            operation = f"icmp {'u' if kind in ('bool', 'u32', 'u64') else 's'}{name}"
        return self.code.binary(operation, numbers[0], numbers[1], "bool")

    def _select(self, which: Number, cases: Sequence[Number]) -> Number:
        if which.kind == "bool":
            return self.code.select(which, cases[1], cases[0])
        chosen = cases[-1]
        for index in range(len(cases) - 2, -1, -1):
            chosen = self.code.select(self._compare("eq", [which, constant(index, which.kind)]), cases[index], chosen)
        return chosen

    def convert(self, number: Number, kind: str) -> Number:
        """A number as another type."""
        code, source = self.code, number.kind
        if source == kind:
            return number
        if number.constant is not None:
            return constant(DTYPES[kind].type(number.constant), kind)
        floating = {"f64", "f32"}
        if kind == "bool":
            return self._compare("ne", [number, constant(0, source)])
        if source in floating and kind in floating:
            return code.convert("fpext" if kind == "f64" else "fptrunc", number, kind)
        if kind in floating:
            return code.convert("uitofp" if source in ("bool", "u32", "u64") else "sitofp", number, kind)
        if source in floating:
            return code.convert("fptoui" if kind in ("u32", "u64") else "fptosi", number, kind)
        size = {"bool": 1, "i8": 8, "i32": 32, "u32": 32, "i64": 64, "u64": 64}
        if size[source] == size[kind]:
            return Number(number.text, kind, number.uniform)
        if size[source] > size[kind]:
            return code.convert("trunc", number, kind)
        return code.convert("zext" if source in ("bool", "u32", "u64") else "sext", number, kind)

    def _rewritten(self, name: str, parameters: dict[str, Any], numbers: Sequence[Number]) -> Number:
        """A function that is a program of its own, written in place."""
        dtypes = [DTYPES[number.kind] for number in numbers]
        exponent = parameters.get("y")
        key = (name, tuple(map(str, dtypes)), exponent)
        if key not in self.functions:
            self.functions[key] = jaxpr_of(name, parameters, dtypes)
        return self.run(self.functions[key], [of_one(number) for number in numbers])[0].item()

    def _reduce(self, operation: str, axes: Sequence[int], operand: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(operand, tuple(axes), tuple(range(len(axes))))
        flat = moved.reshape(-1, *moved.shape[len(axes) :])
        if len(flat) == 0:
            raise Untranslatable("a sum of nothing")
        if flat.size == 0:
            return flat[0]
        kind = flat.flat[0].kind
        parts = [part if isinstance(part, np.ndarray) else of_one(part) for part in flat]
        if operation == "add" and kind in ("f64", "f32"):
            return elementwise(lambda *terms: self.sums.sum(terms), *parts)
        return functools.reduce(
            lambda total, part: elementwise(lambda a, b: self.number(operation, {}, [a, b], kind), total, part), parts
        )

    def _dot_general(self, parameters: dict[str, Any], kind: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        (contract_a, contract_b), (batch_a, batch_b) = parameters["dimension_numbers"]
        free_a = [axis for axis in range(a.ndim) if axis not in (*contract_a, *batch_a)]
        free_b = [axis for axis in range(b.ndim) if axis not in (*contract_b, *batch_b)]
        shape = [a.shape[axis] for axis in (*batch_a, *free_a)] + [b.shape[axis] for axis in free_b]
        if a.size == 0 or b.size == 0:
            return constants(np.zeros(shape, DTYPES[kind]))
        n_batch = int(np.prod([a.shape[axis] for axis in batch_a], dtype=int))
        length = int(np.prod([a.shape[axis] for axis in contract_a], dtype=int))
        left = a.transpose(*batch_a, *free_a, *contract_a).reshape(n_batch, -1, length)
        right = b.transpose(*batch_b, *free_b, *contract_b).reshape(n_batch, -1, length)
        out: Any = np.empty((n_batch, left.shape[1], right.shape[1]), object)
        for place in np.ndindex(out.shape):
            out[place] = self._dot(left[place[0], place[1]], right[place[0], place[2]])
        return out.reshape(shape)

    def _dot(self, a: Any, b: Any) -> Number:
        pairs = [(x, y) for x, y in zip(a, b, strict=True) if not (is_zero(x) or is_zero(y))]
        return self.sums.sum([self.sums.product(x, y) for x, y in pairs]) if pairs else constant(0, a[0].kind)

    def _load(self, memory: Memory, starts: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
        """What is at one place of the leading axis."""
        start = starts[0].item()
        if tuple(sizes[1:]) != memory.shape or sizes[0] != 1 or not start.uniform:
            raise Untranslatable("rows that are not looked at one place after the other")
        code, scalar = self.code, LLVM_OF[memory.kind]
        each = int(np.prod(memory.shape, dtype=int))
        step = memory.step * (1 if memory.uniform else code.lanes)
        place = self.convert(start, "i64")
        begin = code.binary("mul", place, constant(step, "i64"))
        out = np.empty(each, object)
        for index in range(each):
            offset = index if memory.uniform else index * code.lanes
            at = code.binary("add", begin, constant(offset, "i64"))
            pointer = code.write("ptr", True, f"getelementptr {scalar}, ptr {memory.address}, i64 {at.text}")
            load = f"load {code.type_of(memory.kind, memory.uniform)}, ptr {pointer.text}, align {ALIGNED[memory.kind]}"
            out[index] = self.sums.loaded(code.write(memory.kind, memory.uniform, load), load)
        return out.reshape(1, *memory.shape)

    def _while(self, parameters: dict[str, Any], operands: list[Any]) -> list[np.ndarray]:
        n_cond, n_body = parameters["cond_nconsts"], parameters["body_nconsts"]
        of_cond, of_body, begin = operands[:n_cond], operands[n_cond : n_cond + n_body], operands[n_cond + n_body :]
        state = list(begin)
        for _ in range(UNROLLED):
            running = self.run(parameters["cond_jaxpr"], [*of_cond, *state])[0].item()
            if running.constant is None:
                break
            if not running.constant:
                return state
            state = self.run(parameters["body_jaxpr"], [*of_body, *state])
        return self._loop(parameters, of_cond, of_body, begin)

    def _staying(self, parameters: dict[str, Any], *given: list[Any]) -> list[bool]:
        """Which numbers that a loop carries stay the same in all lanes."""

        def differs(value: Any) -> bool:
            return not (value.uniform if isinstance(value, Memory) else all(number.uniform for number in value.reshape(-1)))

        differ = carried_differing(parameters, *([differs(value) for value in part] for part in given))
        return [not one for one, array in zip(differ, given[-1], strict=True) for _ in range(array.size)]

    def _loop(self, parameters: dict[str, Any], of_cond: list[Any], of_body: list[Any], begin: list[Any]) -> list[np.ndarray]:
        """Write a loop, and return what it leaves."""
        code, uniform = self.code, self._staying(parameters, of_cond, of_body, begin)
        carried = [number for array in begin for number in array.reshape(-1)]
        entered = [number if same else code.spread(number) for number, same in zip(carried, uniform, strict=True)]
        code.count += 1
        head, inside, done = (f"{part}{code.count}" for part in ("head", "body", "done"))
        before = code.block
        code.jump(head)
        code.label(head)
        first = len(code.lines)
        phis = [Number(code.name(), number.kind, same) for number, same in zip(carried, uniform, strict=True)]
        code.lines += [""] * len(phis)
        state = shaped(phis, begin)
        code.scopes.append({})
        running = self.run(parameters["cond_jaxpr"], [*of_cond, *state])[0].item()
        code.branch(code.any(running), inside, done)
        code.label(inside)
        results = self.run(parameters["body_jaxpr"], [*of_body, *state])
        following = [number for array in results for number in array.reshape(-1)]
        if not running.uniform:
            following = [code.select(running, new, old) for new, old in zip(following, phis, strict=True)]
        if any(same and not number.uniform for number, same in zip(following, uniform, strict=True)):
            raise Untranslatable("a loop of which it cannot be told what stays the same in all lanes")
        ends = [number if same else code.spread(number) for number, same in zip(following, uniform, strict=True)]
        code.scopes.pop()
        for index, (phi, start, end) in enumerate(zip(phis, entered, ends, strict=True)):
            kind = code.type_of(phi.kind, phi.uniform)
            code.lines[first + index] = f"  {phi.text} = phi {kind} [ {start.text}, %{before} ], [ {end.text}, %{code.block} ]"
        code.jump(head)
        code.label(done)
        return state

    def _scan(self, parameters: dict[str, Any], operands: list[Any]) -> list[np.ndarray]:
        """A loop of so many turns, written out."""
        (n_consts, n_carry), length = _scanned(parameters), parameters["length"]
        if length > UNROLLED:
            raise Untranslatable(f"a loop of {length} turns")
        fixed, state, lists = operands[:n_consts], operands[n_consts : n_consts + n_carry], operands[n_consts + n_carry :]
        turns = range(length - 1, -1, -1) if parameters["reverse"] else range(length)
        given: dict[int, list[np.ndarray]] = {}
        for turn in turns:
            found = self.run(parameters["jaxpr"], [*fixed, *state, *(np.asarray(values)[turn, ...] for values in lists)])
            state, given[turn] = found[:n_carry], found[n_carry:]
        stacked = [np.stack([given[turn][index] for turn in range(length)]) for index in range(len(given.get(0, [])))]
        return [*state, *stacked]

    def _cond(self, parameters: dict[str, Any], operands: list[Any]) -> list[np.ndarray]:
        branches, which, operands = parameters["branches"], operands[0].item(), operands[1:]
        if which.constant is not None:
            return self.run(branches[min(max(int(which.constant), 0), len(branches) - 1)], operands)
        if not which.uniform:
            results = [self.run(branch, operands) for branch in branches]
            return [elementwise(lambda *cases: self._select(which, cases), *arrays) for arrays in zip(*results, strict=True)]
        if len(branches) != 2:
            raise Untranslatable("a choice between more than two")
        return self._together(branches, self.convert(which, "bool"), operands)

    def _together(self, branches: Sequence[Any], flag: Number, operands: list[Any]) -> list[np.ndarray]:
        """Branches between which all lanes choose together."""
        code = self.code
        code.count += 1
        names = [f"{part}{code.count}" for part in ("no", "yes")]
        done = f"both{code.count}"
        code.branch(flag, names[1], names[0])
        found, lefts = [], []
        for name, branch in zip(names, branches, strict=True):
            code.label(name)
            code.scopes.append({})
            arrays = self.run(branch, operands)
            found.append((arrays, [code.spread(number) for array in arrays for number in array.reshape(-1)]))
            code.scopes.pop()
            lefts.append(code.block)
            code.jump(done)
        code.label(done)
        merged = []
        for no, yes in zip(found[0][1], found[1][1], strict=True):
            kind = code.type_of(no.kind, False)
            name = code.name()
            code.lines.append(f"  {name} = phi {kind} [ {no.text}, %{lefts[0]} ], [ {yes.text}, %{lefts[1]} ]")
            merged.append(Number(name, no.kind, False))
        return shaped(merged, found[0][0])


def _scanned(parameters: dict[str, Any]) -> list[int]:
    """How many operands of a scan are the same at each turn, and how many are handed on from turn to turn."""
    if "ft_in" in parameters:  # JAX 0.12 on
        return [len(part) for part in parameters["ft_in"].unpack()[:2]]
    return [parameters["num_consts"], parameters["num_carry"]]
