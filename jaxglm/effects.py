"""Average effects of variables on the mean: slopes and comparisons, with errors by the delta method.

A logit coefficient is not a change of probability. The average slope of a variable v is the mean over rows of dmu/dv, the
average comparison the mean of mu at one value of v less that at another, all else as it is in the row. Both are functions h of
the coefficients, with variance h' C h' for the covariance C of the fit, whatever that is.

A variable of the formula's table is what is changed, not a column of the design: through I(age^2), interactions, splines and
offset(...), whose parameters stay those of the fit. Designs that are linear in the variable are differentiated exactly, others
by a difference of fourth order. Derivatives of the mean come from automatic differentiation.

Where columns are aliased, a change is known if it moves no row along a direction that the fit's own rows are silent about (a
level that a group lacks, one of two collinear variables); otherwise it is NaN, where R would count the alias as zero.

Conventions are those of R's `marginaleffects` (`avg_slopes`, `avg_comparisons`): rows count alike whatever their prior weights,
numbers give slopes, and categories comparisons with their first level; except that intervals and tests follow t where the
dispersion is estimated, as everywhere here. Source: Arel-Bundock, Greifer and Heiss (2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglm import prediction
from jaxglm.averages import Average, add_passes, add_rows, silent_directions
from jaxglm.changes import Along, Change, Columns, of_columns, of_variables
from jaxglm.conclusions import Estimates, estimates
from jaxglm.contrasts import variances
from jaxglm.irls.solution import is_lost
from jaxglm.observations import Observations

PAYS = 2**18  # rows from which on programs for them pay


@dataclass(frozen=True)
class Sample:
    """The rows to average over: new ones, as `GLMResults.predict` takes them, or where data is None those of the fit."""

    data: Any = None
    groups: Any = None
    offset: Any = None
    exposure: Any = None

    def of(self, result: Any) -> tuple[Observations, Any]:
        """The rows, and where the design is a formula's, their table."""
        by_formula = result.table is not None and result.table.design is not None
        if self.data is None:
            rows = result._rows()
            return rows, _own_table(result) if by_formula else None
        asked = prediction.request(result, self.data, self.groups, self.offset, self.exposure)
        shape = (len(result), asked.X.shape[-2]) if asked.codes is None else asked.codes.shape
        zeros = np.zeros(asked.X.shape[-2])
        rows = Observations(asked.X, zeros, None, np.broadcast_to(asked.offset, shape), asked.codes, len(result))
        if not by_formula:
            return rows, None
        if isinstance(self.data, np.ndarray):
            raise ValueError("variables of a formula are changed in a table, so data must be a table, not an array")
        from jaxglm import frames

        return rows, frames.frame(self.data, "data")


def _own_table(result: Any) -> Any:
    """The table of a fit's rows. Raises ValueError where the result does not hold it."""
    from jaxglm import frames

    table = result.table
    if table.data is None:
        raise ValueError(
            "the effect of a variable needs the table that it is in, which a single group's result or one from a file does not "
            "hold; give data=, the rows to average over"
        )
    frame = frames.frame(table.data)
    return frame if table.used is None else frames.keep(frame, table.used)


def effects(result: Any, variables: Any, sample: Sample, type: str, level: float) -> Estimates:
    """See `GLMResults.effects`."""
    if type not in ("response", "link"):
        raise ValueError(f'type must be "response" or "link", not {type!r}')
    design = None if result.table is None else result.table.design
    rows, frame = sample.of(result)
    changes = of_columns(result, variables) if design is None else of_variables(design, frame, variables)
    found = _averages(result, rows, changes, type == "response")
    value = np.stack([one.value for one in found], axis=1)
    gradient = np.stack([one.gradient for one in found], axis=1)
    solution = result.solution
    aliased = solution.aliased & ~is_lost(solution.status)[:, None]
    gone = aliased[:, :, None] | aliased[:, None, :] if aliased.any() else None
    variance = variances(solution.covariance if gone is None else np.where(gone, 0.0, solution.covariance), gradient)
    names, contrasts = (tuple(getattr(change, field) for change in changes) for field in ("name", "contrast"))
    return estimates(result, names, value, np.maximum(variance, 0.0), level, contrast=contrasts)


def _averages(result: Any, rows: Observations, changes: list[Change], response: bool) -> list[Average]:
    """The averages of changes over the rows of every fit. Changes that are the same for all of the fits' own rows are left to
    passes over these, but in fits that are separated or that have aliased columns."""
    silent = silent_directions(result)
    totals = [Average.nothing(len(result), len(result.names)) for _ in changes]
    plain = ~result.solution.direction.any(axis=1)
    if silent is not None:
        plain &= ~silent.any(axis=(1, 2))
    quick = np.zeros(len(changes), bool)
    if rows is result.observations and rows.frequencies is None and np.prod(rows.shape) >= PAYS and plain.any():
        quick[:] = [isinstance(change.high, Along | Columns) and isinstance(change.low, Columns | None) for change in changes]
    alike, others = (
        [(change, total) for change, total, one in zip(changes, totals, quick, strict=True) if one == wanted]
        for wanted in (True, False)
    )
    if alike:
        add_passes(result, alike, response, plain)
        add_rows(result, rows, alike, response, silent, ~plain)
    add_rows(result, rows, others, response, silent, np.ones(len(result), bool))
    return [total.finished() for total in totals]
