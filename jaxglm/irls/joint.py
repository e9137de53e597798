"""Negative binomial coefficients and overdispersion together, written for one fit.

The overdispersion alpha = 1 / theta maximises the profile likelihood l(alpha), or the adjusted one of Cox and Reid,

    l(alpha) - half the log-determinant of X'WX,

both at the coefficients that are best for that alpha, so that what the adjustment says includes how they follow alpha.
Each pass looks at the rows once and takes a step of Newton's method for both: the coefficients' step d = (X'VX)^-1 X's, with
V the observed weights, and alpha's from the profile's derivative and curvature by elimination,

    l' + c'd  and  l'' + c'(X'VX)^-1 c,   c = X' ds/dalpha,

with the adjustment's own, of whose curvature only the part is left out that comes from the coefficients' following.

Steps are taken in t = log(1 + alpha m), m the mean response: linear in alpha near the Poisson limit, which is the point
t = 0, and logarithmic where counts are overdispersed. A fit is Poisson where the likelihood falls from t = 0 on and the
iteration leads there. As in the plain pass, the end is checked, not the way; what is not decided is solved by
`jaxglm.theta` with all precautions.

Sources: Lawless (1987); Cox and Reid, Parameter orthogonality and approximate conditional inference (1987); McCarthy, Chen
and Smyth (2012) for their likelihood of counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.count_overdispersion import score
from jaxglm.designs import HIGHEST, Shared
from jaxglm.family import Family
from jaxglm.irls.carry import packed, unpacked
from jaxglm.irls.normal import PLAIN
from jaxglm.irls.ragged import Tiles, over_blocks
from jaxglm.irls.working import where_present
from jaxglm.linalg import LARGEST, Factor, Small, cholesky, small_solve
from jaxglm.links import STATIC
from jaxglm.rows import Rows, Totals, accumulate, fold

MOST = 25  # passes
TOLERANCE = 1e-9  # how far from the optimum estimates may be, in standard errors
FURTHEST = 1.5  # of a step of t
NEAR = 0.1  # of the number of rows: a squared step of the coefficients from which on observed weights are used
NEGLIGIBLE = 1e-9  # alpha times the mean response, what is less is Poisson
LARGEST_T = 23.0  # alpha times the mean response is 1e10
ROUNDING = 64.0  # in rounding units: what is left of sums of rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Counts:
    """One fit's data. rows: sound, in one piece, in which an absent row has weight zero and harmless values; family: the
    negative binomial with its link, of whatever theta; penalty: (p,)
    or None; keep: (p,), the columns that are not aliased;
    total_weight: the sum of prior weights; mean_response; adjusted: by Cox and Reid or not."""

    rows: Rows
    family: Family
    penalty: Array | None
    keep: Array
    total_weight: Array
    mean_response: Array
    adjusted: bool = field(default=False, metadata=STATIC)

    def alpha(self, t: Array) -> Array:
        """The overdispersion at t."""
        return jnp.expm1(t) / self.mean_response


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Seen:
    """What one look at the rows says. slope, curvature: of the profile, by alpha; step: (p,), of the coefficients at this
    alpha; follow: (p,), how they follow alpha; decrement: the squared length of the step; size: of the terms whose sum is
    the slope; information: minus the second derivative of the likelihood, with its adjustment, at fixed means;
    log_determinant: of X'WX, if the likelihood is adjusted; trusted: whether the Gram matrices can be, and all means are
    valid."""

    slope: Array
    curvature: Array
    step: Array
    follow: Array
    decrement: Array
    size: Array
    information: Array
    log_determinant: Array
    trusted: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Where a fit is. running; coefficients: (p,); t; length: of the last step, in standard errors; near: whether observed
    weights may be used; falls: whether the likelihood falls from the Poisson limit on; n_iterations; settled."""

    running: Array
    coefficients: Array
    t: Array
    length: Array
    near: Array
    falls: Array
    n_iterations: Array
    settled: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Estimate:
    """Where the iteration has led. alpha: zero is Poisson; coefficients: (p,); information: of alpha at fixed means;
    falls, n_iterations: see `State`; decided: whether this is the optimum."""

    alpha: Array
    coefficients: Array
    information: Array
    falls: Array
    n_iterations: Array
    decided: Array


def look(counts: Counts, coefficients: Array, alpha: Array, near: Array) -> Seen:
    """The profile at these coefficients. All the work on rows is here."""

    def first(part: Rows) -> tuple[Any, Totals]:
        row = working_counts(counts, part, coefficients, alpha)
        observed = jnp.where(near, row.observed, jnp.maximum(row.observed, row.weights))
        slopes, curvatures = score(part.y, row.mu, jnp.broadcast_to(alpha, row.mu.shape))
        prior, sides = jnp.maximum(part.weights, 0.0), jnp.stack([row.scores, -row.scores * row.ratio])
        sizes, invalid = jnp.abs(slopes) + part.y * row.ratio, (~row.valid).astype(prior.dtype)
        sums = (prior * slopes, prior * curvatures, prior * sizes, invalid)
        expected = part.design.gram(row.weights) if counts.adjusted else None
        return (part.design.normal(observed, sides), expected), Totals(jax.tree.map(jnp.sum, sums))

    ((gram, right), expected), totals = accumulate(counts.rows, first, _merged)
    slope, curvature, size, invalid = totals.sums
    pull = 0.0 if counts.penalty is None else counts.penalty * coefficients
    right = jnp.where(counts.keep[:, None], right.at[:, 0].add(-pull), 0.0)
    factor, increments = _solved(counts, gram, right)
    step, follow, cross = increments[:, 0], increments[:, 1], right[:, 1]
    found = Seen(
        slope=slope + jnp.sum(cross * step),
        curvature=curvature + jnp.sum(cross * follow),
        step=step,
        follow=follow,
        decrement=jnp.sum(right[:, 0] * step),
        size=size,
        information=-curvature,
        log_determinant=jnp.zeros((), gram.dtype),
        trusted=PLAIN.trusts(factor) & (invalid == 0),
    )
    return _adjusted(counts, coefficients, alpha, found, expected) if counts.adjusted else found


def _adjusted(counts: Counts, coefficients: Array, alpha: Array, found: Seen, expected: Array) -> Seen:
    """The same with Cox and Reid's adjustment; expected: X'WX."""
    factor, _ = _solved(counts, expected, found.step[:, None])
    pairs = counts.keep[:, None] & counts.keep
    inverse = jnp.where(pairs, factor.inverse(), 0.0)

    def second(part: Rows) -> tuple[Array, Totals]:
        row = working_counts(counts, part, coefficients, alpha)
        change = row.weights * row.ratio  # what the weights lose with alpha
        lever = part.design.quadratic(inverse)
        follows = row.drift * part.design.dot(found.follow)
        sums = (lever * (follows - change), lever * change, 2.0 * lever * change * row.ratio)
        return part.design.gram(change), Totals(jax.tree.map(jnp.sum, sums))

    loss, totals = accumulate(counts.rows, second, lambda a, b: (a[0] + b[0], a[1].merge(b[1])))
    rise, size, bow = totals.sums
    spread = jnp.matmul(inverse, loss, precision=HIGHEST)
    bend = 0.5 * (bow - jnp.sum(spread * spread.T))
    return replace(
        found,
        slope=found.slope - 0.5 * rise,
        curvature=found.curvature - bend,
        size=found.size + 0.5 * size,
        information=found.information + bend,
        log_determinant=_log_determinant(factor),
        trusted=found.trusted & PLAIN.trusts(factor),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Working:
    """Row-wise quantities, (n,), with the prior weights in them, zero for absent rows. weights: expected ones; observed;
    drift: the derivative by eta of the expected; scores; mu; ratio: mu / (1 + alpha mu), by which a row's score and weight
    fall with alpha; valid."""

    weights: Array
    observed: Array
    drift: Array
    scores: Array
    mu: Array
    ratio: Array
    valid: Array


def working_counts(counts: Counts, rows: Rows, coefficients: Array, alpha: Array) -> Working:
    """What rows say of coefficients and alpha."""
    family, prior = counts.family, jnp.maximum(rows.weights, 0.0)
    eta = where_present(family, rows, rows.eta(coefficients))

    def of_eta(e: Array) -> tuple[Array, Array, Array]:
        mean = family.link.mean(e)
        shrink = 1.0 / (1.0 + alpha * mean.mu)
        return (rows.y * mean.dlog_mu - mean.dmu_deta) * shrink, mean.dlog_mu * mean.dmu_deta * shrink, mean.mu

    (scores, weights, mu), (bend, drift, _) = jax.jvp(of_eta, (eta,), (jnp.ones_like(eta),))
    ratio, valid = mu / (1.0 + alpha * mu), family.valid_mean_at(eta, mu)
    return Working(prior * weights, -prior * bend, prior * drift, prior * scores, mu, ratio, valid)


def _merged(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a[0], b[0]), a[1].merge(b[1])


def _solved(counts: Counts, gram: Array, right: Array) -> tuple[Small | Factor, Array]:
    """A factored information matrix on the columns to keep, and the increments for these right-hand sides (p, k)."""
    keep = counts.keep
    gram = gram if counts.penalty is None else gram + jnp.diag(counts.penalty)
    unit = jnp.eye(len(keep), dtype=gram.dtype)
    gram = jnp.where(keep[:, None] & keep, gram, 0.0)
    if len(keep) <= LARGEST:
        factor, increments, _ = small_solve(gram, right, keep)
        return factor, jnp.where(keep[:, None], increments, 0.0)
    full = cholesky(jnp.where(keep[:, None] & keep, gram, unit))
    return full, full.unwhiten(full.whiten(right))


def _log_determinant(factor: Small | Factor) -> Array:
    """Of the information matrix on its independent columns."""
    if isinstance(factor, Small):
        return 2.0 * jnp.sum(jnp.where(factor.aliased, 0.0, jnp.log(jnp.diagonal(factor.upper))))
    return 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor.upper)) + jnp.log(factor.lengths))


def estimate(counts: Counts, start: Array) -> Estimate:
    """Estimate alpha and the coefficients, from those of the Poisson fit."""
    zero, dtype = jnp.zeros((), start.dtype), start.dtype
    limit = look(counts, start, zero, jnp.ones((), bool))
    falls = limit.slope <= ROUNDING * jnp.finfo(dtype).eps * limit.size
    first = State(
        running=limit.trusted,
        coefficients=start,
        t=jnp.log1p(_by_moments(counts, start) * counts.mean_response),
        length=zero + jnp.inf,
        near=jnp.zeros((), bool),
        falls=falls,
        n_iterations=jnp.zeros((), jnp.int32),
        settled=jnp.zeros((), bool),
    )

    def one_pass(carried: Array) -> Array:
        return packed(_advance(counts, unpacked(carried, first)), dtype)

    final = unpacked(jax.lax.while_loop(lambda carried: carried[0] > 0, one_pass, packed(first, dtype)), first)
    alpha = jnp.where(jnp.expm1(final.t) < NEGLIGIBLE, 0.0, counts.alpha(final.t))
    end = look(counts, final.coefficients, alpha, jnp.ones((), bool))
    return Estimate(
        alpha=alpha,
        coefficients=final.coefficients + end.step,
        information=end.information,
        falls=falls,
        n_iterations=final.n_iterations,
        decided=final.settled & end.trusted,
    )


def _by_moments(counts: Counts, coefficients: Array) -> Array:
    """The overdispersion that the residuals of the Poisson fit show, a row of large mean counting no more than its share."""

    def each(part: Rows) -> Totals:
        eta, prior = where_present(counts.family, part, part.eta(coefficients)), jnp.maximum(part.weights, 0.0)
        mu = counts.family.link.mean(eta).mu
        share = prior / (1.0 + mu / counts.mean_response)
        return Totals((jnp.sum(share * ((part.y - mu) ** 2 - mu)), jnp.sum(share * mu * mu)))

    excess, square = fold(counts.rows, each).sums
    return jnp.clip(excess / square, 0.01 / counts.mean_response, 100.0 / counts.mean_response)


def _advance(counts: Counts, state: State) -> State:
    """One step of both."""
    alpha = counts.alpha(state.t)
    seen = look(counts, state.coefficients, alpha, state.near)
    rise = alpha + 1.0 / counts.mean_response  # of alpha with t
    slope = seen.slope * rise
    curvature = seen.curvature * rise * rise + seen.slope * rise
    newton = -slope / jnp.where(curvature < 0, curvature, -1.0)
    move = jnp.clip(jnp.where(curvature < 0, newton, jnp.sign(slope)), -FURTHEST, FURTHEST)
    # Nothing leads past the Poisson limit, and to it only where the likelihood falls from there on.
    floor = jnp.where(state.falls, 0.0, 0.1 * state.t)
    t = jnp.minimum(jnp.maximum(state.t + move, floor), LARGEST_T)
    t = jnp.where(state.falls & (jnp.expm1(t) < NEGLIGIBLE), 0.0, t)
    moved = t - state.t
    length = jnp.sqrt(jnp.maximum(seen.decrement, 0.0) + moved**2 * jnp.abs(curvature))
    rounding = ROUNDING * jnp.finfo(t.dtype).eps
    blur = jnp.where(t > 0, seen.size * rise * jax.lax.rsqrt(jnp.abs(curvature) + rounding), 0.0)
    noise = rounding * (1.0 + blur)
    rate = jnp.where(state.n_iterations > 0, jnp.minimum(length / state.length, 1.0), 1.0)
    settled = (length * rate <= TOLERANCE * (1.0 - rate)) | (length <= noise)
    settled &= (curvature < 0) | (t == 0)
    n_iterations = state.n_iterations + 1
    coefficients = state.coefficients + seen.step + seen.follow * (counts.alpha(t) - alpha)
    may = jnp.isfinite(length) & seen.trusted & (t < LARGEST_T)
    return State(
        running=may & ~settled & (n_iterations < MOST),
        coefficients=coefficients,
        t=t,
        length=length,
        near=seen.decrement <= NEAR * counts.total_weight,
        falls=state.falls,
        n_iterations=n_iterations,
        settled=settled,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Group:
    """What a fit has besides rows. family; penalty: (p,) or None; keep, start: (p,)."""

    family: Family
    penalty: Any
    keep: Any
    start: Any


def pose_counts(rows: Rows, group: Group, adjusted: bool) -> Counts:
    """The fit of prepared `rows`."""

    def each(part: Rows) -> Totals:
        prior = jnp.maximum(part.weights, 0.0)
        return Totals((jnp.sum(prior), jnp.sum(prior * part.y)))

    total, response = fold(rows, each).sums
    mean = response / jnp.where(total > 0, total, 1.0)
    return Counts(rows, group.family, group.penalty, group.keep, total, jnp.where(mean > 0, mean, 1.0), adjusted)


@partial(jax.jit, static_argnames=("lanes", "adjusted"))
def estimate_shared(X: Any, y: Any, weights: Any, offset: Any, groups: Group, *, lanes: int, adjusted: bool) -> Estimate:
    """Estimate all fits of one design X (n, p), so many of them side by side. y, weights: (g, n); offset: (g, n) or None; the
    leaves of `groups` have a leading axis g, which must be a multiple of `lanes`."""
    shared = Shared.of(X.T)

    def one(y: Array, weights: Array, offset: Array | None, group: Group) -> Estimate:
        rows = Rows(shared, y, weights, offset).prepared(group.family, jnp.zeros(y.shape, bool))
        return estimate(pose_counts(rows, group, adjusted), group.start)

    blocks = jax.tree.map(lambda leaf: leaf.reshape(-1, lanes, *leaf.shape[1:]), (y, weights, offset, groups))
    found = jax.lax.map(lambda block: jax.vmap(one)(*block), blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)


@partial(jax.jit, static_argnames="adjusted")
def estimate_tiles(tiles: Tiles, groups: Group, *, adjusted: bool) -> Estimate:
    """Estimate the fits of a call of ragged groups; the leaves of `groups` have leading axes (T, lanes)."""
    return over_blocks(
        lambda rows, group, _: estimate(pose_counts(rows, group, adjusted), group.start), tiles, groups.family, groups
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Point(Group):
    """A fit at a given alpha, whose start are its coefficients."""

    alpha: Any


@partial(jax.jit, static_argnames="adjusted")
def profile_tiles(tiles: Tiles, points: Point, *, adjusted: bool) -> Seen:
    """What the rows of ragged groups say of given alphas and of the coefficients that are best for them."""

    def fit(rows: Rows, point: Point, _: Array) -> Seen:
        return look(pose_counts(rows, point, adjusted), point.start, point.alpha, jnp.ones((), bool))

    return over_blocks(fit, tiles, points.family, points)
