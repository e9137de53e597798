"""Whether coefficients are right: a reference that shares nothing with what is measured, and the distance to it.

The reference is Newton's method in NumPy, written for one fit and to be read: the score and the observed information of
the family, a step by Cholesky factorization, halved until the likelihood rises. It goes on until a step is shorter than
1e-8 standard errors and then takes one more, which by quadratic convergence leaves nothing but rounding.

The error of a fit is the largest |b - reference| / max(|reference|, standard error) over its coefficients, which takes
estimates near zero on the scale on which they are known. It is taken over a sample of the fits that have one finite
optimum, spread over the problem; what a library says of the others is held against how they were made (`faults`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.problems import DEFICIENT, GOOD, SEPARATED, Fit, Problem

SAMPLE = 25  # fits compared
SAMPLE_ROWS = 2_000_000  # and no more rows than this in all, but at least one fit
CHUNK = 2**17  # rows at a time
CONVERGED, PROVED_SEPARATED = 0, 1  # of `jaxglm.Status`


@dataclass(frozen=True)
class Found:
    """What a library found. coefficients: (g, p), of all fits it was given; status, rank, iterations: (g,), where it says."""

    coefficients: np.ndarray
    status: np.ndarray | None = None
    rank: np.ndarray | None = None
    iterations: np.ndarray | None = None


@dataclass(frozen=True)
class Reference:
    """The optimum of one fit: coefficients and standard errors, (p,)."""

    coefficients: np.ndarray
    standard_errors: np.ndarray


@dataclass(frozen=True)
class Row:
    """What Newton's method needs of rows at eta: minus the log-likelihood, its negative slope, the observed and the
    expected information, and Pearson's squared residual, each (n,), before weights."""

    loss: np.ndarray
    score: np.ndarray
    observed: np.ndarray
    expected: np.ndarray
    pearson: np.ndarray


def row_terms(family: str, y: np.ndarray, eta: np.ndarray, theta: float | None) -> Row:
    """The terms of each family with its link (see `problems.LINKS`)."""
    if family == "gaussian":
        one = np.ones_like(eta)
        return Row(0.5 * (y - eta) ** 2, y - eta, one, one, (y - eta) ** 2)
    if family == "binomial":
        mu = 0.5 * (1.0 + np.tanh(0.5 * eta))
        tail = np.exp(-np.abs(eta))
        w = tail / (1.0 + tail) ** 2
        return Row(np.logaddexp(0.0, eta) - y * eta, y - mu, w, w, (y - mu) ** 2 / w)
    mu = np.exp(eta)
    if family == "poisson":
        return Row(mu - y * eta, y - mu, mu, mu, (y - mu) ** 2 / mu)
    if family == "gamma":
        return Row(y / mu + eta, y / mu - 1.0, y / mu, np.ones_like(mu), (y / mu - 1.0) ** 2)
    assert theta is not None, family
    scale = 1.0 + mu / theta
    loss = (y + theta) * np.log(mu + theta) - y * eta
    return Row(loss, (y - mu) / scale, mu * (1.0 + y / theta) / scale**2, mu / scale, (y - mu) ** 2 / (mu * scale))


def start(fit: Fit, family: str) -> np.ndarray:
    """Zero where that is a sensible mean, otherwise the least-squares fit of log y."""
    if family in ("gaussian", "binomial"):
        return np.zeros(fit.X.shape[1])
    offset = 0.0 if fit.offset is None else fit.offset
    wanted = np.log(np.maximum(fit.y, 0.5)) - offset
    return np.linalg.solve(fit.X.T @ fit.X, fit.X.T @ wanted)


def sums(fit: Fit, family: str, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, float]:
    """Loss, score (p,), observed and expected information (p, p) and Pearson's statistic at b, summed over chunks of rows."""
    p = len(b)
    loss, score, observed, expected, pearson = 0.0, np.zeros(p), np.zeros((p, p)), np.zeros((p, p)), 0.0
    for begin in range(0, len(fit.y), CHUNK):
        part = slice(begin, begin + CHUNK)
        X, y = fit.X[part], fit.y[part]
        eta = X @ b if fit.offset is None else X @ b + fit.offset[part]
        prior = np.ones_like(y) if fit.weights is None else fit.weights[part]
        row = row_terms(family, y, eta, fit.theta)
        loss += float(prior @ row.loss)
        score += X.T @ (prior * row.score)
        observed += (X * (prior * row.observed)[:, None]).T @ X
        expected += (X * (prior * row.expected)[:, None]).T @ X
        pearson += float(prior @ row.pearson)
    return loss, score, observed, expected, pearson


def reference(fit: Fit, family: str, max_iterations: int = 100) -> Reference:
    """Newton's method to the optimum. Raises ArithmeticError where it does not get there."""
    b = start(fit, family)
    loss, score, observed, expected, pearson = sums(fit, family, b)
    last = False
    for _ in range(max_iterations):
        step = np.linalg.solve(observed, score)
        length = float(np.sqrt(step @ score))
        for halving in range(40):
            trial = sums(fit, family, b + step * 0.5**halving)
            if trial[0] <= loss + 1e-9 * (1.0 + abs(loss)):
                break
        b, (loss, score, observed, expected, pearson) = b + step * 0.5**halving, trial
        if last:
            known = family in ("binomial", "poisson", "negative_binomial")
            count = len(fit.y) if fit.weights is None else np.count_nonzero(fit.weights)
            dispersion = 1.0 if known else pearson / (count - len(b))
            return Reference(b, np.sqrt(dispersion * np.diag(np.linalg.inv(expected))))
        last = length < 1e-8 and halving == 0
    raise ArithmeticError("the reference did not converge")


class References:
    """The references of a problem's fits, each made when it is first asked for."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._known: dict[int, Reference] = {}

    def __getitem__(self, place: int) -> Reference:
        if place not in self._known:
            self._known[place] = reference(self._problem.one(place), self._problem.family)
        return self._known[place]


def sampled(problem: Problem, places: np.ndarray) -> np.ndarray:
    """Which of the places (of fits that a job has) are compared: positions in `places`, of good fits, spread evenly."""
    good = np.arange(len(places)) if problem.flaws is None else np.flatnonzero(problem.flaws[places] == GOOD)
    count = min(len(good), SAMPLE, max(1, SAMPLE_ROWS * problem.fits // problem.rows))
    return good[np.linspace(0, len(good) - 1, count).round().astype(np.int64)]


def largest_error(problem: Problem, references: References, places: np.ndarray, coefficients: np.ndarray) -> float:
    """The largest error over the sample. coefficients: (k, p), or (k, q) if only the last q are known; NaN is infinite."""
    worst = 0.0
    for position in sampled(problem, places):
        known = references[int(places[position])]
        found = coefficients[position]
        b, error = known.coefficients[-len(found) :], known.standard_errors[-len(found) :]
        gap = np.max(np.abs(found - b) / np.maximum(np.abs(b), error))
        worst = max(worst, float(gap) if np.isfinite(gap) else np.inf)
    return worst


def faults(problem: Problem, places: np.ndarray, found: Found) -> list[str]:
    """Where a library says of each fit what became of it: how many of each kind it got wrong, in words."""
    if found.status is None or found.rank is None:
        return []
    flaws = np.full(len(places), GOOD) if problem.flaws is None else problem.flaws[places]
    wrong = {
        "good fits did not converge": (flaws == GOOD) & (found.status != CONVERGED),
        "separated fits were not found": (flaws == SEPARATED) & (found.status != PROVED_SEPARATED),
        "rank-deficient fits were not found": (flaws == DEFICIENT) & (found.rank != problem.p - 1),
    }
    return [f"{np.sum(which):,} {what}" for what, which in wrong.items() if which.any()]
