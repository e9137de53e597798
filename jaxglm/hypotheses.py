"""Linear hypotheses about coefficients, L b = values, from text, from a matrix, or both ways mixed with names.

Text is arithmetic in the names of the coefficients as they are printed, brackets and all: "age = 0", "livch[T.1] = livch[T.2]",
"2 * age - I(age^2) = 0.5". A name may stand in backticks. Where there is no "=", the combination is held against zero. It is
the language of R's `car::linearHypothesis` and `multcomp::glht`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm.errors import did_you_mean, listed

NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
OPERATORS = "+-*/()"
DEPENDENT = 1e-10  # of a row's length, what is left of it when those before it determine it


@dataclass(frozen=True)
class Hypotheses:
    """k linear combinations of p coefficients, and what they are held against. names: k; matrix: (k, p); values: (k,)."""

    names: tuple[str, ...]
    matrix: np.ndarray
    values: np.ndarray

    def independent(self) -> Hypotheses:
        """Without rows that those before them imply. Raises ValueError where rows contradict each other."""
        kept: list[int] = []
        basis = np.zeros((0, self.matrix.shape[1]))
        for i, row in enumerate(self.matrix):
            share = np.linalg.lstsq(basis.T, row, rcond=None)[0] if kept else np.zeros(0)
            if np.linalg.norm(row - share @ basis) > DEPENDENT * np.linalg.norm(row):
                kept.append(i)
                basis = self.matrix[kept]
                continue
            implied = share @ self.values[kept]
            if not np.isclose(implied, self.values[i], rtol=1e-9, atol=1e-9 * np.max(np.abs(self.values))):
                raise ValueError(
                    f"the hypotheses contradict each other: the others make {self.names[i]!r} equal to {implied:g}, "
                    f"not {self.values[i]:g}. Leave one of them out"
                )
        return Hypotheses(tuple(self.names[i] for i in kept), basis, self.values[kept])


def hypotheses(given: Any, values: Any, terms: Sequence[str]) -> Hypotheses:
    """Hypotheses about the coefficients `terms`.

    given: text, a list of texts, a mapping from names to texts, or a matrix (p,) or (k, p); values: numbers, () or (k,), where
    the texts have none. Raises ValueError and TypeError for what is no hypothesis about these coefficients.

    >>> from jaxglm.hypotheses import hypotheses
    >>> found = hypotheses(["age = 1", "u[T.b] - u[T.c]"], None, ["age", "u[T.b]", "u[T.c]"])
    >>> found.matrix.tolist(), found.values.tolist()
    ([[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]], [1.0, 0.0])
    """
    if isinstance(given, str):
        given = [given]
    labels = None
    if isinstance(given, Mapping):
        labels, given = tuple(map(str, given)), list(given.values())
    texts = not isinstance(given, np.ndarray) and any(isinstance(one, str) for one in given)
    if texts:
        wrong = [one for one in given if not isinstance(one, str)]
        if wrong:
            raise TypeError(f"hypotheses are all text or all numbers; {wrong[0]!r} stands among texts")
        read = [_read(text, terms) for text in given]
        matrix, known = np.array([row for row, _ in read]), np.array([value for _, value in read])
        labels = labels or tuple(text.strip() for text in given)
    else:
        matrix = _matrix(given, len(terms))
        known = np.zeros(len(matrix))
        labels = labels or tuple(_printed(row, terms) for row in matrix)
    if len(set(labels)) < len(labels):
        raise ValueError(f"a hypothesis is given twice: {listed(labels)}")
    empty = [label for label, row in zip(labels, matrix, strict=True) if not row.any()]
    if empty:
        raise ValueError(f"the hypothesis {empty[0]!r} is about no coefficient. Terms: {listed(terms, 20)}")
    return Hypotheses(labels, matrix, _values(values, known, texts))


def _matrix(given: Any, p: int) -> np.ndarray:
    try:
        matrix = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise TypeError("hypotheses are texts or a matrix of numbers, one row a hypothesis") from None
    matrix = matrix[None, :] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or matrix.shape[1] != p or len(matrix) == 0:
        raise ValueError(f"a matrix of hypotheses must have shape (k, {p}), a column for each coefficient, not {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("a matrix of hypotheses must hold finite numbers")
    return matrix


def _values(values: Any, known: np.ndarray, texts: bool) -> np.ndarray:
    if values is None:
        return known
    if texts and known.any():
        raise ValueError("the hypotheses say already what they are held against ('... = 0.5'); leave out values=")
    found = np.asarray(values, np.float64)
    if found.shape not in ((), known.shape) or not np.isfinite(found).all():
        raise ValueError(f"values must be finite numbers of shape ({len(known)},), one a hypothesis, not {values!r}")
    return np.broadcast_to(found, known.shape)


def _printed(row: np.ndarray, terms: Sequence[str]) -> str:
    """A row of a matrix as one would type it."""
    parts = []
    for factor, term in zip(row, terms, strict=True):
        if factor:
            size = "" if abs(factor) == 1 else f"{abs(factor):g} * "
            parts.append(("- " if factor < 0 else "+ ") + size + term)
    text = " ".join(parts)
    return text[2:] if text.startswith("+ ") else text.replace("- ", "-", 1)


def _read(text: str, terms: Sequence[str]) -> tuple[np.ndarray, float]:
    """A hypothesis as a row (p,) and the number that it is held against."""
    tokens = _tokens(text, terms)
    if tokens.count("=") > 1:
        raise ValueError(f"hypothesis {text!r}: one '=' a hypothesis; give a list of hypotheses for more")
    at = tokens.index("=") if "=" in tokens else len(tokens)
    total = _Reader(text, tokens[:at], len(terms)).whole()
    if "=" in tokens:
        total = total - _Reader(text, tokens[at + 1 :], len(terms)).whole()
    return total[:-1], 0.0 - float(total[-1])


def _tokens(text: str, terms: Sequence[str]) -> list[Any]:
    """Operators as text, numbers as floats, coefficients as their positions (int). The longest name that fits is read."""
    by_length = sorted(range(len(terms)), key=lambda j: -len(terms[j]))
    tokens: list[Any] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        if text[at] == "`":
            end = text.find("`", at + 1)
            name = text[at + 1 : end if end > 0 else len(text)]
            if name not in terms:
                raise ValueError(_unknown(text, name, terms))
            tokens.append(list(terms).index(name))
            at += len(name) + 2
            continue
        named = next((j for j in by_length if text.startswith(terms[j], at) and _ends(text, at + len(terms[j]))), None)
        number = NUMBER.match(text, at)
        if number and (named is None or len(terms[named]) <= len(number[0])) and _ends(text, number.end()):
            tokens.append(float(number[0]))
            at = number.end()
        elif named is not None:
            tokens.append(named)
            at += len(terms[named])
        elif text[at] in OPERATORS or text[at] == "=":
            at += 2 if text.startswith("==", at) else 1
            tokens.append(text[at - 1])
        else:
            raise ValueError(_unknown(text, _word(text[at:]), terms))
    return tokens


def _ends(text: str, at: int) -> bool:
    """Whether a name may end here."""
    return at >= len(text) or not (text[at].isalnum() or text[at] in "_.:[(^")


def _word(text: str) -> str:
    """What looks like one name at the beginning of a text."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if depth < 0 or (depth == 0 and (character.isspace() or character in "+-*/=")):
            return text[:i]
    return text


def _unknown(text: str, word: str, terms: Sequence[str]) -> str:
    inside = [term for term in terms if term.startswith(f"{word}[")]
    hint = f" It is a factor with the terms {listed(inside, 10)}." if inside else did_you_mean(word, terms)
    return f"hypothesis {text!r}: there is no term {word!r}.{hint} Terms: {listed(terms, 20)}"


@dataclass
class _Reader:
    """A parser of sums of products, by recursive descent. What it makes of an expression is (p + 1,): the factors of the
    coefficients and a number."""

    text: str
    tokens: list[Any]
    p: int
    at: int = 0

    def whole(self) -> np.ndarray:
        found = self._sum()
        if self.at < len(self.tokens):
            raise self._error("an operator is missing")
        return found

    def _error(self, what: str) -> ValueError:
        return ValueError(f"hypothesis {self.text!r}: {what}. Write sums of terms, such as 'a - 2 * b = 0.5'")

    def _next(self, *wanted: str) -> str | None:
        """The next token if it is one of these operators, which is then read."""
        if self.at < len(self.tokens) and isinstance(self.tokens[self.at], str) and self.tokens[self.at] in wanted:
            self.at += 1
            return str(self.tokens[self.at - 1])
        return None

    def _sum(self) -> np.ndarray:
        sign = self._next("+", "-")
        total = -self._product() if sign == "-" else self._product()
        while sign := self._next("+", "-"):
            total = total + (self._product() if sign == "+" else -self._product())
        return total

    def _product(self) -> np.ndarray:
        found = self._factor()
        while operator := self._next("*", "/"):
            other = self._factor()
            if operator == "/" and (other[:-1].any() or other[-1] == 0):
                raise self._error("it divides by a coefficient or by zero")
            if operator == "*" and found[:-1].any() and other[:-1].any():
                raise self._error("it multiplies coefficients, so it is not linear")
            found = found / other[-1] if operator == "/" else (found * other[-1] if found[:-1].any() else other * found[-1])
        return found

    def _factor(self) -> np.ndarray:
        if self.at >= len(self.tokens):
            raise self._error("something is missing at its end")
        if sign := self._next("+", "-"):
            return -self._factor() if sign == "-" else self._factor()
        if self._next("("):
            found = self._sum()
            if not self._next(")"):
                raise self._error("a bracket is not closed")
            return found
        token = self.tokens[self.at]
        if isinstance(token, str):
            raise self._error(f"{token!r} stands where a term or a number should")
        self.at += 1
        found = np.zeros(self.p + 1)
        found[token if isinstance(token, int) else -1] = 1.0 if isinstance(token, int) else token
        return found
