"""What can be concluded from a result: the methods of `GLMResults` beyond estimates and rows.

Each method is thin. What it does is in a module of its own, a function of a result; what that computes is in functions over
arrays there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxglm import comparisons, contrasts, effects, profile, robust
from jaxglm.conclusions import Comparisons, Estimates
from jaxglm.diagnosed import Diagnosed
from jaxglm.pictured import Pictured


class Inference(Diagnosed, Pictured):
    """Methods that `GLMResults` has for tests, intervals and further looks at its fits."""

    _squeezed: Any

    def robust(
        self,
        type: str | None = None,
        clusters: Any = None,
        *,
        correction: str = "HC0",
        cadjust: bool = True,
        degrees: Any = None,
    ) -> Any:
        """The same fits with a covariance that does not rest on the family's variance: a new `GLMResults`.

        type: "HC0" to "HC4" where rows are independent, as R's `sandwich::vcovHC` ("HC3" if nothing is said), or "cluster"
        where only clusters are, as `sandwich::vcovCL`. clusters: the name of a column of the table, or a label for each row,
        (N,), of many fits with n rows each (n,) or (g, n); for clusters of several kinds at once a tuple of those. correction:
        with clusters, "HC0" or "HC1"; cadjust: whether to multiply by C / (C - 1) with C clusters. degrees: statistics and
        intervals are normal if None, as of R's `lmtest::coeftest` on a glm, else t with these degrees of freedom: a number, one
        for each fit, "residual", or "clusters" (C - 1).

        Everything that rests on the covariance follows: errors, tests, intervals, predictions; `covariance_type` and the
        summary say which it is. Terms without a variance (aliased, infinite, of failed fits) have none here either. A fit of
        many with a single cluster gets NaN and a `StatusWarning`. Raises ValueError for unknown types, labels of another
        length, one fit with a single cluster, and a result without its rows, as a loaded one is.

        >>> import jaxglm
        >>> X, y = [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [1.0, 4.0]], [1, 2, 3, 9, 7]
        >>> fit = jaxglm.fit(X, y, family="poisson")
        >>> fit.robust("HC0").standard_errors.round(4).tolist()
        [0.2079, 0.0827]
        """
        return robust.robust(self, type, clusters, correction, cadjust, degrees)

    def bootstrap(self, replicates: int = 999, clusters: Any = None, *, intervals: str = "percentile", seed: Any = None) -> Any:
        """The same fits with the covariance and the intervals of a bootstrap: a new `GLMResults`.

        replicates: how often each fit is made again, from rows drawn with replacement; clusters: as of `robust`, then whole
        clusters are drawn; intervals: what `conf_int` and `tidy` give, "percentile", "bca" (as R's `boot.ci`), or "normal",
        from the covariance; seed: a whole number for draws that can be repeated. Tests are z, as of `robust`. Fits that did
        not converge get NaN; replicates without finite estimates are left out, with a `StatusWarning`. The replicates are
        kept, in `bootstrapped.coefficients` (g, replicates, p). Raises ValueError as `robust` does, and where percentiles as
        far out as a level asks for need more replicates.

        >>> import jaxglm
        >>> X, y = [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [1.0, 4.0], [1.0, 5.0]], [1.0, 2.2, 2.9, 4.1, 4.8, 6.3]
        >>> fit = jaxglm.fit(X, y).bootstrap(199, seed=1)
        >>> fit.covariance_type, fit.conf_int().shape
        ('bootstrap', (2, 2))
        """
        return robust.bootstrap(self, replicates, clusters, intervals, seed)

    def contrast(self, combinations: Any, values: Any = None, level: float = 0.95) -> Estimates:
        """Estimates of linear combinations of the coefficients, with errors, tests and intervals.

        combinations: text such as "livch[T.1] - livch[T.2]", a list of texts, a dict from names to texts, or a matrix (k, p);
        values: what they are tested against, if the texts do not say it ("age = 0.5"). NaN where an aliased or an infinite
        coefficient takes part. As R's `multcomp::glht`, one combination at a time. Raises ValueError for unknown terms.

        >>> import jaxglm
        >>> X = [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 1.0]] * 2
        >>> fit = jaxglm.fit(X, [1, 2, 4, 2, 4, 7], family="poisson", names=["a", "b", "c"])
        >>> fit.contrast("c - b").estimate.round(4).tolist()
        [0.6061]
        """
        return contrasts.contrast(self, combinations, values, level)

    def test(self, hypotheses: Any, values: Any = None, form: str | None = None) -> Comparisons:
        """A joint Wald test of linear hypotheses about the coefficients, for every fit.

        hypotheses, values: as for `contrast`; without "=" a combination is held against 0. form: "f" (where the dispersion
        is estimated, the default) or "chi-square". As R's `car::linearHypothesis`, whose default is the chi-square. NaN where
        an aliased or an infinite coefficient takes part. Raises ValueError for unknown terms and for contradictions.
        """
        return contrasts.test(self, hypotheses, values, form)

    def anova(self, *others: Any, test: str | None = None) -> Comparisons:
        """Test this model against others that it is nested in, or that are nested in it, for every group; without others, its
        terms one after the other. See `jaxglm.anova`."""
        return comparisons.anova(self, *others, test=test)

    def drop1(self, terms: Any = None, test: str | None = None) -> Comparisons:
        """Test what every term adds to the others, for every group: each is dropped and all groups fitted again.

        terms: names of terms of the formula, or of columns of an array; or a mapping from names to sets of columns; by default
        all terms that stand in no other, but the intercept. test: "lr", "f", "score" or "wald"; by default "f" where the
        dispersion is estimated, else "lr", and "wald" with sampling weights. As R's `drop1`, but see `jaxglm.comparisons` on
        its dispersions. Raises ValueError for unknown terms, for penalized fits, and for results without rows.
        """
        return comparisons.drop1(self, terms, test)

    def effects(
        self,
        variables: Any = None,
        data: Any = None,
        *,
        type: str = "response",
        level: float = 0.95,
        groups: Any = None,
        offset: Any = None,
        exposure: Any = None,
    ) -> Estimates:
        """Average effects of variables on the mean, over the rows of every fit, with errors by the delta method.

        variables: names of variables of the table (or of an array's columns), all by default; or a mapping from names to
        changes: None, a number to add, or a pair (from, to). Numbers give average slopes, categories and booleans comparisons
        of each level with the first. data: rows to average over instead of those of the fit, with groups, offset and exposure
        as `predict` takes them. type: "response", or "link" for effects on eta. As `avg_slopes` and `avg_comparisons` of
        R's marginaleffects, with t in place of z where the dispersion is estimated. NaN where a change
        leads out of what a fit's rows tell (a level that a group does not have); no error where a mean is at its limit.
        Raises ValueError for unknown variables.

        >>> import jaxglm
        >>> fit = jaxglm.fit([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]], [1, 2, 3, 9], family="poisson")
        >>> fit.effects("x2").estimate.round(4).tolist(), fit.effects({"x2": (0, 1)}).estimate.round(4).tolist()
        ([2.9011], [0.9703])
        """
        return effects.effects(self, variables, effects.Sample(data, groups, offset, exposure), type, level)

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
