"""Looking rows up where the user has them: one number a lane, in whatever type and order.

A lane's row lies at the address of its array, plus strides times the number of its group and of the row. As long as every lane
of a block has rows, these are read one lane after the other and put side by side; where columns lie next to each other,
several at once, in pieces that are then turned, lanes for columns. The rows that only some lanes have are gathered, which takes
longer: many CPUs gather a vector in more time than they read its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxglm.irls.lanes.code import DTYPES, KINDS, LLVM_TYPES, Code, Number, constant
from jaxglm.irls.lanes.entries import of_one
from jaxglm.irls.lanes.program import Shape
from jaxglm.irls.lanes.translate import Translator


@dataclass(frozen=True)
class Begins:
    """Where the rows of each lane begin: of each array by its name, and of the order, if there is one. Addresses, one a lane,
    each the same in all lanes."""

    of: dict[str, list[Number]]
    order: list[Number] | None


class Lookup:
    """Writes how the rows of a block's groups are looked up. slot: the entries of the table, by name."""

    def __init__(self, code: Code, shape: Shape, slot: dict[str, Number]) -> None:
        self.code, self.shape, self.slot = code, shape, slot
        self.kind = KINDS[np.dtype(shape.dtype)]
        self.beside = [(role, KINDS[np.dtype(getattr(shape, role))]) for role in shape.beside]

    def pointer(self, address: Number) -> Number:
        """An address as a pointer."""
        return self.code.write("ptr", True, f"inttoptr i64 {address.text} to ptr")

    def at(self, address: Number, index: Number) -> Number:
        """A pointer to a number of 64 bits."""
        offset = self.code.binary("mul", index, constant(8, "i64"))
        return self.pointer(self.code.binary("add", address, offset))

    def arithmetic(self, number: Number) -> Number:
        """A number in the type of the arithmetic."""
        return Translator(self.code).convert(number, self.kind)

    def gather(self, addresses: Number, kind: str, inside: Number) -> Number:
        """One number a lane, from addresses; nothing where a lane is not `inside`."""
        code, lanes = self.code, self.code.lanes
        scalar = LLVM_TYPES[kind]
        suffix = {"double": "f64", "float": "f32"}.get(scalar, scalar)
        name = f"@llvm.masked.gather.v{lanes}{suffix}.v{lanes}p0"
        values, pointers, flags = f"<{lanes} x {scalar}>", f"<{lanes} x ptr>", f"<{lanes} x i1>"
        code.declared[name] = f"declare {values} {name}({pointers}, i32 immarg, {flags}, {values})"
        where = code.write("ptr", False, f"inttoptr <{lanes} x i64> {code.wide(addresses)} to {pointers}")
        call = f"call {values} {name}({pointers} {where.text}, i32 {DTYPES[kind].itemsize}, {flags} "
        return code.write(kind, False, f"{call}{code.wide(inside)}, {values} zeroinitializer)")

    def by_group(self, name: str, groups: Number, used: Number) -> Number:
        """A whole number of each lane's group, zero where a lane has none."""
        offset = self.code.binary("mul", groups, constant(8, "i64"))
        return self.gather(self.code.binary("add", self.slot[name], offset), "i64", used)

    def place(self, index: Number, sizes: Number, starts: Number) -> tuple[Number, Number]:
        """The number of each lane's row, and whether the lane has it."""
        code = self.code
        inside = code.binary("icmp slt", code.spread(index), sizes, "bool")
        row = code.binary("add", code.spread(index), starts)
        if self.shape.ordered:
            offset = code.binary("mul", row, constant(8, "i64"))
            row = self.gather(code.binary("add", self.slot["order"], offset), "i64", inside)
        return row, inside

    def row(self, groups: Number, row: Number, inside: Number) -> list[np.ndarray]:
        """What one row of every lane holds, in the order of `program.prepare`, zeros for lanes without it."""
        code, shape = self.code, self.shape
        out: list[np.ndarray] = []
        if shape.loaded:
            columns = np.empty(shape.loaded, object)
            base = self._base("X", groups, row)
            for j in range(shape.loaded):
                more = code.binary("mul", self.slot["X.column"], constant(j, "i64"))
                columns[j] = self._column(self.gather(code.binary("add", base, more), self._kind_of_columns, inside), j)
            out.append(columns)
        for role, kind in self.beside:
            there = code.binary("and", inside, self._given(role), "bool") if role == "weights" else inside
            number = self.arithmetic(self.gather(self._base(role, groups, row), kind, there))
            if role == "weights":
                one = code.select(inside, constant(1.0, self.kind), constant(0.0, self.kind))
                number = code.select(code.spread(self._given(role)), number, one)
            out.append(of_one(number))
        return out

    def begins(self, groups: Number, starts: Number) -> Begins:
        """Where the rows of a block begin, for `whole_row`."""
        code, shape = self.code, self.shape
        roles = ["X"] * bool(shape.loaded) + [role for role, _ in self.beside]
        first = code.spread(constant(0, "i64")) if shape.ordered else starts
        of = {role: self._one_by_one(self._base(role, groups, first)) for role in roles}
        if not shape.ordered:
            return Begins(of, None)
        offset = code.binary("mul", starts, constant(8, "i64"))
        return Begins(of, self._one_by_one(code.binary("add", offset, self.slot["order"])))

    def whole_row(self, begins: Begins, index: Number) -> list[np.ndarray]:
        """What the row of this number holds, which all lanes have; as `row`."""
        code, shape = self.code, self.shape
        numbers = [index] * code.lanes
        if begins.order is not None:
            places = [self.at(begin, index) for begin in begins.order]
            numbers = [code.write("i64", True, f"load i64, ptr {place.text}, align 8") for place in places]
        out: list[np.ndarray] = []
        if shape.loaded:
            columns, done = np.empty(shape.loaded, object), 0
            while done < shape.loaded:
                width = _largest_power(min(shape.loaded - done, code.lanes)) if shape.adjacent else 1
                more = code.binary("mul", self.slot["X.column"], constant(done, "i64"))
                at = self._addresses("X", begins, numbers, more)
                for number in self._side_by_side(at, self._kind_of_columns, width):
                    columns[done] = self._column(number, done)
                    done += 1
            out.append(columns)
        for role, kind in self.beside:

            def read(role: str = role, kind: str = kind) -> Number:
                at = self._addresses(role, begins, numbers, constant(0, "i64"))
                return self.arithmetic(self._side_by_side(at, kind, 1)[0])

            if role == "weights":
                out.append(of_one(self._if(self._given(role), read, constant(1.0, self.kind))))
            else:
                out.append(of_one(read()))
        return out

    def _one_by_one(self, vector: Number) -> list[Number]:
        """The numbers of the lanes, each the same in all lanes."""
        code, kind = self.code, self.code.type_of("i64", False)
        text = code.wide(vector)
        return [code.write("i64", True, f"extractelement {kind} {text}, i64 {lane}") for lane in range(code.lanes)]

    def _addresses(self, role: str, begins: Begins, rows: list[Number], more: Number) -> list[Number]:
        """Where each lane's row of its number lies, and so many bytes on."""
        code, stride = self.code, self.slot[f"{role}.row"]
        offsets = [code.binary("add", code.binary("mul", row, stride), more) for row in rows]
        return [code.binary("add", begin, offset) for begin, offset in zip(begins.of[role], offsets, strict=True)]

    @property
    def _kind_of_columns(self) -> str:
        return KINDS[np.dtype(self.shape.own or self.shape.X)]

    def _given(self, role: str) -> Number:
        return self.code.binary("icmp ne", self.slot[f"{role}.address"], constant(0, "i64"), "bool")

    def _column(self, number: Number, j: int) -> Number:
        """A number of a column, zero where the column is read as zeros."""
        if self.shape.own:
            return number
        bit = self.code.binary("and", self.slot["gone"], constant(1 << j, "i64"))
        there = self.code.binary("icmp eq", bit, constant(0, "i64"), "bool")
        return self.code.select(self.code.spread(there), self.arithmetic(number), constant(0.0, self.kind))

    def _base(self, role: str, groups: Number, row: Number) -> Number:
        code = self.code
        of_group = code.binary("add", code.binary("mul", groups, self.slot[f"{role}.group"]), self.slot[f"{role}.address"])
        return code.binary("add", of_group, code.binary("mul", row, self.slot[f"{role}.row"]))

    def _side_by_side(self, addresses: list[Number], kind: str, width: int) -> list[Number]:
        """Numbers next to each other in memory, so many of each lane: vectors of lanes, one for each of them."""
        code, scalar = self.code, LLVM_TYPES[kind]
        type, pieces = scalar if width == 1 else f"<{width} x {scalar}>", []
        for address in addresses:
            load = f"load {type}, ptr {self.pointer(address).text}, align {DTYPES[kind].itemsize}"
            pieces.append(code.write(f"{width} {kind}", True, load).text)
        if width == 1:
            return [self._joined(pieces, kind)]
        return [Number(text, kind, False) for text in self._turned(pieces, scalar, width)]

    def _joined(self, numbers: Sequence[str], kind: str) -> Number:
        """A vector of single numbers."""
        code, vector = self.code, "poison"
        for lane, number in enumerate(numbers):
            text = f"insertelement {code.type_of(kind, False)} {vector}, {LLVM_TYPES[kind]} {number}, i64 {lane}"
            vector = code.write(kind, False, text).text
        return Number(vector, kind, False)

    def _turned(self, pieces: list[str], scalar: str, width: int) -> list[str]:
        """One piece (width,) a lane, as one vector of lanes for each of its places. Pieces `width` lanes apart are joined, and
        the squares that result are turned by swapping their quarters across, then the quarters of these, and so on."""
        lanes = len(pieces)
        rows = []
        for r in range(width):
            parts, size = pieces[r::width], width
            while len(parts) > 1:
                places = range(2 * size)
                parts = [self._shuffle(scalar, size, a, b, places) for a, b in zip(parts[::2], parts[1::2], strict=True)]
                size *= 2
            rows.append(parts[0])
        half = width // 2
        while half:
            for r in (r for r in range(width) if not r & half):
                a, b = rows[r], rows[r + half]
                low = [q - half + lanes if q & half else q for q in range(lanes)]
                high = [q + lanes if q & half else q + half for q in range(lanes)]
                rows[r], rows[r + half] = (self._shuffle(scalar, lanes, a, b, places) for places in (low, high))
            half //= 2
        return rows

    def _shuffle(self, scalar: str, size: int, a: str, b: str, places: Sequence[int]) -> str:
        vector, mask = f"<{size} x {scalar}>", ", ".join(f"i32 {place}" for place in places)
        text = f"shufflevector {vector} {a}, {vector} {b}, <{len(places)} x i32> <{mask}>"
        return self.code.write(f"{len(places)} {scalar}", False, text).text

    def _if(self, flag: Number, make: Callable[[], Number], otherwise: Number) -> Number:
        """A vector that is made only if a flag, the same in all lanes, is set."""
        code = self.code
        code.count += 1
        made, done, before = f"made{code.count}", f"done{code.count}", code.block
        no = code.wide(otherwise)
        code.branch(flag, made, done)
        code.label(made)
        code.scopes.append({})
        yes = code.wide(make())
        code.scopes.pop()
        after = code.block
        code.jump(done)
        code.label(done)
        name, kind = code.name(), code.type_of(otherwise.kind, False)
        code.lines.append(f"  {name} = phi {kind} [ {no}, %{before} ], [ {yes}, %{after} ]")
        return Number(name, otherwise.kind, False)


def _largest_power(n: int) -> int:
    """The largest power of two that is at most n."""
    return 1 << (n.bit_length() - 1)
