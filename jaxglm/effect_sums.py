"""What average effects need of the rows of one fit, as functions for `passes.over_fits`.

A slope along a direction that is the same for all rows needs the sums of f'(eta) and of f''(eta) x, for f the mean as a
function of eta, whatever the direction is. A comparison needs the sums of f(eta') and of f'(eta') x' at each of two settings x'
of the row. Rows count alike whatever their weights, and not at all where the weight is zero. Derivatives are automatic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.family import Family
from jaxglm.irls.working import where_present
from jaxglm.rows import Rows, Totals, fold


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Asked:
    """Of one fit, or with a leading axis of many. coefficients: (p,), 0 where aliased; keep: (p,), 1 for columns that are as
    they are in the rows and 0 for others; add: (p,), what is added to all rows."""

    coefficients: Any
    keep: Any
    add: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """Over the rows of one fit: how many there are; of values and of slopes; and of each column, (p,), times what makes the
    gradient."""

    count: Any
    value: Any
    slope: Any
    columns: Any


@dataclass(frozen=True)
class Slopes:
    """Sums for slopes: of f' (value and slope), and of f'' x. response: whether f is the mean, or eta itself."""

    response: bool

    def __call__(self, rows: Rows, family: Family, at: Asked) -> Sums:
        def of_row(eta: Array) -> tuple[Array, Array]:
            if not self.response:
                return jnp.ones_like(eta), jnp.zeros_like(eta)
            return jax.jvp(lambda e: family.link.mean(e).dmu_deta, (eta,), (jnp.ones_like(eta),))

        def look(part: Rows) -> Totals:
            first, second = of_row(where_present(family, part, part.eta(at.coefficients)))
            return _totals(part, first, first, second)

        return fold(rows, look).sums


@dataclass(frozen=True)
class Values:
    """Sums for one side of a comparison: of f, of f', and of f' x, with the columns as they are in the rows. response: whether
    f is the mean, or eta itself."""

    response: bool

    def __call__(self, rows: Rows, family: Family, at: Asked) -> Sums:
        kept, added = at.coefficients * at.keep, jnp.sum(at.coefficients * at.add)

        def look(part: Rows) -> Totals:
            eta = where_present(family, part, part.eta(kept) + added)
            if not self.response:
                return _totals(part, eta, jnp.ones_like(eta), jnp.ones_like(eta))
            mean = family.link.mean(eta)
            return _totals(part, mean.mu, mean.dmu_deta, mean.dmu_deta)

        return fold(rows, look).sums


def _totals(part: Rows, value: Array, slope: Array, of_columns: Array) -> Totals:
    def there(values: Array) -> Array:
        return jnp.where(part.present, values, 0.0)

    columns = part.design.transposed_dot(there(of_columns)[None, :])[:, 0]
    count = jnp.sum(jnp.where(part.present, 1.0, jnp.zeros_like(value)))
    return Totals(Sums(count, jnp.sum(there(value)), jnp.sum(there(slope)), columns))
