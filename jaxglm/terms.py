"""Terms of a model: which columns of the design belong together.

A formula makes one term of several columns (a factor's dummies), and a term may stand inside another (a in a:b), which is why
R's `drop.scope` offers only those that stand in no other. In an array every column is a term of its own, unless the user
gives sets of columns names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm.errors import did_you_mean, listed


@dataclass(frozen=True)
class Term:
    """name: as typed; columns: positions in the design; factors: what the term is the product of, nothing for the
    intercept."""

    name: str
    columns: tuple[int, ...]
    factors: frozenset[str]

    def inside(self, other: Term) -> bool:
        """Whether this is a part of another term, as a is of a:b."""
        return self.factors < other.factors


def terms_of(result: Any) -> list[Term]:
    """The terms of a result in the order of its columns: of its formula, or its columns, of which those that hold one number
    alone are intercepts."""
    return _of_formula(result) or _of_columns(result, ~np.isnan(result._rows().constants))


def names_of(result: Any) -> list[str]:
    """What the terms are called."""
    return [term.name for term in _named(result)]


def _named(result: Any) -> list[Term]:
    """The terms, without a look at the rows for what is an intercept."""
    return _of_formula(result) or _of_columns(result, [False] * len(result.names))


def _of_formula(result: Any) -> list[Term]:
    design = None if result.table is None else result.table.design
    return [] if design is None else list(design.terms)


def _of_columns(result: Any, constant: Sequence[bool]) -> list[Term]:
    found = enumerate(zip(result.names, constant, strict=True))
    return [Term(name, (j,), frozenset() if flat else frozenset([name])) for j, (name, flat) in found]


def selected(result: Any, asked: Any) -> list[Term]:
    """The terms that a user asks for: all that stand in no other, without the intercept (None); some by name; or a mapping
    from names to columns' names. Raises ValueError for unknown and for empty ones."""
    if asked is None:
        known = terms_of(result)
        free = [term for term in known if term.factors and not any(term.inside(other) for other in known)]
        if not free:
            raise ValueError("the model has nothing but an intercept, so there is no term to drop")
        return free
    if isinstance(asked, Mapping):
        sets = {str(name): _columns(result.names, name, columns) for name, columns in asked.items()}
        return [Term(name, columns, frozenset([name])) for name, columns in sets.items()]
    by_name = {term.name: term for term in _named(result)}
    names = [asked] if isinstance(asked, str) else list(asked)
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ValueError(f"there is no term {unknown[0]!r}.{did_you_mean(unknown[0], by_name)} Terms: {listed(by_name, 20)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"give different terms, at least one of {listed(by_name, 20)}, not {names!r}")
    return [by_name[name] for name in names]


def _columns(names: Sequence[str], label: Any, columns: Any) -> tuple[int, ...]:
    wanted = [columns] if isinstance(columns, str) else list(columns)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ValueError(f"term {label!r}: there is no column {unknown[0]!r}.{did_you_mean(unknown[0], names)}")
    if not wanted:
        raise ValueError(f"term {label!r} has no columns")
    return tuple(sorted({list(names).index(name) for name in wanted}))


def dropped(result: Any, term: Term) -> np.ndarray:
    """(p,): flags of the columns of a term."""
    out = np.zeros(len(result.names), bool)
    out[list(term.columns)] = True
    return out
