"""What can be concluded from a result: the methods of `GLMResults` beyond estimates and rows.

Each method is thin. What it does is in a module of its own, a function of a result; what that computes is in functions over
arrays there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxglm import profile


class Inference:
    """Methods that `GLMResults` has for tests, intervals and further looks at its fits."""

    _squeezed: Any

    def profile_interval(self, level: float = 0.95, terms: Sequence[str | int] | None = None) -> np.ndarray:
        """(terms, 2): profile-likelihood intervals, on the scale of the coefficients; see `jaxglm.profile`.

        terms: names or places; all by default. An end is infinite where the profile never reaches the level, and NaN where
        a term is aliased, or where there is no likelihood or no fit. Raises ValueError for a level outside (0, 1), and for
        estimates that maximise no likelihood.

        >>> import jaxglm
        >>> fit = jaxglm.fit([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]], [1, 2, 3, 9], family="poisson")
        >>> fit.profile_interval(terms=["x2"]).round(4).tolist()
        [[0.2511, 1.4093]]
        """
        return self._squeezed(profile.intervals(self, level, terms))

    def profile_tests(self, value: float = 0.0, terms: Sequence[str | int] | None = None) -> profile.LikelihoodRatio:
        """Likelihood-ratio tests that each term is `value`, by the same profile; see `jaxglm.profile.LikelihoodRatio`.

        They are right for infinite estimates too, where Wald tests do not exist.
        """
        found = profile.ratio_tests(self, value, terms)
        return profile.LikelihoodRatio(self._squeezed(found.statistic), self._squeezed(found.p_value))
