"""Instructions over lanes: the text of a program for a vector unit.

A number of the program is a `Number`: the same in all lanes, then it is one scalar, or one value a lane, then it is a
vector register. `Code` writes LLVM's language line by line. What has been computed is not computed again: every
instruction is looked up among those of the blocks around it first. Constants are kept apart as Python numbers, so that what
depends on constants alone is computed here.

Multiplications and additions may be contracted (`contract`), which the hardware does for free and which only takes
rounding errors away, a sum of sums is added up term by term, and a matrix product leaves out what is multiplied by an entry
that is known to be zero; nothing else about floating-point arithmetic is relaxed, so that infinities and NaN are what they are
everywhere else.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LLVM_TYPES = {"f64": "double", "f32": "float", "i64": "i64", "i32": "i32", "u64": "i64", "u32": "i32", "i8": "i8", "bool": "i1"}
KINDS: dict[np.dtype, str] = {
    np.dtype(np.float64): "f64",
    np.dtype(np.float32): "f32",
    np.dtype(np.int64): "i64",
    np.dtype(np.int32): "i32",
    np.dtype(np.uint64): "u64",
    np.dtype(np.uint32): "u32",
    np.dtype(np.int8): "i8",
    np.dtype(np.bool_): "bool",
}
DTYPES: dict[str, np.dtype] = {kind: dtype for dtype, kind in KINDS.items()}
ATTRIBUTES = 'nounwind "prefer-vector-width"="512" "min-legal-vector-width"="512"'  # of a function
COMMUTATIVE = frozenset(["fadd contract", "fmul contract", "add", "mul", "and", "or", "xor"])


@dataclass(frozen=True, slots=True)
class Number:
    """text: how the program calls it; kind: its type, a key of `LLVM_TYPES`; uniform: whether it is the same in all lanes;
    constant: its value where that is known, else None."""

    text: str
    kind: str
    uniform: bool
    constant: Any = None


def constant(value: Any, kind: str) -> Number:
    """A number that is known."""
    value = DTYPES[kind].type(value)
    if kind in ("f64", "f32"):
        text = f"0x{struct.unpack('<Q', struct.pack('<d', float(value)))[0]:016X}"
        if math.isnan(float(value)):
            text = "0x7FF8000000000000"
    elif kind == "bool":
        text = "true" if value else "false"
    else:
        text = str(int(value.astype(np.int64))) if kind == "u64" else str(int(value))
    return Number(text, kind, True, value)


class Code:
    """A function that is being written, for so many lanes. ready: takes the text of each function that it calls; functions: the
    names of those of the program, to which more are added."""

    def __init__(self, lanes: int, ready: Callable[[str], None], functions: list[str] | None = None) -> None:
        self.lanes, self.ready = lanes, ready
        self.vectors = {kind: f"<{lanes} x {scalar}>" for kind, scalar in LLVM_TYPES.items()}
        self.lines: list[str] = []
        self.scopes: list[dict[str, Number]] = [{}]
        self.count = 0
        self.block = "entry"
        self.declared: dict[str, str] = {}
        self.functions = [] if functions is None else functions
        self.room = 0  # numbers a lane that it exchanges with one of them

    def type_of(self, kind: str, uniform: bool) -> str:
        """LLVM's type of a number."""
        return LLVM_TYPES[kind] if uniform else self.vectors[kind]

    def name(self) -> str:
        """A new name."""
        self.count += 1
        return f"%v{self.count}"

    def known(self, key: str) -> Number | None:
        """What has been computed before, where it can be seen from here."""
        for scope in reversed(self.scopes):
            if key in scope:
                return scope[key]
        return None

    def write(self, kind: str, uniform: bool, text: str) -> Number:
        """The result of an instruction, written unless it is known."""
        found = self.known(text)
        if found is None or found.kind != kind:
            found = Number(self.name(), kind, uniform)
            self.lines.append(f"  {found.text} = {text}")
            self.scopes[-1][text] = found
        return found

    def wide(self, number: Number) -> str:
        """How a number is called as a vector."""
        if not number.uniform:
            return number.text
        scalar, vector = LLVM_TYPES[number.kind], self.type_of(number.kind, False)
        if number.constant is not None:
            return f"splat ({scalar} {number.text})"
        one = self.write(number.kind, False, f"insertelement {vector} poison, {scalar} {number.text}, i64 0")
        all_lanes = f"shufflevector {vector} {one.text}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
        return self.write(number.kind, False, all_lanes).text

    def spread(self, number: Number) -> Number:
        """The number as one a lane."""
        return number if not number.uniform else Number(self.wide(number), number.kind, False)

    def texts(self, operands: Sequence[Number]) -> tuple[bool, list[str]]:
        """Whether all operands are uniform, and how they are called for one instruction."""
        uniform = all(operand.uniform for operand in operands)
        return uniform, [operand.text if uniform else self.wide(operand) for operand in operands]

    def binary(self, operation: str, a: Number, b: Number, kind: str | None = None) -> Number:
        """An instruction with two operands of one type."""
        uniform = a.uniform and b.uniform
        left, right = (a.text, b.text) if uniform else (self.wide(a), self.wide(b))
        if operation in COMMUTATIVE and right < left:
            left, right = right, left
        return self.write(kind or a.kind, uniform, f"{operation} {self.type_of(a.kind, uniform)} {left}, {right}")

    def unary(self, operation: str, a: Number) -> Number:
        """An instruction with one operand."""
        return self.write(a.kind, a.uniform, f"{operation} {self.type_of(a.kind, a.uniform)} {a.text}")

    def convert(self, operation: str, a: Number, kind: str) -> Number:
        """The operand as another type."""
        source, target = self.type_of(a.kind, a.uniform), self.type_of(kind, a.uniform)
        return self.write(kind, a.uniform, f"{operation} {source} {a.text} to {target}")

    def select(self, which: Number, yes: Number, no: Number) -> Number:
        """yes where `which`, else no."""
        if which.constant is not None:
            return yes if which.constant else no
        if yes == no:
            return yes
        uniform, (flag, left, right) = self.texts((which, yes, no))
        flags, values = self.type_of("bool", uniform), self.type_of(yes.kind, uniform)
        return self.write(yes.kind, uniform, f"select {flags} {flag}, {values} {left}, {values} {right}")

    def call(self, function: str, operands: Sequence[Number], kind: str | None = None) -> Number:
        """An intrinsic function `llvm.<function>` of operands of one type."""
        uniform, texts = self.texts(operands)
        source = self.type_of(operands[0].kind, uniform)
        suffix = LLVM_TYPES[operands[0].kind].replace("double", "f64").replace("float", "f32")
        name = f"@llvm.{function}.{suffix if uniform else f'v{self.lanes}{suffix}'}"
        target = self.type_of(kind or operands[0].kind, uniform)
        self.declared[name] = f"declare {target} {name}({', '.join([source] * len(operands))})"
        arguments = ", ".join(f"{source} {text}" for text in texts)
        return self.write(kind or operands[0].kind, uniform, f"call {target} {name}({arguments})")

    def put(self, number: Number, address: str, place: int) -> None:
        """Store a number, one value a lane, so many numbers after an address."""
        scalar = LLVM_TYPES[number.kind]
        pointer = self.write("ptr", True, f"getelementptr {scalar}, ptr {address}, i64 {place * self.lanes}")
        self.lines.append(f"  store {self.type_of(number.kind, False)} {self.wide(number)}, ptr {pointer.text}, align 8")

    def take(self, kind: str, address: str, place: int) -> Number:
        """Load a number that has been stored, as it is now."""
        pointer = self.write("ptr", True, f"getelementptr {LLVM_TYPES[kind]}, ptr {address}, i64 {place * self.lanes}")
        name = self.name()
        self.lines.append(f"  {name} = load {self.type_of(kind, False)}, ptr {pointer.text}, align 8")
        return Number(name, kind, False)

    def any(self, flags: Number) -> Number:
        """Whether a flag is set in any lane: the same in all."""
        if flags.uniform:
            return flags
        bits = self.write("i64", True, f"bitcast <{self.lanes} x i1> {flags.text} to i{self.lanes}")
        return self.write("bool", True, f"icmp ne i{self.lanes} {bits.text}, 0")

    def text(self, name: str, parameters: str) -> str:
        """The function, which returns nothing, with what it calls declared."""
        head = f"define void @{name}({parameters}) noinline {ATTRIBUTES} {{\nentry:"
        room = [f"  %room = alloca [{self.room * self.lanes} x i64], align 64"] if self.room else []
        return "\n".join([*sorted(self.declared.values()), head, *room, *self.lines, "  ret void", "}"])

    def label(self, name: str) -> None:
        """Begin a block."""
        self.lines.append(f"{name}:")
        self.block = name

    def jump(self, name: str) -> None:
        """End a block."""
        self.lines.append(f"  br label %{name}")

    def branch(self, flag: Number, yes: str, no: str) -> None:
        """End a block one way or the other."""
        self.lines.append(f"  br i1 {flag.text}, label %{yes}, label %{no}")


def is_zero(number: Number) -> bool:
    """Whether a number is known to be zero."""
    return number.constant is not None and bool(number.constant == 0)


def is_one(number: Number) -> bool:
    """Whether a number is known to be one."""
    return number.constant is not None and bool(number.constant == 1)
