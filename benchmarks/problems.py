"""What a benchmark problem is: arrays, a family, and how its fits lie in the arrays.

Every problem is many GLMs of one family with its usual link. Only how they are stored differs (`layout`), because that is
what a solver can use: designs of one's own, one design for all, rows of a long table, or one column that changes. What is
the same for all is `Problem.one`, which gives any of the fits as four plain arrays: the reference and every library that
fits one model at a time work from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

LINKS = {"gaussian": "identity", "binomial": "logit", "poisson": "log", "gamma": "log", "negative_binomial": "log"}
MISSING = -9  # the code of a missing feature
GOOD, SEPARATED, DEFICIENT = 0, 1, 2


@dataclass(frozen=True)
class Fit:
    """One GLM. X: (n, p); y: (n,); weights, offset: (n,) or None; theta: of the negative binomial, or None."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    offset: np.ndarray | None
    theta: float | None


@dataclass(frozen=True)
class Problem:
    """Many GLMs of one family.

    layout: how the g fits with p coefficients lie in the arrays,
        own: X (g, n, p), y (g, n), offset (g, n) or None;
        shared: X (n, p), y (n,) or (g, n), weights (g, n) or None, offset (n,) or None;
        ragged: X (N, p), y (N,), and bounds (g + 1,): fit i has the rows bounds[i] to bounds[i + 1];
        scan: X (n, p - 1), y (n,), and features (g, n), of which fit i has row i as its last column; rows where it is
            MISSING are left out of that fit;
        single: X (n, p), y (n,).
    theta: of the negative binomial, one number or (g,). flaws: (g,), GOOD, SEPARATED or DEFICIENT; None if all are good.
    """

    name: str
    what: str
    layout: str
    family: str
    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None = None
    offset: np.ndarray | None = None
    theta: np.ndarray | float | None = None
    features: np.ndarray | None = None
    bounds: np.ndarray | None = None
    flaws: np.ndarray | None = None

    @property
    def link(self) -> str:
        return LINKS[self.family]

    @property
    def fits(self) -> int:
        """g, the number of GLMs."""
        if self.layout == "single":
            return 1
        if self.features is not None:
            return len(self.features)
        if self.bounds is not None:
            return len(self.bounds) - 1
        leading = [values for values in (self.y, self.weights) if values is not None and values.ndim == 2]
        return len(leading[0])

    @property
    def p(self) -> int:
        """The number of coefficients of a fit."""
        return self.X.shape[-1] + (self.layout == "scan")

    @property
    def rows(self) -> int:
        """Rows of all fits together: what one iteration of all fits looks at."""
        return len(self.y) if self.layout in ("ragged", "single") else self.fits * self.X.shape[-2]

    @property
    def input_bytes(self) -> int:
        """The size of the arrays."""
        arrays = (self.X, self.y, self.weights, self.offset, self.features)
        return sum(values.nbytes for values in arrays if values is not None)

    @property
    def pass_bytes(self) -> int:
        """What one iteration of all fits has to read where a cache holds one fit but not all of them."""
        fitted = [self.features] if self.layout == "scan" else [self.X, self.y, self.weights, self.offset]
        if self.layout == "shared":
            fitted = [values for values in (self.y, self.weights) if values is not None and values.ndim == 2]
        return sum(values.nbytes for values in fitted if values is not None)

    @property
    def good(self) -> np.ndarray:
        """The fits that have one finite optimum."""
        return np.arange(self.fits) if self.flaws is None else np.flatnonzero(self.flaws == GOOD)

    def one(self, i: int) -> Fit:
        """Fit i, in float64."""
        if self.layout == "ragged":
            assert self.bounds is not None
            inside = slice(self.bounds[i], self.bounds[i + 1])
            return Fit(self.X[inside], self.y[inside], _part(self.weights, inside), _part(self.offset, inside), None)
        if self.layout == "scan":
            assert self.features is not None
            there = self.features[i] != MISSING
            X = np.column_stack([self.X, self.features[i].astype(np.float64)])[there]
            return Fit(X, self.y[there], None, None, None)
        X = self.X[i] if self.layout == "own" else self.X
        weights, offset = (None if v is None else v[i] if v.ndim == 2 else v for v in (self.weights, self.offset))
        theta = None if self.theta is None else float(np.broadcast_to(self.theta, self.fits)[i])
        return Fit(X, self.y[i] if self.y.ndim == 2 else self.y, weights, offset, theta)

    def take(self, places: np.ndarray) -> Problem:
        """The problem of some of the fits."""
        if len(places) == self.fits:
            return self
        flaws = None if self.flaws is None else self.flaws[places]
        if self.layout == "ragged":
            assert self.bounds is not None
            sizes = np.diff(self.bounds)[places]
            rows = np.concatenate([np.arange(self.bounds[i], self.bounds[i + 1]) for i in places])
            bounds = np.concatenate([[0], np.cumsum(sizes)])
            return replace(self, X=self.X[rows], y=self.y[rows], bounds=bounds, flaws=flaws)
        if self.layout == "scan":
            assert self.features is not None
            return replace(self, features=self.features[places], flaws=flaws)
        own = {name: getattr(self, name) for name in ("y", "weights", "offset") if np.ndim(getattr(self, name)) == 2}
        if self.layout == "own":
            own["X"] = self.X
        if isinstance(self.theta, np.ndarray):
            own["theta"] = self.theta
        return replace(self, flaws=flaws, **{name: values[places] for name, values in own.items()})

    def some(self, fits: int, rows: int) -> np.ndarray:
        """Places of at most so many fits with about so many rows in all, spread evenly; at least one."""
        count = min(self.fits, fits, max(1, rows * self.fits // self.rows))
        return np.linspace(0, self.fits - 1, count).round().astype(np.int64)


def _part(values: np.ndarray | None, inside: slice) -> np.ndarray | None:
    return None if values is None else values[inside]
