"""scikit-learn: its estimators without penalty, solved by Newton's method, in a loop."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adapters.interface import Job, Library, Setting, looped, one_by_one, require
from benchmarks.problems import Fit, Problem


def prepare(problem: Problem, setting: Setting) -> Job:
    from sklearn import linear_model

    require(problem.family != "negative_binomial", "has no negative binomial")
    newton = {"fit_intercept": False, "solver": "newton-cholesky"}

    def model() -> Any:
        if problem.family == "gaussian":
            return linear_model.LinearRegression(fit_intercept=False)
        if problem.family == "binomial":
            return linear_model.LogisticRegression(C=np.inf, **newton)
        kind = {"poisson": linear_model.PoissonRegressor, "gamma": linear_model.GammaRegressor}[problem.family]
        return kind(alpha=0.0, **newton)

    def fit(one: Fit) -> np.ndarray:
        y, weights = one.y, one.weights
        if one.offset is not None:  # a Poisson fit with an exposure is a fit of rates, weighted by the exposure
            assert problem.family == "poisson"
            weights = np.exp(one.offset)
            y = y / weights
        return model().fit(one.X, y, sample_weight=weights).coef_.ravel()

    places, fits = looped(problem)
    return one_by_one(places, fits, fit)


LIBRARY = Library(
    "sklearn",
    "newton-cholesky without penalty in a loop, NumPy arrays to coefficients",
    prepare,
    tolerance=1e-2,
    distribution="scikit-learn",
    module="sklearn",
)
