"""Average effects of variables on the mean: slopes and comparisons, with errors by the delta method.

A logit coefficient is not a change of probability. The average slope of a variable v is the mean over rows of dmu/dv, the
average comparison the mean of mu at one value of v less that at another, all else as it is in the row. Both are functions h of
the coefficients, with variance h' C h' for the covariance C of the fit, whatever that is.

A variable of the formula's table is what is changed, not a column of the design: through I(age^2), interactions, splines and
offset(...), whose parameters stay those of the fit. Designs that are linear in the variable are differentiated exactly, others
by a difference of fourth order. Derivatives of the mean come from automatic differentiation.

Conventions are those of R's `marginaleffects` (`avg_slopes`, `avg_comparisons`): rows count alike whatever their prior weights,
numbers give slopes, and categories comparisons with their first level; except that intervals and tests follow t where the
dispersion is estimated, as everywhere here. Source: Arel-Bundock, Greifer and Heiss (2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm import prediction
from jaxglm.changes import Change, Setting, of_columns, of_variables
from jaxglm.conclusions import Estimates, estimates
from jaxglm.contrasts import combined
from jaxglm.family import Family
from jaxglm.irls.problem import typed
from jaxglm.irls.solution import is_lost
from jaxglm.limits import infinite_eta
from jaxglm.observations import Observations, counted
from jaxglm.score_tests import products

OUTSIDE = 1e-6  # of the terms of a sum, what it has to be to count as different from zero


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
    silent = silent_directions(result)
    found = [_average(result, rows, change, type == "response", silent) for change in changes]
    value = np.stack([one.value for one in found], axis=1)
    gradient = np.stack([one.gradient for one in found], axis=1)
    solution = result.solution
    aliased = solution.aliased & ~is_lost(solution.status)[:, None]
    covariance = np.where(aliased[:, :, None] | aliased[:, None, :], 0.0, solution.covariance)
    spread = combined(np.zeros_like(solution.coefficients), covariance, gradient)[1]
    variance = np.diagonal(spread, axis1=1, axis2=2)
    names, contrasts = (tuple(getattr(change, field) for change in changes) for field in ("name", "contrast"))
    return estimates(result, names, value, np.maximum(variance, 0.0), level, contrast=contrasts)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Curve:
    """The mean of rows and its derivatives by eta."""

    mu: Any
    first: Any
    second: Any


def curve(family: Family, eta: np.ndarray) -> Curve:
    """Of each row; flat at an infinite eta. family: its parameters broadcast against eta."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _curve(typed(family, np.float64), jnp.asarray(eta)))


@jax.jit
def _curve(family: Family, eta: jax.Array) -> Curve:
    def slope(e: jax.Array) -> jax.Array:
        return family.link.mean(e).dmu_deta

    first, second = jax.jvp(slope, (eta,), (jnp.ones_like(eta),))
    flat = jnp.isinf(eta)
    return Curve(family.link.mean(eta).mu, jnp.where(flat, 0.0, first), jnp.where(flat, 0.0, second))


@dataclass(frozen=True)
class Local:
    """Of rows. value: the effect; factors, designs: numbers of rows, and the designs whose rows they multiply, the sum of which
    is the value's gradient by the coefficients; limit: whether some mean is at its limit, where there is no error."""

    value: np.ndarray
    factors: tuple[np.ndarray, ...]
    designs: tuple[np.ndarray, ...]
    limit: np.ndarray


@dataclass(frozen=True)
class Average:
    """Of every fit. value: (g,); gradient: (g, p), NaN where there is none."""

    value: np.ndarray
    gradient: np.ndarray


def _average(result: Any, rows: Observations, change: Change, response: bool, silent: np.ndarray | None) -> Average:
    """The average of a change over the rows of every fit; silent: see `silent_directions`. NaN where the change needs what
    the fit's rows do not tell."""
    g, p = len(result), len(result.names)
    value, count, limit, gradient = np.zeros(g), np.zeros(g), np.zeros(g), np.zeros((g, p))
    unknown = np.zeros(g)
    weights = rows.prior_weights() if rows.weights is not None or rows.own is not None else None
    base, family, by_code = rows.rows(rows.offset, 0.0), rows.family(result.family), rows.codes is not None
    b, direction = counted(result.solution), result.solution.direction
    for part, X in rows.pieces():
        here = np.ones(X.shape[:-1], bool) if weights is None else weights[part] > 0
        fits = part if rows.codes is None else np.maximum(rows.codes[part], 0)
        here = here if rows.codes is None else here & (rows.codes[part] >= 0)
        X = np.where(here[..., None], X, 0.0)
        own = jax.tree.map(lambda leaf: leaf[part] if np.ndim(leaf) and len(leaf) == rows.shape[0] else leaf, family)  # noqa: B023
        at = _At(own, np.where(here, base[part], 0.0), b[fits], direction[fits], response)
        changed = change.high(part, X)
        local = at.slopes(X, changed) if change.low is None else at.differences(changed, change.low(part, X))
        for out, each in ((value, local.value), (count, here * 1.0), (limit, local.limit * 1.0)):
            _add(out, fits, np.where(here, each, 0.0), by_code)
        for factor, design in zip(local.factors, local.designs, strict=True):
            _add_products(gradient, fits, np.where(here, factor, 0.0), design, by_code)
        if silent is not None:
            for design in (changed.X,) if change.low is None else local.designs:
                _add(unknown, fits, here & _leads_out(design, silent[fits], here.shape), by_code)
    with np.errstate(invalid="ignore", divide="ignore"):
        lost = unknown > 0
        gradient = np.where((lost | (limit > 0))[:, None], np.nan, gradient / count[:, None])
        return Average(np.where(lost, np.nan, value / count), gradient)


def silent_directions(result: Any) -> np.ndarray | None:
    """(g, p, p): for every aliased column the direction in which coefficients can move without changing any of the fit's rows,
    zeros for the others; None where nothing is aliased. What such a direction changes, the fit does not know."""
    solution = result.solution
    aliased = solution.aliased & ~is_lost(solution.status)[:, None]
    some = np.flatnonzero(aliased.any(axis=1))
    if not len(some) or result.observations is None:
        return None
    present = result.observations.prior_weights() > 0
    gram = products(result.observations, present * 1.0, np.zeros(present.shape))[0][some]
    size = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    size = np.where(size > 0, size, 1.0)
    gram = gram / size[:, :, None] / size[:, None, :]
    gone = aliased[some]
    kept = np.where(gone[:, :, None] | gone[:, None, :], np.eye(gone.shape[1]), gram)
    shares = np.linalg.solve(kept, np.where(~gone[:, :, None] & gone[:, None, :], gram, 0.0)) / size[:, :, None]
    out = np.zeros((len(aliased), *gram.shape[1:]))
    out[some] = np.where(gone[:, None, :], np.eye(gone.shape[1]) / size[:, :, None] - shares, 0.0)
    return out


def _leads_out(X: np.ndarray, silent: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which rows depend on a silent direction of their fit, of each row (m, p, p) or of fits (b, p, p)."""
    lines = "mp,mpq->mq" if len(shape) == 1 else "bnp,bpq->bnq"
    rows = np.broadcast_to(X, (*shape, silent.shape[-1]))
    change = np.abs(np.einsum(lines, rows, silent))
    scale = np.einsum(lines, np.abs(rows), np.abs(silent))
    return np.any(change > OUTSIDE * scale, axis=-1)


@dataclass(frozen=True)
class _At:
    """Some rows of fits. family: its parameters broadcast against rows; offset: in the rows' shape, (m,) or (b, n); b and
    direction: of each row's fit, (m, p), or of the fits, (b, p); response: whether effects are on the mean, not on eta."""

    family: Family
    offset: np.ndarray
    b: np.ndarray
    direction: np.ndarray
    response: bool

    def curve(self, design: Setting) -> tuple[Curve, np.ndarray]:
        """What is averaged as a function of eta, and which rows are at the limit."""
        X = np.broadcast_to(design.X, (*self.offset.shape, self.b.shape[-1])) if design.X.ndim == 1 else design.X
        eta = _eta(X, self.b, self.direction, self.offset.shape) + self.offset + design.offset
        line = Curve(eta, np.ones_like(eta), np.zeros_like(eta))
        return curve(self.family, eta) if self.response else line, np.isinf(eta)

    def slopes(self, X: np.ndarray, way: Setting) -> Local:
        """d mu / d v of rows, whose design changes by `way` with v."""
        change = _dot(way.X, self.b, self.offset.shape) + way.offset
        at, limit = self.curve(Setting(X, 0.0))
        return Local(at.first * change, (at.second * change, at.first), (X, way.X), limit & self.response)

    def differences(self, high: Setting, low: Setting) -> Local:
        """The mean of rows at one design less that at another."""
        (above, first), (below, second) = self.curve(high), self.curve(low)
        factors, limit = (above.first, -below.first), first | second
        return Local(above.mu - below.mu, factors, (high.X, low.X), limit)


def _dot(X: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """X b of rows: each with coefficients of its own, (m, p), or rows of b fits, (b, n)."""
    if len(shape) == 1:
        return np.sum(X * b, axis=-1)
    if X.ndim == 3:
        return np.einsum("bnp,bp->bn", X, b)
    return np.broadcast_to((b @ X.T) if X.ndim == 2 else (b @ X)[:, None], shape)


def _eta(X: np.ndarray, b: np.ndarray, direction: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """X b of rows, infinite where the direction of a separated fit takes it there."""
    eta = _dot(X, b, shape)
    if not direction.any():
        return eta
    way = infinite_eta(X, direction if len(shape) == 1 else direction[:, None, :])
    return np.where(way == 0, eta, np.copysign(np.inf, way))


def _add(out: np.ndarray, fits: Any, values: np.ndarray, by_code: bool) -> None:
    """Add values of rows to their fits."""
    if by_code:
        out += np.bincount(fits, values, len(out))
    else:
        out[fits] += values.sum(axis=1)


def _add_products(out: np.ndarray, fits: Any, factor: np.ndarray, X: np.ndarray, by_code: bool) -> None:
    """Add X' factor of every fit's rows."""
    if by_code:
        for j in range(out.shape[1]):
            column = np.broadcast_to(X, (len(factor), out.shape[1]))[:, j]
            out[:, j] += np.bincount(fits, np.where(factor == 0, 0.0, factor * column), len(out))
    elif X.ndim == 1:
        out[fits] += factor.sum(axis=1)[:, None] * X
    else:
        out[fits] += factor @ X if X.ndim == 2 else np.einsum("bn,bnp->bp", factor, X)
