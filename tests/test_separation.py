"""Infinite estimates: which groups have them, which terms, and what everything else tends to.

The oracle is independent of the iteration. Konis' linear programme tells whether a direction separates; the rows that it
moves are taken away until none is left to take; what remains is fitted by Newton's method. All groups of a family go
through one call, their designs padded by columns of zeros, so that each family is compiled once.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.special import expit, gammaln, xlogy

import jaxglm
from jaxglm import Ridge, Status, families

P = 5
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")]


class Group(NamedTuple):
    """The rows of one group: X (n, P), y, weights, offset (n,)."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    offset: np.ndarray


def group(X, y, weights=None, offset=None, width=P):
    """A group from its columns, padded by zeros, with unit weights and no offset if none are given."""
    X, y = np.asarray(X, float), np.asarray(y, float)
    X = np.pad(X, ((0, 0), (0, width - X.shape[1])))
    one, zero = np.ones(len(y)), np.zeros(len(y))
    return Group(X, y, one if weights is None else np.asarray(weights, float), zero if offset is None else np.asarray(offset))


def together(groups, family, **arguments):
    """Fit groups in one call; the keys are their places. An offset of zeros is left out, which compiles faster."""
    ids = np.repeat(np.arange(len(groups)), [len(g.y) for g in groups])
    X, y, weights, offset = (np.concatenate(part) for part in zip(*groups, strict=True))
    return jaxglm.fit(
        X, y, family=family, groups=ids, weights=weights, offset=offset if offset.any() else None, **arguments
    ), ids


def side(group, name):
    """The sign of the infinite eta that each row wants, 0 if a finite one."""
    zero = -(group.y == 0).astype(float)
    return zero if name == "poisson" else zero + (group.y == 1)


def separating(X, wanted):
    """The rows that the direction of separation with most rows moves, by a linear programme; (n,) flags."""
    gains, still = wanted[wanted != 0, None] * X[wanted != 0], X[wanted == 0]
    moved, k, p = np.zeros(len(X), bool), int(np.sum(wanted != 0)), X.shape[1]
    if k == 0:
        return moved
    found = linprog(
        np.repeat([0.0, -1.0], [p, k]),
        A_ub=np.hstack([-gains, np.eye(k)]),
        b_ub=np.zeros(k),
        A_eq=np.hstack([still, np.zeros((len(still), k))]) if len(still) else None,
        b_eq=np.zeros(len(still)) if len(still) else None,
        bounds=[(None, None)] * p + [(0.0, 1.0)] * k,
    )
    assert found.status == 0
    moved[wanted != 0] = found.x[p:] > 0.5
    return moved


@dataclass
class Limit:
    """What a group tends to. present: rows of positive weight; moved: rows fitted perfectly; estimates and errors of the
    rows that stay, NaN where these do not determine them."""

    separated: bool
    rank: int
    moved: np.ndarray
    mean: np.ndarray
    deviance: float
    log_likelihood: float
    estimates: np.ndarray
    errors: np.ndarray


def limit(group, name):
    """The oracle, for binomial responses under logit and Poisson responses under log."""
    rows = group.weights > 0
    X, y, w, offset = group.X[rows], group.y[rows], group.weights[rows], group.offset[rows]
    wanted, moved = side(group, name)[rows], np.zeros(len(y), bool)
    while (more := separating(X[~moved], wanted[~moved])).any():
        moved[np.flatnonzero(~moved)[more]] = True
    stay, mean_of = X[~moved], expit if name == "binomial" else np.exp
    _, values, right = np.linalg.svd(stay, full_matrices=True)
    basis = right[: np.sum(values > 1e-9 * np.max(values, initial=1.0))].T
    design, b = stay @ basis, np.zeros(basis.shape[1])
    deviance = _deviance(y[~moved], mean_of(offset[~moved]), w[~moved], name)
    for _ in range(200 if len(b) else 0):
        mu = mean_of(design @ b + offset[~moved])
        V = mu * (1.0 - mu) if name == "binomial" else mu
        step = np.linalg.solve(design.T @ (design * (w[~moved] * V)[:, None]), design.T @ (w[~moved] * (y[~moved] - mu)))
        trial = np.inf
        while not trial <= deviance * (1 + 1e-14) + 1e-14:
            with np.errstate(over="ignore"):
                trial = _deviance(y[~moved], mean_of(design @ (b + step) + offset[~moved]), w[~moved], name)
            b, step = (b + step, step) if trial <= deviance * (1 + 1e-14) + 1e-14 else (b, step / 2)
        deviance = trial
        if np.max(np.abs(step)) < 1e-13:
            break
    mean = np.where(wanted > 0, 1.0, 0.0)
    mean[~moved] = mean_of(design @ b + offset[~moved])
    V = mean[~moved] * (1.0 - mean[~moved]) if name == "binomial" else mean[~moved]
    covariance = basis @ np.linalg.inv(design.T @ (design * (w[~moved] * V)[:, None])) @ basis.T
    known = np.abs(1.0 - np.sum(basis**2, axis=1)) < 1e-9
    likelihood = float(np.sum(_likelihood(y, mean, w, name)))
    estimates = np.where(known, basis @ b, np.nan)
    errors = np.where(known, np.sqrt(np.abs(np.diag(covariance))), np.nan)
    rank = int(np.linalg.matrix_rank(X)) if len(X) else 0
    return Limit(bool(moved.any()), rank, moved, mean, _deviance(y, mean, w, name), likelihood, estimates, errors)


def _deviance(y, mean, w, name):
    with np.errstate(divide="ignore", invalid="ignore"):
        if name == "poisson":
            return float(2.0 * np.sum(w * (xlogy(y, y) - xlogy(y, mean) - (y - mean))))
        return float(2.0 * np.sum(w * (xlogy(y, y) - xlogy(y, mean) + xlogy(1 - y, 1 - y) - xlogy(1 - y, 1 - mean))))


def _likelihood(y, mean, w, name):
    if name == "poisson":
        return w * (xlogy(y, mean) - mean - gammaln(y + 1.0))
    choose = gammaln(w + 1.0) - gammaln(w * y + 1.0) - gammaln(w * (1.0 - y) + 1.0)
    return choose + xlogy(w * y, mean) + xlogy(w * (1.0 - y), 1.0 - mean)


x = np.arange(8.0) - 3.5
one = np.ones(8)
cell = np.repeat([0.0, 1.0], 4)
mixed = np.array([0, 1, 0, 1, 1, 0, 1, 0], float)

BINOMIAL = {
    "complete": group(np.c_[one, x], x > 0),
    "quasi-complete": group(np.c_[np.ones(9), np.append(x, 0.0)], np.append(x > 0, 1)),
    "two rows at the edge": group(np.c_[np.ones(10), np.append(x, [0.0, 0.0])], np.append(x > 0, [0, 1])),
    "a level all ones": group(np.c_[one, cell], np.where(cell == 1, 1, mixed)),
    "all zeros": group(np.c_[one, x], np.zeros(8)),
    "all zeros, no intercept, both signs": group(np.c_[x], np.zeros(8)),
    "offset": group(np.c_[one, x], x > 0, offset=3.0 * mixed - 1.0),
    "large offset": group(np.c_[one, cell], np.where(cell == 1, 1, mixed), offset=30.0 * x),
    "weights": group(np.c_[one, cell], np.where(cell == 1, 1, 0.25), weights=np.full(8, 4.0)),
    "hidden by a weight of zero": group(np.c_[one, x], np.append(x[:-1] > 0, False), weights=np.append(np.ones(7), 0.0)),
    "aliased": group(np.c_[one, x, 2.0 * x + 1.0, mixed], x > 0),
    "a combination": group(np.c_[one, mixed, x], mixed + 0.2 * x > 0.5),
    "nested": group(
        np.c_[np.ones(10), np.repeat([0, 1, 0], [3, 3, 4]), [0, 0, 0, 0, 0, 0, -2, -1, 1, 2]], [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    ),
    "nested in what a cell leaves": group(
        np.c_[np.ones(12), np.repeat([1, 0], [4, 8]), np.r_[mixed[:4], x]], np.r_[mixed[:4] * 0, x > 0.6]
    ),
    "a finite part against the direction": group(
        [[1, 0, 0, 1, 0], [1, 0, 1, 0, -1], [1, 0, 0, 1, -2], [1, 1, 1, 0, 0], [1, 1, 0, 0, 2]],
        [0, 0, 0, 2 / 3, 1],
        weights=[2, 1, 2, 3, 1],
    ),
    "one against a thousand": group(np.c_[np.ones(1000), np.arange(1000) == 7], np.arange(1000) % 2 == 1),
    "slow": group(np.c_[np.ones(1001), np.append(np.linspace(-1, 1, 1000), 0.02)], np.append(np.arange(1000) >= 500, 0)),
    "overlap by little": group(np.c_[one, x], [0, 0, 0, 1, 0, 1, 1, 1]),
    "levels near certainty": group(np.c_[np.ones(4), [0, 0, 1, 1]], [1e-4, 1e-4, 1 - 1e-4, 1.0], weights=np.full(4, 1e4)),
}
POISSON = {
    "a cell of zeros": group(np.c_[one, cell], np.where(cell == 1, 0, x + 4)),
    "all zeros": group(np.c_[one, x], np.zeros(8)),
    "one positive inside": group(np.c_[one, x], np.eye(8)[3]),
    "offset": group(np.c_[one, cell], np.where(cell == 1, 0, x + 4), offset=np.linspace(-5, 9, 8)),
    "far offset, aliased": group(np.c_[one, x, 2.0 * x], np.zeros(8), offset=np.full(8, 1e3)),
    "an interaction": group(np.c_[one, cell, mixed, cell * mixed], np.where(cell * mixed == 1, 0, x + 4)),
    "aliased": group(np.c_[one, cell, 1 - cell, x], np.where(cell == 1, 0, 4 + x)),
    "nested": group(
        np.c_[np.ones(10), np.repeat([0, 1, 0], [3, 3, 4]), [0, 0, 0, 0, 0, 0, 2, 1, 1, 2]], [1, 2, 3, 0, 0, 0, 0, 0, 0, 0]
    ),
    "nearly a cell of zeros": group(np.c_[one, cell], [5e5, 4e5, 6e5, 5e5, 0, 0, 0, 1]),
}
FINITE = {
    "binomial": {"slow", "overlap by little", "levels near certainty", "all zeros, no intercept, both signs"},
    "poisson": {"nearly a cell of zeros", "one positive inside"},
}


def random_groups(name, count=100):
    """Small groups of categorical covariates, weights and, in every other one, an offset."""
    rng = np.random.default_rng(len(name))
    for k in range(count):
        n = rng.integers(1, 30)
        three = rng.integers(0, 3, n)
        X = np.column_stack([np.ones(n), rng.integers(0, 2, n), three == 1, three == 2, rng.integers(-2, 3, n)])
        offset, weights = (k % 2) * rng.normal(size=n), rng.integers(0, 4, n).astype(float)
        weights[0] = 1.0
        eta = np.minimum(X @ rng.normal(size=P) * 1.5 + offset - (name == "poisson"), 5.0)
        trials = np.maximum(weights, 1).astype(int)
        y = rng.binomial(trials, expit(eta)) / trials if name == "binomial" else rng.poisson(np.exp(eta)).astype(float)
        yield Group(X, y, weights, offset)


NAMED = {"binomial": BINOMIAL, "poisson": POISSON}
LABELS = [f"{name}: {case}" for name in NAMED for case in [*NAMED[name], *range(100)]]


@pytest.fixture(scope="module")
def found():
    """By label: the group, its limit, its row of the result, its fitted values."""
    out = {}
    for name, cases in NAMED.items():
        groups = [*cases.values(), *random_groups(name)]
        fit, ids = together(groups, name)
        fitted = fit.fitted
        for k, case in enumerate([*cases, *range(100)]):
            inside = (ids == k) & (np.concatenate([g.weights for g in groups]) > 0)
            out[f"{name}: {case}"] = (groups[k], limit(groups[k], name), fit[k], fitted[inside])
    return out


def failures(found, check):
    """The labels whose (group, limit, fit, fitted) fail a check."""
    return [label for label in LABELS if not check(*found[label])]


def close(a, b, tolerance=1e-9):
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


def test_separated_exactly_when_a_linear_programme_says_so(found):
    def right(group, limit, fit, fitted):
        return fit.status == (Status.SEPARATED if limit.separated else Status.CONVERGED)

    assert failures(found, right) == []


@pytest.mark.parametrize("name", NAMED)
def test_named_cases_are_what_their_names_say(found, name):
    finite = {case for case in NAMED[name] if not found[f"{name}: {case}"][1].separated}
    assert finite == FINITE[name]


def test_ranks_count_the_columns_of_all_rows(found):
    assert failures(found, lambda group, limit, fit, fitted: fit.rank == limit.rank) == []


def test_deviances_are_the_infima(found):
    assert failures(found, lambda group, limit, fit, fitted: close(fit.deviance, limit.deviance)) == []


def test_log_likelihoods_are_the_suprema(found):
    assert failures(found, lambda group, limit, fit, fitted: close(fit.log_likelihood, limit.log_likelihood)) == []


def test_null_deviances_are_finite_and_not_below(found):
    def right(group, limit, fit, fitted):
        return np.isfinite(fit.null_deviance) and fit.null_deviance >= limit.deviance - 1e-8

    assert failures(found, right) == []


def test_moved_rows_are_fitted_perfectly_and_the_others_as_by_themselves(found):
    assert failures(found, lambda group, limit, fit, fitted: close(fitted, limit.mean, 1e-7)) == []


def test_the_coefficients_reproduce_the_deviance(found):
    def right(group, limit, fit, fitted):
        rows, name = group.weights > 0, fit.family.name
        eta = group.X[rows] @ np.nan_to_num(fit.coefficients) + group.offset[rows]
        with np.errstate(over="ignore"):
            mean = expit(eta) if name == "binomial" else np.exp(eta)
        return close(mean, limit.mean, 1e-7)

    assert failures(found, right) == []


def test_finite_terms_have_the_estimates_and_errors_of_the_rows_that_stay(found):
    def right(group, limit, fit, fitted):
        known = ~np.isnan(limit.estimates) & ~np.isnan(fit.coefficients) & (not np.isnan(fit.coefficients).any())
        errors, estimates = fit.standard_errors, fit.coefficients
        return (
            close(estimates[known], limit.estimates[known], 1e-6)
            and close(errors[known], limit.errors[known], 1e-6)
            and not fit.infinite[known].any()
        )

    assert failures(found, right) == []


def test_infinite_terms_have_large_values_of_their_sign_and_no_errors(found):
    def right(group, limit, fit, fitted):
        wild = fit.infinite != 0
        return (
            np.all(np.isnan(fit.standard_errors[wild]))
            and np.all(np.sign(fit.coefficients[wild]) == fit.infinite[wild])
            and np.all((np.abs(fit.coefficients) * np.max(np.abs(group.X), axis=0))[wild] > 1.0)
            and wild.any() == limit.separated
        )

    assert failures(found, right) == []


def test_infinite_signs_where_only_one_is_possible(found):
    signs = {
        "binomial: complete": [0, 1],
        "binomial: a level all ones": [0, 1],
        "binomial: large offset": [0, 1],
        "binomial: nested in what a cell leaves": [None, -1, 1],
        "poisson: a cell of zeros": [0, -1],
        "poisson: an interaction": [0, 0, 0, -1],
    }
    for label, wanted in signs.items():
        infinite = found[label][2].infinite[: len(wanted)]
        for place, sign in enumerate(wanted):
            if sign is not None and not (label.endswith("complete") and place == 0):
                assert infinite[place] == sign, (label, place)


def test_slow_fits_converge_to_what_they_would_alone(found):
    for name in NAMED:
        for case in FINITE[name]:
            rows, _, fit, _ = found[f"{name}: {case}"]
            used = ~np.isnan(fit.coefficients)
            alone = limit(Group(rows.X[:, used], *rows[1:]), name)
            np.testing.assert_allclose(fit.coefficients[used], alone.estimates, rtol=1e-7, atol=1e-12)
            np.testing.assert_allclose(fit.standard_errors[used], alone.errors, rtol=1e-6)
    assert 12.0 < np.max(np.abs(found["poisson: nearly a cell of zeros"][2].coefficients[1])) < 16.0


def test_a_penalty_on_some_columns_leaves_the_others_free_to_diverge():
    names = ["complete", "a level all ones", "all zeros", "two rows at the edge"]
    cases = [group(BINOMIAL[name].X[:, :2], *BINOMIAL[name][1:], width=2) for name in names]
    slope, _ = together(cases, "binomial", penalty=Ridge(np.array([0.0, 1.0])))
    assert slope.status.tolist() == [Status.CONVERGED, Status.CONVERGED, Status.SEPARATED, Status.CONVERGED]
    assert slope.infinite[2].tolist() == [-1, 0]
    assert slope.deviance[2] == 0.0
    both, _ = together(cases, "binomial", penalty=Ridge(np.array([1.0, 1.0])))
    assert both.converged.all()
    intercept, _ = together(cases, "binomial", penalty=Ridge(np.array([1.0, 0.0])))
    assert intercept.status.tolist() == [Status.SEPARATED, Status.SEPARATED, Status.CONVERGED, Status.SEPARATED]
    assert intercept.infinite[[0, 1], 1].tolist() == [1, 1]


SMALL = {
    "complete": group(np.c_[one, x], x > 0, width=2),
    "a level all ones": group(np.c_[one, cell], np.where(cell == 1, 1, mixed), width=2),
    "all zeros": group(np.c_[one, x], np.zeros(8), width=2),
    "overlap": group(np.c_[one, x], [0, 0, 0, 1, 0, 1, 1, 1], width=2),
}


@pytest.mark.parametrize("link", ["probit", "cloglog", "cauchit"])
def test_other_links(link):
    fit, ids = together(list(SMALL.values()), families.Binomial(link))
    assert fit.status.tolist() == [Status.SEPARATED] * 3 + [Status.CONVERGED]
    np.testing.assert_allclose(fit.deviance[[0, 2]], 0.0, atol=1e-12)
    np.testing.assert_allclose(fit.deviance[1], 8.0 * np.log(2.0), rtol=1e-10)
    np.testing.assert_allclose(fit.log_likelihood[:3], -0.5 * fit.deviance[:3], atol=1e-10)
    assert fit.infinite[1].tolist() == [0, 1]
    np.testing.assert_allclose(fit.fitted[ids == 1], np.where(cell == 1, 1.0, 0.5), atol=1e-9)
    assert np.isfinite(fit.null_deviance).all()
    moved = np.isin(ids, [0, 2])
    np.testing.assert_array_equal(fit.fitted[moved], np.concatenate([x > 0, x * 0]))


def test_negative_binomial_zeros():
    cases = [POISSON[name] for name in ("a cell of zeros", "all zeros", "nearly a cell of zeros")]
    cases = [group(case.X[:, :2], *case[1:], width=2) for case in cases]
    fit, ids = together(cases, families.NegativeBinomial(2.0))
    assert fit.status.tolist() == [Status.SEPARATED, Status.SEPARATED, Status.CONVERGED]
    assert fit.infinite[0].tolist() == [0, -1]
    np.testing.assert_allclose(fit.coefficients[0, 0], np.log(2.0), rtol=1e-10)
    np.testing.assert_allclose(fit.standard_errors[0, 0], np.sqrt((1 / 2.0 + 1 / 2.0) / 4), rtol=1e-8)
    np.testing.assert_allclose(fit.fitted[ids == 0], np.where(cell == 1, 0.0, 2.0), atol=1e-12)


def test_optima_at_the_edge_of_the_domain_are_not_separation():
    log, _ = together([group(np.c_[one, x], [0, 0, 1, 0, 1, 1, 1, 1], width=2)], families.Binomial("log"))
    assert log.status[0] == Status.CONVERGED
    assert log.method[0] == "boundary"
    identity, _ = together([group(np.c_[one, x], [0, 0, 0, 1, 5, 9, 20, 30], width=2)], families.Poisson("identity"))
    assert identity.status[0] == Status.CONVERGED
    assert identity.method[0] == "boundary"


def test_deciding_takes_memory_for_the_rows_and_not_for_their_square(monkeypatch):
    """A group of many distinct rows that fails must not ask for a dense n x n programme."""
    from jaxglm import separation

    sizes = []
    eye = np.eye
    monkeypatch.setattr(separation.np, "eye", lambda n, *rest: (sizes.append(n), eye(min(n, 4000), *rest))[1])
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(3000), rng.uniform(-1, 1, 3000)])
    separation.decide(X, np.where(rng.uniform(size=3000) < 0.5, 1.0, -1.0), np.ones(2, bool))
    assert max(sizes, default=0) < 3000, "an identity matrix of as many rows as the group has"
