"""statsmodels: `GLM(...).fit()` in a loop, as it comes."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adapters.interface import Job, Library, Setting, looped, one_by_one
from benchmarks.problems import Fit, Problem


def prepare(problem: Problem, setting: Setting) -> Job:
    import statsmodels.api as sm

    def family_of(fit: Fit) -> Any:
        families, links = sm.families, sm.families.links
        if fit.theta is not None:
            return families.NegativeBinomial(alpha=1.0 / fit.theta)
        if problem.family == "gamma":
            return families.Gamma(link=links.Log())
        return {"gaussian": families.Gaussian, "binomial": families.Binomial, "poisson": families.Poisson}[problem.family]()

    def fit(one: Fit) -> np.ndarray:
        model = sm.GLM(one.y, one.X, family=family_of(one), offset=one.offset, freq_weights=one.weights)
        return model.fit().params

    places, fits = looped(problem)
    return one_by_one(places, fits, fit)


LIBRARY = Library(
    "statsmodels",
    "GLM(...).fit() in a loop, NumPy arrays to results",
    prepare,
    distribution="statsmodels",
    module="statsmodels",
)
