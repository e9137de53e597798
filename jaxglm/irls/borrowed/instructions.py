"""The kernels over rows in memory, in LLVM's language.

`dot` is X b, a row at a time. `reach` finds the largest numbers of each column. `normal` adds up X'WX and X'R: of a few rows at
a time it writes down x and, beside it, w x and r, padded to whole registers, in a little memory that stays in the first
caches; then each tile of the product, eight rows by up to three registers of columns, goes over these rows with all its sums
in registers. Only tiles on and below the diagonal are computed. (Goto and van de Geijn 2008, "Anatomy of high-performance
matrix multiplication", for a product with its own transpose.)

Rows are looked up by an address and a stride in bytes; a row's numbers lie one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

BLOCK = 64  # rows that are written down at a time
HIGH, BROAD = 8, 3  # of a tile: rows, and registers in each
SIDE = 8  # right-hand sides there is room for
PAIR = 2  # of which so many are a tile's rows

Turn = Callable[[str, list[str]], list[str] | None]  # from an index and carried registers to the next values of these


class Writer:
    """Text of functions over numbers of one type (`double` or `float`), so many of them in a register."""

    def __init__(self, scalar: str, lanes: int) -> None:
        self.scalar, self.lanes = scalar, lanes
        self.vector = f"<{lanes} x {scalar}>"
        self.suffix = f"v{lanes}{'f64' if scalar == 'double' else 'f32'}"
        self.size = 8 if scalar == "double" else 4
        self.count = 0
        self.lines: list[str] = []
        self.block = "entry"

    def new(self, text: str) -> str:
        """The result of an instruction."""
        self.count += 1
        self.lines.append(f"  %v{self.count} = {text}")
        return f"%v{self.count}"

    def say(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append(f"  {text}")

    def at(self, base: str, index: str) -> str:
        """Where a number of an array is."""
        return self.new(f"getelementptr {self.scalar}, ptr {base}, i64 {index}")

    def add(self, a: str, b: str) -> str:
        return self.new(f"add i64 {a}, {b}")

    def times(self, a: str, b: str) -> str:
        return self.new(f"mul i64 {a}, {b}")

    def least(self, a: str, b: str) -> str:
        return self.new(f"select i1 {self.new(f'icmp slt i64 {a}, {b}')}, i64 {a}, i64 {b}")

    def rounded(self, a: str, to: int) -> str:
        """The next multiple of `to`."""
        return self.times(self.new(f"udiv i64 {self.add(a, str(to - 1))}, {to}"), str(to))

    def row(self, place: dict[str, str], index: str) -> str:
        """Where a row begins."""
        return self.new(f"getelementptr i8, ptr {place['address']}, i64 {self.times(index, place['stride'])}")

    def number(self, pointer: str) -> str:
        return self.new(f"load {self.scalar}, ptr {pointer}, align {self.size}")

    def numbers(self, pointer: str, mask: str | None = None) -> str:
        """A register from memory; zeros where a mask is not set."""
        if mask is None:
            return self.new(f"load {self.vector}, ptr {pointer}, align {self.size}")
        kind = f"<{self.lanes} x i1>"
        call = (
            f"@llvm.masked.load.{self.suffix}.p0(ptr {pointer}, i32 {self.size}, {kind} {mask}, {self.vector} zeroinitializer)"
        )
        return self.new(f"call {self.vector} {call}")

    def store(self, value: str, pointer: str) -> None:
        """Put a register into memory."""
        self.say(f"store {self.vector} {value}, ptr {pointer}, align {self.size}")

    def store_at(self, base: str, index: str, value: str) -> None:
        """Put a number into an array."""
        self.say(f"store {self.scalar} {value}, ptr {self.at(base, index)}, align {self.size}")

    def mask(self, first: str, end: str) -> str:
        """Which lanes of a register that begins at number `first` lie before `end`."""
        kind = f"<{self.lanes} x i1>"
        return self.new(f"call {kind} @llvm.get.active.lane.mask.v{self.lanes}i1.i64(i64 {first}, i64 {end})")

    def splat(self, number: str) -> str:
        one = self.new(f"insertelement {self.vector} poison, {self.scalar} {number}, i64 0")
        return self.new(f"shufflevector {self.vector} {one}, {self.vector} poison, <{self.lanes} x i32> zeroinitializer")

    def fma(self, a: str, b: str, c: str) -> str:
        return self.new(f"call {self.vector} @llvm.fma.{self.suffix}({self.vector} {a}, {self.vector} {b}, {self.vector} {c})")

    def total(self, values: str) -> str:
        """The sum of a register."""
        zero = "-0.0"
        call = f"@llvm.vector.reduce.fadd.{self.suffix}({self.scalar} {zero}, {self.vector} {values})"
        return self.new(f"call reassoc {self.scalar} {call}")

    def loop(self, begin: str, end: str, step: int, body: Turn, carried: Sequence[str] = ()) -> list[str]:
        """Turns from `begin` to before `end`; returns the registers that were carried along."""
        self.count += 1
        head, inside, done = (f"{part}{self.count}" for part in ("head", "body", "done"))
        before = self.block
        self.say(f"br label %{head}")
        self.lines.append(f"{head}:")
        self.block = head
        place = len(self.lines)
        names = [f"%{head}c{i}" for i in range(len(carried) + 1)]
        self.lines += [""] * len(names)
        going = self.new(f"icmp slt i64 {names[0]}, {end}")
        self.say(f"br i1 {going}, label %{inside}, label %{done}")
        self.lines.append(f"{inside}:")
        self.block = inside
        after = body(names[0], names[1:]) or []
        following = self.add(names[0], str(step))
        self.say(f"br label %{head}")
        kinds = ["i64"] + [self.vector] * len(carried)
        entries = zip(names, kinds, [begin, *carried], [following, *after], strict=True)
        for index, (name, kind, first, last) in enumerate(entries):
            self.lines[place + index] = f"  {name} = phi {kind} [ {first}, %{before} ], [ {last}, %{self.block} ]"
        self.lines.append(f"{done}:")
        self.block = done
        return names[1:]

    def when(self, flag: str, body: Callable[[], None]) -> None:
        """What is done only if a flag is set."""
        self.count += 1
        inside, done = f"then{self.count}", f"after{self.count}"
        self.say(f"br i1 {flag}, label %{inside}, label %{done}")
        self.lines.append(f"{inside}:")
        self.block = inside
        body()
        self.say(f"br label %{done}")
        self.lines.append(f"{done}:")
        self.block = done

    @property
    def declarations(self) -> list[str]:
        """What the functions call."""
        v, m, s = self.vector, f"<{self.lanes} x i1>", self.suffix
        return [
            f"declare {v} @llvm.masked.load.{s}.p0(ptr, i32, {m}, {v})",
            f"declare {m} @llvm.get.active.lane.mask.v{self.lanes}i1.i64(i64, i64)",
            f"declare {v} @llvm.fma.{s}({v}, {v}, {v})",
            f"declare {v} @llvm.fabs.{s}({v})",
            f"declare {self.scalar} @llvm.vector.reduce.fadd.{s}({self.scalar}, {v})",
        ]


def write_dot(w: Writer, place: dict[str, str], given: list[str], out: list[str], n: str, p: str) -> None:
    """X b, and zeros for rows that are not there. given: b; out: (n,)."""
    padded = w.rounded(p, w.lanes)
    b = w.new(f"alloca {w.scalar}, i64 {padded}, align 64")

    def keep(j: str, _: list[str]) -> None:
        w.store(w.numbers(w.at(given[0], j), w.mask(j, p)), w.at(b, j))

    def some(rows: int) -> Turn:
        def body(first: str, _: list[str]) -> None:
            starts = [w.row(place, w.add(first, str(i))) for i in range(rows)]

            def columns(j: str, sums: list[str]) -> list[str]:
                part, mask = w.numbers(w.at(b, j)), w.mask(j, p)
                return [w.fma(w.numbers(w.at(start, j), mask), part, total) for start, total in zip(starts, sums, strict=True)]

            sums = w.loop("0", p, w.lanes, columns, ["zeroinitializer"] * rows)
            for i, total in enumerate(sums):
                w.store_at(out[0], w.add(first, str(i)), w.total(total))

        return body

    w.loop("0", p, w.lanes, keep)
    fours = w.times(w.new(f"udiv i64 {place['rows']}, 4"), "4")
    w.loop("0", fours, 4, some(4))
    w.loop(fours, place["rows"], 1, some(1))
    w.loop(place["rows"], n, 1, lambda i, _: w.store_at(out[0], i, "0.0"))


def write_reach(w: Writer, place: dict[str, str], given: list[str], out: list[str], n: str, p: str) -> None:
    """The largest absolute value of each column. out: (p,)."""

    def columns(j: str, _: list[str]) -> None:
        mask = w.mask(j, p)

        def row(i: str, largest: list[str]) -> list[str]:
            part = w.numbers(w.at(w.row(place, i), j), mask)
            size = w.new(f"call {w.vector} @llvm.fabs.{w.suffix}({w.vector} {part})")
            larger = w.new(f"fcmp ogt {w.vector} {size}, {largest[0]}")
            return [w.new(f"select <{w.lanes} x i1> {larger}, {w.vector} {size}, {w.vector} {largest[0]}")]

        (largest,) = w.loop("0", place["rows"], 1, row, ["zeroinitializer"])
        for i in range(w.lanes):
            index = w.add(j, str(i))
            inside = w.new(f"icmp slt i64 {index}, {p}")
            value = w.new(f"extractelement {w.vector} {largest}, i64 {i}")
            w.when(inside, partial(w.store_at, out[0], index, value))

    w.loop("0", p, w.lanes, columns)


def write_normal(w: Writer, place: dict[str, str], given: list[str], out: list[str], n: str, p: str, k: str) -> None:
    """X'WX and X'R'. given: w (n,) and R (k, n); out: (p, p) and (p, k)."""
    wide = w.rounded(p, max(w.lanes, HIGH))
    high = w.add(wide, str(SIDE))
    plain = w.new(f"alloca {w.scalar}, i64 {w.times(wide, str(BLOCK))}, align 64")
    weighted = w.new(f"alloca {w.scalar}, i64 {w.times(high, str(BLOCK))}, align 64")
    sums = w.new(f"alloca {w.scalar}, i64 {w.times(high, wide)}, align 64")
    w.loop("0", w.times(high, wide), w.lanes, lambda i, _: w.store("zeroinitializer", w.at(sums, i)))

    def block(first: str, _: list[str]) -> None:
        rows = w.least(w.new(f"sub i64 {place['rows']}, {first}"), str(BLOCK))
        _write_down(w, place, given, (plain, weighted), first, rows, (n, p, k, wide, high))

        def strip(i: str, end: str, height: int) -> None:
            broad = BROAD * HIGH // height // 2 if height < HIGH else BROAD
            full = w.times(w.new(f"udiv i64 {end}, {broad * w.lanes}"), str(broad * w.lanes))
            into, left = w.at(sums, w.times(i, wide)), w.at(weighted, i)

            def tile(width: int) -> Turn:
                return lambda j, _: _tile(w, (height, width), (left, w.at(plain, j), w.at(into, j)), rows, (high, wide))

            w.loop("0", full, broad * w.lanes, tile(broad))
            w.loop(full, end, w.lanes, tile(1))

        def triangle(i: str, _: list[str]) -> None:
            below = w.add(w.new(f"udiv i64 {w.add(i, str(HIGH - 1))}, {w.lanes}"), "1")
            strip(i, w.least(w.times(below, str(w.lanes)), wide), HIGH)

        w.loop("0", wide, HIGH, triangle)
        w.loop(wide, w.add(wide, k), PAIR, lambda i, _: strip(i, wide, PAIR))

    w.loop("0", place["rows"], BLOCK, block)
    _put_away(w, sums, out, (p, k, wide))


def _write_down(
    w: Writer, place: dict[str, str], given: list[str], into: tuple[str, str], first: str, rows: str, sizes: tuple[str, ...]
) -> None:
    """Some rows, as they are and weighted, with the right-hand sides behind the latter."""
    n, p, k, wide, high = sizes

    def row(r: str, _: list[str]) -> None:
        index = w.add(first, r)
        start, weight = w.row(place, index), w.splat(w.number(w.at(given[0], index)))
        as_is, weighted = w.at(into[0], w.times(r, wide)), w.at(into[1], w.times(r, high))

        def columns(j: str, _: list[str]) -> None:
            part = w.numbers(w.at(start, j), w.mask(j, p))
            w.store(part, w.at(as_is, j))
            w.store(w.new(f"fmul {w.vector} {part}, {weight}"), w.at(weighted, j))

        w.loop("0", wide, w.lanes, columns)
        side = w.at(weighted, wide)
        for t in range(SIDE):
            w.store_at(side, str(t), "0.0")
        put = w.at(given[1], index)
        w.loop("0", k, 1, lambda t, _: w.store_at(side, t, w.number(w.at(put, w.times(t, n)))))

    w.loop("0", rows, 1, row)


def _tile(w: Writer, size: tuple[int, int], pointers: tuple[str, str, str], rows: str, strides: tuple[str, str]) -> None:
    """Add products of some rows to a tile, so many rows by so many registers."""
    height, width = size
    left, right, into = pointers
    high, wide = strides
    places = [w.at(into, w.add(w.times(str(i), wide), str(c * w.lanes))) for i in range(height) for c in range(width)]

    def row(r: str, sums: list[str]) -> list[str]:
        at_left, at_right = w.at(left, w.times(r, high)), w.at(right, w.times(r, wide))
        columns = [w.numbers(w.at(at_right, str(c * w.lanes))) for c in range(width)]
        after = []
        for i in range(height):
            factor = w.splat(w.number(w.at(at_left, str(i))))
            after += [w.fma(factor, column, sums[i * width + c]) for c, column in enumerate(columns)]
        return after

    for pointer, total in zip(places, w.loop("0", rows, 1, row, [w.numbers(pointer) for pointer in places]), strict=True):
        w.store(total, pointer)


def _put_away(w: Writer, sums: str, out: list[str], sizes: tuple[str, str, str]) -> None:
    p, k, wide = sizes

    def row(i: str, _: list[str]) -> None:
        def below(j: str, _: list[str]) -> None:
            value = w.number(w.at(sums, w.add(w.times(i, wide), j)))
            w.store_at(out[0], w.add(w.times(i, p), j), value)
            w.store_at(out[0], w.add(w.times(j, p), i), value)

        def score(t: str, _: list[str]) -> None:
            value = w.number(w.at(sums, w.add(w.times(w.add(wide, t), wide), i)))
            w.store_at(out[1], w.add(w.times(i, k), t), value)

        w.loop("0", w.add(i, "1"), 1, below)
        w.loop("0", k, 1, score)

    w.loop("0", p, 1, row)
