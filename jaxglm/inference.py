"""What can be concluded from a result: the methods of `GLMResults` beyond estimates and rows.

Each method is thin. What it does is in a module of its own, a function of a result; what that computes is in functions over
arrays there.
"""

from __future__ import annotations

from typing import Any

from jaxglm import comparisons, contrasts, effects
from jaxglm.conclusions import Comparisons, Estimates


class Inference:
    """Methods that `GLMResults` has for tests, intervals and further looks at its fits."""

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
        dispersion is estimated, else "lr". As R's `drop1`, but see `jaxglm.comparisons` on its dispersions. Raises ValueError
        for unknown terms, for penalized fits, and for results without rows.
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
