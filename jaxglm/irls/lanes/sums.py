"""Sums of products: eta, X'WX and X'r, which is what most instructions of a fit are.

A sum of sums is one sum, so that each term that is a product is added by the instruction that multiplies. And where terms are
added to what was there before, as those of each chunk to the entries of X'WX, factors that came from memory are read again: an
instruction that multiplies takes a factor from memory at no cost, while a compiler that sees one number used for many entries
would read it once and, for want of registers, put it away and fetch it back. Hence these loads are volatile.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxglm.irls.lanes.code import Code, Number, is_one
from jaxglm.irls.lanes.entries import Untranslatable


class Sums:
    """Writes sums and products into a `Code`, and remembers what they are made of, by the text of the number.

    terms: of what is a sum; factors: of what is a product; loads: the instruction that loads what came from memory; weighted:
    factors that are products, such as w x_i, made again for the entries of one row of X'WX.
    """

    def __init__(self, code: Code) -> None:
        self.code = code
        self.terms: dict[str, Sequence[Number]] = {}
        self.factors: dict[str, tuple[Number, Number]] = {}
        self.loads: dict[str, str] = {}
        self.weighted: dict[str, Number] = {}

    def loaded(self, number: Number, load: str) -> Number:
        """A number that an instruction has loaded."""
        self.loads[number.text] = load.replace("load", "load volatile", 1)
        return number

    def product(self, a: Number, b: Number) -> Number:
        """The product of two floating-point numbers."""
        if is_one(a) or is_one(b):
            return b if is_one(a) else a
        made = self.code.binary("fmul contract", a, b)
        self.factors[made.text] = a, b
        return made

    def sum(self, terms: Sequence[Number], before: Number | None = None) -> Number:
        """A sum, begun with what is there before."""
        total = before
        for term in terms if before is None else self._again(terms):
            total = term if total is None else self.code.binary("fadd contract", total, term)
        if total is None:
            raise Untranslatable("a sum of nothing")
        if before is None and len(terms) > 1:
            self.terms[total.text] = terms
        return total

    def _again(self, terms: Sequence[Number]) -> Sequence[Number]:
        """Terms that are products, multiplied again from what is in memory."""
        if any(term.text not in self.factors for term in terms):
            return terms
        pairs = [self.factors[term.text] for term in terms]
        if any(a.text not in self.weighted for a, _ in pairs):
            self.weighted = {a.text: self._factor(a) for a, _ in pairs}
        return [self.code.binary("fmul contract", self.weighted[a.text], self._read(b)) for a, b in pairs]

    def _factor(self, number: Number) -> Number:
        a, b = self.factors.get(number.text, (None, None))
        return self._read(number) if a is None or b is None else self.code.binary("fmul contract", self._read(a), self._read(b))

    def _read(self, number: Number) -> Number:
        """A number as it lies in memory, or itself if it does not."""
        if number.text not in self.loads:
            return number
        name = self.code.name()
        self.code.lines.append(f"  {name} = {self.loads[number.text]}")
        return Number(name, number.kind, number.uniform)
