"""The kernel: for one block of lanes after the other, look up rows, solve, and put away what was found.

A kernel is a function of a range of blocks and a table of addresses. A block is a handful of groups, one a lane, listed
beforehand; groups of about the same size share a block, and lanes without a group are marked. Rows are looked up where the
user has them, in whatever type and order (`lookup`), and put side by side, lane by lane, in a little memory that stays in the
cache while the fit goes over them again and again. Strides are data, so one kernel serves arrays of any layout; only columns
that lie next to each other have one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxglm.irls.lanes.code import KINDS, LLVM_TYPES, Code, Number, constant
from jaxglm.irls.lanes.entries import Untranslatable, of_one
from jaxglm.irls.lanes.lookup import Lookup
from jaxglm.irls.lanes.program import Shape, given_shapes, traced_prepare, traced_solve
from jaxglm.irls.lanes.translate import LLVM_OF, Memory, Translator


@dataclass(frozen=True)
class Leaf:
    """An array of a fit's results. kind: of its numbers, which are put away as float64, whole numbers of 64 bits, or flags."""

    shape: tuple[int, ...]
    kind: str

    @property
    def size(self) -> int:
        """Numbers of a fit."""
        return int(np.prod(self.shape, dtype=int))

    @property
    def dtype(self) -> np.dtype:
        """The type in which they are put away."""
        return np.dtype({"bool": np.bool_, "f64": np.float64, "f32": np.float64}.get(self.kind, np.int64))


@dataclass(frozen=True)
class Layout:
    """Where a kernel finds things. lanes: fits side by side; chunk: numbers a lane in a chunk of rows; parameters, results:
    numbers a lane; leaves: the arrays of the results."""

    lanes: int
    chunk: int
    parameters: int
    results: int
    leaves: tuple[Leaf, ...]


# Addresses at the head of the table; and in the bits of a number, which columns are read as zeros.
TABLE = ("blocks", "counts", "sizes", "starts", "order", "scratch", "shared", "gone")
ROWS = ("X", "y", "weights", "offset", "mark")  # each with an address and strides by group, row and column, in bytes


def slots(shape: Shape, results: int) -> list[str]:
    """The names of the table's entries, one after the other; results: how many arrays come out."""
    names = list(TABLE)
    for role in ROWS:
        names += [f"{role}.{part}" for part in ("address", "group", "row", "column")]
    for index in range(len(widths(shape)) - shape.careful):  # a scale is found from the rows
        names += [f"parameter{index}.{part}" for part in ("address", "group", "column")]
    return [*names, *(f"result{index}" for index in range(results))]


def widths(shape: Shape) -> list[int]:
    """How many numbers each fit has of its own: of each of the family's parameters, and of what is given."""
    return [1] * shape.family.num_leaves + [int(np.prod(one, dtype=int)) for one in given_shapes(shape)]


def written(shape: Shape, lanes: int, ready: Callable[[str], None]) -> tuple[Layout, Any]:
    """Write the kernel, whose function is called `run`, and hand over the texts of its parts, each as soon as it is `ready`;
    returns the kernel's layout, and the structure of what comes out."""
    jaxpr, found = traced_solve(shape)
    leaves = tuple(Leaf(one.shape, _kind_of(np.dtype(one.dtype))) for one in jaxpr.out_avals)
    chunk = shape.chunk * (shape.loaded + len(shape.beside))
    layout = Layout(lanes, chunk, sum(widths(shape)), sum(leaf.size for leaf in leaves), leaves)
    functions: list[str] = []
    run = _Run(shape, layout, Code(lanes, ready, functions))
    run.write()
    ready(run.code.text("run", "i64 %begin, i64 %end, ptr %table"))
    code = Code(lanes, ready, functions)
    _write_solve(shape, code, jaxpr)
    rows = "ptr noalias readonly %rows, ptr noalias readonly %shared, i32 %count, "
    ready(code.text("solve", f"{rows}ptr noalias readonly %parameters, ptr noalias %results"))
    return layout, jax.tree.structure(found)


def _kind_of(dtype: np.dtype) -> str:
    if dtype not in KINDS:
        raise Untranslatable(f"results of type {dtype}")
    return KINDS[dtype]


def _write_solve(shape: Shape, code: Code, jaxpr: Any) -> None:
    """The function that fits one block, or says what is asked of it."""
    kind, lanes = KINDS[np.dtype(shape.dtype)], code.lanes
    step = shape.chunk * (shape.loaded + len(shape.beside))

    def rows(place: int, more: tuple[int, ...]) -> Memory:
        pointer = code.write("ptr", True, f"getelementptr {LLVM_OF[kind]}, ptr %rows, i64 {place * shape.chunk * lanes}")
        return Memory(pointer.text, kind, (*more, shape.chunk), step, False)

    arguments: list[Any] = []
    if shape.shared:
        n = shape.p - shape.loaded
        arguments.append(Memory("%shared", kind, (n, shape.chunk), n * shape.chunk, True))
    if shape.loaded:
        arguments.append(rows(0, (shape.loaded,)))
    # A jaxpr takes the entries of a dict in the order of their names.
    arguments += [rows(shape.loaded + shape.beside.index(name), ()) for name in sorted(shape.beside)]
    arguments.append(of_one(Number("%count", "i32", True)))
    place = 0
    shapes = [()] * shape.family.num_leaves + given_shapes(shape)
    for width, of in zip(widths(shape), shapes, strict=True):
        numbers = np.empty(width, object)
        for j in range(width):
            numbers[j] = _load(code, "%parameters", place, kind)
            place += 1
        arguments.append(numbers.reshape(of))
    results = Translator(code).run(jaxpr, arguments)
    for place, number in enumerate(number for array in results for number in array.reshape(-1)):
        _store(code, number, place)


def _load(code: Code, address: str, place: int, kind: str) -> Number:
    scalar = LLVM_TYPES[kind]
    pointer = code.write("ptr", True, f"getelementptr {scalar}, ptr {address}, i64 {place * code.lanes}")
    return code.write(kind, False, f"load {code.type_of(kind, False)}, ptr {pointer.text}, align 8")


def _store(code: Code, number: Number, place: int) -> None:
    """Put away a result, in float64 or as a whole number of 64 bits."""
    number = code.spread(number)
    if number.kind == "f32":
        number = code.convert("fpext", number, "f64")
    elif number.kind == "bool":
        number = code.convert("zext", number, "i64")
    elif number.kind == "i32":
        number = code.convert("sext", number, "i64")
    pointer = code.write("ptr", True, f"getelementptr i64, ptr %results, i64 {place * code.lanes}")
    code.lines.append(f"  store {code.type_of(number.kind, False)} {number.text}, ptr {pointer.text}, align 8")


class _Run:
    """Writes the function that goes over blocks."""

    def __init__(self, shape: Shape, layout: Layout, code: Code) -> None:
        self.shape, self.layout, self.code = shape, layout, code
        self.kind = KINDS[np.dtype(shape.dtype)]
        self.slot: dict[str, Number] = {}
        self.look = Lookup(self.code, shape, self.slot)

    def write(self) -> None:
        code = self.code
        for index, name in enumerate(slots(self.shape, len(self.layout.leaves))):
            pointer = code.write("ptr", True, f"getelementptr i64, ptr %table, i64 {index}")
            self.slot[name] = code.write("i64", True, f"load i64, ptr {pointer.text}, align 8")
        size = 8 * self.layout.lanes
        parameters = self.look.pointer(self.slot["scratch"])
        after = code.binary("add", self.slot["scratch"], constant(size * self.layout.parameters, "i64"))
        results = self.look.pointer(after)
        rows = self.look.pointer(code.binary("add", after, constant(size * self.layout.results, "i64")))
        shared = self.look.pointer(self.slot["shared"])
        for block in self.loop("blocks", Number("%begin", "i64", True), Number("%end", "i64", True)):
            first = code.binary("mul", block, constant(self.layout.lanes, "i64"))
            listed = self.look.at(self.slot["blocks"], first)
            groups = code.write("i64", False, f"load {code.type_of('i64', False)}, ptr {listed.text}, align 8")
            used = code.binary("icmp sge", groups, constant(0, "i64"), "bool")
            groups = code.select(used, groups, constant(0, "i64"))
            count = code.write("i64", True, f"load i64, ptr {self.look.at(self.slot['counts'], block).text}, align 8")
            self.load_parameters(groups, used, parameters.text)
            self.load_rows(groups, used, count, parameters.text, rows.text)
            chunks = code.convert("trunc", count, "i32")
            code.declared["@solve"] = "declare void @solve(ptr, ptr, i32, ptr, ptr)"
            code.lines.append(
                f"  call void @solve(ptr {rows.text}, ptr {shared.text}, i32 {chunks.text}, ptr {parameters.text}, "
                f"ptr {results.text})"
            )
            self.put_away(first, results.text)

    def loop(self, name: str, begin: Number, end: Number) -> Iterator[Number]:
        """A loop over whole numbers; what is written while this waits is its body."""
        code = self.code
        code.count += 1
        head, body, done = (f"{name}_{part}{code.count}" for part in ("head", "body", "done"))
        before = code.block
        code.jump(head)
        code.label(head)
        place = len(code.lines)
        index = Number(code.name(), "i64", True)
        code.lines.append("")
        code.scopes.append({})
        code.branch(code.binary("icmp slt", index, end, "bool"), body, done)
        code.label(body)
        yield index
        following = code.binary("add", index, constant(1, "i64"))
        code.lines[place] = f"  {index.text} = phi i64 [ {begin.text}, %{before} ], [ {following.text}, %{code.block} ]"
        code.jump(head)
        code.scopes.pop()
        code.label(done)

    def load_parameters(self, groups: Number, used: Number, address: str) -> None:
        """The family's parameters of a block's groups, and what is given of them."""
        code, place = self.code, 0
        for index, width in enumerate(widths(self.shape)[: -1 if self.shape.careful else None]):
            name = f"parameter{index}"
            of_group = code.binary("mul", groups, self.slot[f"{name}.group"])
            base = code.binary("add", of_group, self.slot[f"{name}.address"])
            for j in range(width):
                more = code.binary("mul", self.slot[f"{name}.column"], constant(j, "i64"))
                number = self.look.gather(code.binary("add", base, more), "f64", used)
                number = code.select(used, number, constant(1.0, "f64"))
                code.put(self.look.arithmetic(number), address, place)
                place += 1

    def load_rows(self, groups: Number, used: Number, count: Number, parameters: str, address: str) -> None:
        """Rows of a block's groups, made ready."""
        code, shape = self.code, self.shape
        sizes = self.look.by_group("sizes", groups, used)
        starts = self.look.by_group("starts", groups, used)
        family = [of_one(_load(code, parameters, j, self.kind)) for j in range(shape.family.num_leaves)]
        end = code.binary("mul", count, constant(shape.chunk, "i64"))
        if shape.careful:
            family.append(self.find_scale(groups, sizes, starts, end, parameters))
        begins, whole = self.look.begins(groups, starts), self.least(sizes)
        translator, jaxpr = Translator(code), traced_prepare(shape)

        def make_ready(index: Number, row: list[np.ndarray]) -> None:
            results = translator.run(jaxpr, [*family, *row])
            here = self.of_row(index, address)
            for place, number in enumerate(number for array in results for number in array.reshape(-1)):
                code.put(number, here, place * shape.chunk)

        for index in self.loop("whole", constant(0, "i64"), whole):
            make_ready(index, self.look.whole_row(begins, index))
        for index in self.loop("rows", whole, end):
            make_ready(index, self.look.row(groups, *self.look.place(index, sizes, starts)))

    def of_row(self, index: Number, address: str) -> str:
        """Where a row has its place among those that are ready."""
        code, chunk = self.code, self.shape.chunk
        whole = code.binary("sdiv", index, constant(chunk, "i64"))
        within = code.binary("sub", index, code.binary("mul", whole, constant(chunk, "i64")))
        begin = code.binary("mul", whole, constant(self.layout.chunk * code.lanes, "i64"))
        begin = code.binary("add", begin, code.binary("mul", within, constant(code.lanes, "i64")))
        return code.write("ptr", True, f"getelementptr {LLVM_TYPES[self.kind]}, ptr {address}, i64 {begin.text}").text

    def least(self, numbers: Number) -> Number:
        """The smallest of a block's whole numbers."""
        code, vector = self.code, self.code.type_of("i64", False)
        name = f"@llvm.vector.reduce.smin.v{code.lanes}i64"
        code.declared[name] = f"declare i64 {name}({vector})"
        return code.write("i64", True, f"call i64 {name}({vector} {numbers.text})")

    def find_scale(self, groups: Number, sizes: Number, starts: Number, end: Number, parameters: str) -> np.ndarray:
        """Powers of two next to the largest absolute value of each column, of rows that are there and finite. They stand with
        the parameters, as their last."""
        code, columns = self.code, range(self.shape.loaded)
        first = self.layout.parameters - self.shape.loaded
        for j in columns:
            code.put(constant(0.0, self.kind), parameters, first + j)
        for index in self.loop("reach", constant(0, "i64"), end):
            x, weights = self.look.row(groups, *self.look.place(index, sizes, starts))[:: 2 if self.shape.loaded else 1][:2]
            there = code.binary("fcmp une", weights.item(), constant(0.0, self.kind), "bool")
            size = [code.call("fabs", [self.look.arithmetic(number)]) for number in x]
            for number in size:
                there = code.binary("and", there, code.binary("fcmp olt", number, constant(np.inf, self.kind), "bool"))
            for j in columns:
                before = code.take(self.kind, parameters, first + j)
                larger = code.binary("and", there, code.binary("fcmp ogt", size[j], before, "bool"))
                code.put(code.select(larger, size[j], before), parameters, first + j)
        scale = np.empty(self.shape.loaded, object)
        for j in columns:
            scale[j] = self.power_of_two(code.take(self.kind, parameters, first + j))
            code.put(scale[j], parameters, first + j)
        return scale

    def power_of_two(self, reach: Number) -> Number:
        """The power of two above a number, 1 for zero."""
        code = self.code
        low, high = constant(2.0**-1000, "f64"), constant(2.0**1000, "f64")
        some = code.binary("fcmp ogt", reach, constant(0.0, "f64"), "bool")
        kept = code.select(some, reach, constant(0.75, "f64"))
        kept = code.select(code.binary("fcmp olt", kept, low, "bool"), low, kept)
        kept = code.select(code.binary("fcmp ogt", kept, high, "bool"), high, kept)
        exponent = code.binary("lshr", code.convert("bitcast", kept, "i64"), constant(52, "i64"))
        more = code.binary("add", exponent, constant(1, "i64"))
        return code.convert("bitcast", code.binary("shl", more, constant(52, "i64")), "f64")

    def put_away(self, first: Number, results: str) -> None:
        """The results of a block, each where its group has its place."""
        code, lanes = self.code, self.layout.lanes
        for lane in self.loop("lanes", constant(0, "i64"), constant(lanes, "i64")):
            place = self.look.at(self.slot["blocks"], code.binary("add", first, lane))
            group = code.write("i64", True, f"load i64, ptr {place.text}, align 8")
            there, skip = f"there{code.count}", f"skip{code.count}"
            code.branch(code.binary("icmp sge", group, constant(0, "i64"), "bool"), there, skip)
            code.label(there)
            code.scopes.append({})
            at = 0
            for index, leaf in enumerate(self.layout.leaves):
                at = self.scatter(f"result{index}", leaf, at, group, lane, results)
            code.scopes.pop()
            code.jump(skip)
            code.label(skip)

    def scatter(self, name: str, leaf: Leaf, at: int, group: Number, lane: Number, results: str) -> int:
        """One array of one lane; returns where the next begins."""
        code, size, each = self.code, leaf.size, leaf.dtype.itemsize
        begin = code.binary("mul", group, constant(size * each, "i64"))
        target = self.look.pointer(code.binary("add", self.slot[name], begin))
        for j in range(size):
            source = code.write("ptr", True, f"getelementptr i64, ptr {results}, i64 {(at + j) * code.lanes}")
            source = code.write("ptr", True, f"getelementptr i64, ptr {source.text}, i64 {lane.text}")
            value = code.write("i64", True, f"load i64, ptr {source.text}, align 8")
            if each == 1:
                value = code.convert("trunc", value, "i8")
            to = code.write("ptr", True, f"getelementptr {LLVM_TYPES[value.kind]}, ptr {target.text}, i64 {j}")
            code.lines.append(f"  store {LLVM_TYPES[value.kind]} {value.text}, ptr {to.text}, align {each}")
        return at + size
