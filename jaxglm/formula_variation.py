"""What a formula makes of a table when one of its columns changes: which terms it takes part in, and their columns anew.

Whatever the formula learned from the table of the fit stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas

from jaxglm import formula, frames
from jaxglm.formula import Spec
from jaxglm.formula_parsing import columns_of

STACKED = 2**17  # rows of tables that are made into one


@dataclass(frozen=True)
class Varied:
    """A table's design, (N, p), and the sum of its offset(...) terms, (N,), at one setting of a column."""

    X: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class Part:
    """Some terms of a design: their spec, and where their columns are in the whole."""

    spec: Spec
    columns: np.ndarray


def about(spec: Spec, name: str) -> Part:
    """What a table's column takes part in: its terms, and the offset if it is in it."""
    using = [
        term for term, factors in spec.design_state.term_factors.items()
        if any(name in columns_of(factor, spec.levels) for factor in factors)
    ]  # fmt: skip
    columns = [j for term in using for j in spec.design_state.term_indices[term]]
    factors = [factor for term in using for factor in spec.design_state.term_factors[term]]
    part = replace(
        spec,
        names=tuple(spec.names[j] for j in columns),
        variables=tuple(dict.fromkeys(used for factor in factors for used in columns_of(factor, spec.levels))),
        design_state=spec.design_state.subset(using),
        offset_state=spec.offset_state if name in spec.offset_variables else None,
        terms=(),
    )
    return Part(part, np.array(columns, np.int64))


def is_linear_in(spec: Spec, name: str) -> bool:
    """Whether design and offset are linear in a variable: it is nothing but a factor of its own, in any term."""
    for state in (spec.design_state, spec.offset_state):
        for factors in [] if state is None else state.term_factors.values():
            using = [factor for factor in factors if name in columns_of(factor, spec.levels)]
            if any(factor.expr != name for factor in using):
                return False
    return True


def is_categorical(spec: Spec, name: str) -> bool:
    """Whether a variable is text, a category, or made one by C(...)."""
    if spec.levels[name] is not None:
        return True
    state = spec.design_state
    coded = {expression for expression, (kind, _) in state.encoder_state.items() if kind.value == "categorical"}
    return any(factor.expr in coded and name in columns_of(factor, spec.levels) for factor in state.factors)


def varied(spec: Spec, data: Any, name: str, settings: Sequence[Any]) -> list[Varied]:
    """The design and the offset of a table, once for each setting of one column: numbers (N,), or one number or level for
    all rows. A formula takes time to read, so small tables are stacked."""
    table, k = frames.frame(data, "data"), len(settings)
    parts = [(spec.variables, spec.design_state, len(spec.names))]
    if spec.offset_state is not None:
        parts.append((spec.offset_variables, spec.offset_state, len(spec.offset_state.column_names)))
    made = []
    for names, state, width in parts:
        here = ~frames.missing(table, names, formula.ROLE)
        out = np.full((k, len(table), width), np.nan if width else 0.0)
        if width and here.any():
            covariates, _ = formula.covariate_table(frames.keep(table, here), names, spec.levels)
            tables = [covariates.assign(**{name: _column(spec, name, setting, here)}) for setting in settings]
            if k * len(covariates) <= STACKED:
                tables = [pandas.concat(tables, ignore_index=True)]
            out[:, here] = np.concatenate([spec.made(state, one) for one in tables]).reshape(k, -1, width)
        made.append(out)
    offsets = np.zeros((k, len(table))) if len(made) == 1 else made[1].sum(axis=2)
    return [Varied(X, offset) for X, offset in zip(made[0], offsets, strict=True)]


def _column(spec: Spec, name: str, setting: Any, here: np.ndarray) -> Any:
    """A covariate at a setting, in the rows that are here."""
    known = spec.levels[name]
    if known is not None:
        codes = np.full(int(here.sum()), known.index(setting))
        return pandas.Categorical.from_codes(codes, categories=list(known))
    return np.broadcast_to(np.asarray(setting, np.float64), here.shape)[here]
