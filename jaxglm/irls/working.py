"""The working quantities of IRLS: what each row contributes at a given linear predictor.

Linearise the link at eta: the working response is z = eta + (y - mu) deta/dmu, with variance V (deta/dmu)^2 / weight. So
the rows of positive prior weight enter a weighted least-squares problem with working weights W = w (dmu/deta)^2 / V. We
solve it for the increment of b and not for b itself: X'WX d = X's with s = w (y - mu) dmu/deta / V, the score of each
row. That is the same step, but its rounding errors shrink with s, which keeps the accuracy of a QR factorization up to
condition numbers near 1e6. Source: McCullagh and Nelder (1989), section 2.5.

Under links that are not canonical, the derivative of the score has a second part, with y - mu in it, whose expectation
is zero. Fisher scoring leaves it out and converges linearly. Here a row's weight is the larger of the observed weight
and a fraction `floor` of the expected one. At least the observed weight always, so that a full step does not overshoot;
positive always, so that the step is uphill; and equal to the observed weight near the optimum, so that convergence is
quadratic wherever no row's observed weight is negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.family import Family
from jaxglm.rows import HARMLESS, Rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Working:
    """Row-wise quantities at one eta, zero for absent rows. All have shape (n,).

    weights: the working weights; scores: minus half the derivative of the deviance by eta; loss: half the rows' part of
    the deviance, up to what depends on y alone, infinite where eta or mu are outside of their domains; deviance: the
    rows' part of it, to full accuracy; chi_square: their part of Pearson's statistic; valid: whether eta and mu are inside
    of their domains.
    """

    weights: Array
    scores: Array
    loss: Array
    deviance: Array
    chi_square: Array
    valid: Array


def working(family: Family, rows: Rows, eta: Array, floor: Array | None = None) -> Working:
    """The working quantities of `rows` at `eta`: with expected weights, or, given a `floor`, with observed ones."""
    eta = where_present(family, rows, eta)
    mean = family.link.mean(eta)
    expected = family.weight_at(mean)
    weights = expected if floor is None else _observed(family, rows, eta, expected, floor)
    prior, score, valid = jnp.maximum(rows.weights, 0.0), family.score_at(rows.y, mean), family.valid_mean_at(eta, mean.mu)
    # (y - mu)^2 / V(mu), in a form that does not divide 0 by 0 where mu has reached the end of its range.
    square = jnp.where(expected > 0, score * (score / jnp.where(expected > 0, expected, 1.0)), 0.0)
    return Working(
        weights=prior * weights,
        scores=prior * score,
        loss=jnp.where(valid, prior * family.loss_at(rows.y, mean), jnp.inf),
        deviance=prior * family.unit_deviance_at(rows.y, mean),
        chi_square=prior * square,
        valid=valid,
    )


def where_present(family: Family, rows: Rows, eta: Array) -> Array:
    """eta, with a harmless value where a row is absent, so that nothing computed from it is NaN."""
    return jnp.where(rows.present, eta, family.link(jnp.asarray(HARMLESS, eta.dtype)))


def _observed(family: Family, rows: Rows, eta: Array, expected: Array, floor: Array) -> Array:
    observed = family.observed_weight_at(rows.y, eta)
    return jnp.maximum(jnp.where(jnp.isfinite(observed), observed, expected), floor * expected)
