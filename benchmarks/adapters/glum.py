"""glum: `GeneralizedLinearRegressor` without penalty in a loop. It is made for few fits of many rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adapters.interface import Job, Library, Setting, looped, one_by_one
from benchmarks.problems import Fit, Problem

FITS = 20


def prepare(problem: Problem, setting: Setting) -> Job:
    from glum import GeneralizedLinearRegressor, NegativeBinomialDistribution

    def family_of(fit: Fit) -> Any:
        if fit.theta is not None:
            return NegativeBinomialDistribution(theta=1.0 / fit.theta)
        return "normal" if problem.family == "gaussian" else problem.family

    def fit(one: Fit) -> np.ndarray:
        model = GeneralizedLinearRegressor(family=family_of(one), link=problem.link, alpha=0.0, fit_intercept=False)
        return model.fit(one.X, one.y, sample_weight=one.weights, offset=one.offset).coef_

    places, fits = looped(problem, FITS)
    return one_by_one(places, fits, fit)


LIBRARY = Library(
    "glum",
    "GeneralizedLinearRegressor(alpha=0).fit in a loop, NumPy arrays to coefficients",
    prepare,
    tolerance=1e-2,
    distribution="glum",
    module="glum",
)
