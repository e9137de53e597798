"""Tests of nested models, for all groups at once: analysis of deviance.

A model M with coefficients in fewer dimensions is held against a larger one. With D the deviance, r the rank, phi the
dispersion of the largest model (Pearson's where it is estimated) and n - r its residual degrees of freedom:

    lr     (D_small - D_large) / phi                            chi-square, r_large - r_small
    f      (D_small - D_large) / (r_large - r_small) / phi      F, r_large - r_small and n - r
    score  U' (X'WX)^-1 U / phi at the smaller fit              chi-square (Rao's test)
    wald   b' C^-1 b of the coefficients that are left out      chi-square, or where phi is estimated F

Where every model has a theta of its own, estimated by maximum likelihood, "lr" is twice the difference of log-likelihoods, as
MASS's `anova.negbin` has it, and "f" and "score" are not defined. In tests of one model's terms theta stays as it is.

Degrees of freedom are differences of ranks, so aliased columns count for nothing, and where the ranks are the same there is no
test. Deviances of separated fits are limits, which makes "lr" and "f" valid there; "score" needs a smaller fit that is not
separated, and "wald" coefficients that are finite.

As R's `anova.glm`, also for the sequence of terms and for dropping one. R's `drop1.glm` differs in two places, where it has
other dispersions: its F divides by the deviance over its degrees of freedom instead of Pearson's, and its likelihood ratio of
gaussian models is n log(D_small / D_large). Score tests of models without an intercept are Rao's here; R 4.2 subtracts a
mean there.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglm import terms
from jaxglm.conclusions import Comparisons
from jaxglm.contrasts import quadratic_form
from jaxglm.errors import did_you_mean
from jaxglm.irls.solution import Solution, is_lost
from jaxglm.nesting import require_nested, same_shapes
from jaxglm.reduced import refittable, without
from jaxglm.residuals import row_quantities
from jaxglm.score_tests import score_statistics
from jaxglm.status import Status, maximise_likelihood
from jaxglm.tails import upper_tail
from jaxglm.weights import repeated

KINDS = ("lr", "f", "score", "wald")
NEGLIGIBLE = 1e-8  # of a deviance: what a larger model may lose to a smaller by rounding


@dataclass(frozen=True)
class _Step:
    """A smaller model inside a larger one. larger: the result whose rows hold the larger design; larger_fit, smaller: their
    solutions, (g, p) each; gone: (p,), the larger design's columns that the smaller model lacks, None where its columns are not
    among these; smaller_rows: the result whose rows the smaller model's coefficients belong to; own_shapes: whether each of
    them has estimated shape parameters of its own."""

    larger: Any
    larger_fit: Solution
    smaller: Solution
    smaller_rows: Any
    gone: np.ndarray | None
    own_shapes: bool = False


def anova(*fits: Any, test: str | None = None) -> Comparisons:
    """Test nested models against each other, for every group; or one model's terms in their order.

    fits: results of the same rows, groups, family and link, each nested in the next larger one, in any order; or one result,
    whose terms (columns of arrays) are added one after the other, from the intercept on. test: "lr", "f", "score" or "wald";
    by default "f" where the dispersion is estimated, else "lr", and "wald" with sampling weights. Each model is tested against
    the next larger, with the dispersion of the largest. As R's `anova`. Raises ValueError for models that are not nested.

    >>> import jaxglm
    >>> X, y = [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]], [1, 2, 3, 9]
    >>> small, large = (jaxglm.fit([row[:k] for row in X], y, family="poisson") for k in (1, 2))
    >>> jaxglm.anova(small, large).p_value.round(4).tolist()
    [0.0028]
    """
    if not fits or not all(hasattr(fit, "solution") for fit in fits):
        raise TypeError("anova compares results of jaxglm.glm or fit: anova(small, large)")
    if len(fits) == 1:
        return _sequential(fits[0], test)
    ordered = sorted(fits, key=lambda fit: len(fit.names))
    for fit in ordered:
        refittable(fit)
    pairs = list(itertools.pairwise(ordered))
    for small, large in pairs:
        require_nested(small, large)
    kind = require_kind(ordered[-1], test)
    if kind in ("f", "score") and not all(same_shapes(*pair) for pair in pairs):
        raise ValueError(f'between models of which each has its own theta there is no {kind} test; use test="lr"')
    steps = [_between(small, large) for small, large in pairs]
    names = tuple(_added(small, large, place) for place, (small, large) in enumerate(pairs, 2))
    return _compared(ordered[-1], kind, names, steps)


def _between(small: Any, large: Any) -> _Step:
    own = not same_shapes(small, large)
    return _Step(large, large.solution, small.solution, small, _lacking(small, large), own)


def drop1(result: Any, asked: Any, test: str | None) -> Comparisons:
    """See `GLMResults.drop1`."""
    refittable(result)
    kind = require_kind(result, test)
    chosen = terms.selected(result, asked)
    gone = [terms.dropped(result, term) for term in chosen]
    steps = [_Step(result, result.solution, _reduced(result, columns), result, columns) for columns in gone]
    return _compared(result, kind, tuple(term.name for term in chosen), steps)


def _reduced(result: Any, gone: np.ndarray) -> Solution:
    """The fits without some columns, as the kind of the result's weights has them."""
    solution = without(result, gone)
    if result.weights_kind != "frequency":
        return solution
    made: Solution = repeated(replace(result, solution=solution)).solution
    return made


def _sequential(result: Any, test: str | None) -> Comparisons:
    """Terms added in their order, from the intercept on, as R's `anova` of one fit."""
    refittable(result)
    kind = require_kind(result, test)
    if kind == "wald" and result.covariance_type != "model":
        raise ValueError(
            f"a sequence of Wald tests needs the covariance of every model on the way, and only the whole model's is "
            f'{result.covariance_type}; use drop1(test="wald"), which needs no other'
        )
    known = terms.terms_of(result)
    added = [term for term in known if term.factors]
    if not added:
        raise ValueError("the model has nothing but an intercept, so there is no sequence of terms to test")
    fits, missing = [result.solution], [np.zeros(len(result.names), bool)]
    for term in reversed(added):
        gone = missing[-1].copy()
        gone[list(term.columns)] = True
        fits.append(_reduced(result, gone))
        missing.append(gone)
    steps = []
    for i in range(len(added)):
        more = missing[i + 1] & ~missing[i]
        steps.append(_Step(result, fits[i], fits[i + 1], result, more))
    return _compared(result, kind, tuple(term.name for term in added), steps[::-1])


def require_kind(result: Any, kind: str | None) -> str:
    """The test to make. Raises ValueError for an unknown one, and for F where no dispersion is estimated."""
    estimated, sample = result.family.dispersion is None, result.weights_kind == "sampling"
    if kind is None:
        return "wald" if sample else "f" if estimated else "lr"
    if kind not in KINDS:
        raise ValueError(f"there is no test {kind!r}.{did_you_mean(kind, KINDS)} Tests: {', '.join(KINDS)}")
    if kind != "wald" and sample:
        raise ValueError(f'with sampling weights there is no likelihood, and no {kind} test; use test="wald"')
    if kind == "f" and not estimated:
        raise ValueError(
            f'an F test needs an estimated dispersion, and the {result.family.name} family\'s is known; use test="lr", or a '
            "quasi family"
        )
    return kind


def _lacking(small: Any, large: Any) -> np.ndarray | None:
    """The columns of the larger design that the smaller lacks, None where the smaller has others."""
    names = set(small.names)
    return np.array([name not in names for name in large.names]) if names <= set(large.names) else None


def _added(small: Any, large: Any, place: int) -> str:
    """What a larger model has more, or its place among the models."""
    first, second = (terms.names_of(fit) for fit in (small, large))
    return " + ".join(name for name in second if name not in first) if set(first) < set(second) else f"model {place}"


def _compared(result: Any, kind: str, names: tuple[str, ...], steps: list[_Step]) -> Comparisons:
    """The tests of all steps, with the dispersion of `result`."""
    made = [_tested(result, kind, step) for step in steps]

    def column(values: list[np.ndarray]) -> np.ndarray:
        return result._squeezed(np.stack(values, axis=1))

    df = [step.larger_fit.rank - step.smaller.rank for step in steps]
    by_f = kind == "f" or (kind == "wald" and result._degrees() is not None)
    error = _error_degrees(result, kind)
    tails = [upper_tail(statistic, k, error if by_f else None) for statistic, k in zip(made, df, strict=True)]
    return Comparisons(
        fits=result,
        kind=kind,
        names=names,
        statistic=column([np.where(np.isnan(tail.p_value), np.nan, value) for tail, value in zip(tails, made, strict=True)]),
        df=column(df),
        df_error=column([error if by_f else np.full(len(result), np.nan)] * len(steps)),
        p_value=column([tail.p_value for tail in tails]),
        log10_p=column([tail.log10_p for tail in tails]),
        status=column([_status(step) for step in steps]),
        deviance=column([step.smaller.deviance for step in steps]),
        aic=column([_aic(result, step) for step in steps]),
    )


def _error_degrees(result: Any, kind: str) -> np.ndarray:
    solution, known = result.solution, result._degrees()
    if kind == "wald" and known is not None:
        return np.broadcast_to(known[:, 0], len(result)).astype(float)
    return np.where(is_lost(solution.status), np.nan, solution.n_obs - solution.rank)


def _status(step: _Step) -> np.ndarray:
    smaller, larger = step.smaller.status, step.larger_fit.status
    return np.where(smaller == Status.CONVERGED, larger, smaller)


def _aic(result: Any, step: _Step) -> np.ndarray:
    """AIC of the smaller model. Where the dispersion is known, log-likelihoods differ by half of what deviances do."""
    largest, smaller, phi = result.solution, step.smaller, result.family.dispersion
    log_likelihood = smaller.log_likelihood
    if result.weights_kind == "sampling":
        return np.full(len(result), np.nan)
    if phi is not None and not step.own_shapes:
        log_likelihood = largest.log_likelihood - (smaller.deviance - largest.deviance) / (2.0 * phi)
    return -2.0 * log_likelihood + 2.0 * (smaller.rank + result.family.n_shapes)


def _tested(result: Any, kind: str, step: _Step) -> np.ndarray:
    """The statistic of every group, NaN where it has none."""
    larger, smaller = step.larger_fit, step.smaller
    df = larger.rank - smaller.rank
    with np.errstate(divide="ignore", invalid="ignore"):  # a perfect fit has a dispersion of 0
        if kind == "wald":
            statistic = _wald(step, df) / (np.where(df > 0, df, 1) if result._degrees() is not None else 1)
            if step.larger.covariance_type == "model":
                statistic = statistic * larger.dispersion / result.solution.dispersion
        elif kind == "score":
            statistic = _score(step) / result.solution.dispersion
            statistic = np.where(smaller.status == Status.CONVERGED, statistic, np.nan)
        else:
            own = 2.0 * (larger.log_likelihood - smaller.log_likelihood)
            gain = own if step.own_shapes else smaller.deviance - larger.deviance
            gain = np.where((gain < 0) & (gain > -NEGLIGIBLE * (1.0 + np.abs(smaller.deviance))), 0.0, gain)
            statistic = np.where(gain >= 0, gain, np.nan) / result.solution.dispersion
            statistic = statistic / np.where(df > 0, df, 1) if kind == "f" else statistic
    known = _at_maximum(smaller) & (_at_maximum(larger) | (kind == "score"))
    return np.where(known & (df > 0), statistic, np.nan)


def _at_maximum(solution: Solution) -> np.ndarray:
    """Fits whose deviance is that of the maximum of the likelihood, or its limit."""
    ended = (solution.status == Status.CONVERGED) | (solution.status == Status.SEPARATED)
    return ended & maximise_likelihood(solution.method)


def _wald(step: _Step, df: np.ndarray) -> np.ndarray:
    """Of the coefficients that the smaller model lacks; where a dropped column makes another, aliased one count, these do
    not say what the smaller model lacks."""
    if step.gone is None:
        raise ValueError('a Wald test needs a smaller model whose columns are among those of the larger; use test="lr"')
    solution = step.larger_fit
    counted = step.gone & ~solution.aliased
    statistic = quadratic_form(solution.covariance, solution.coefficients, ~counted)
    return np.where(counted.sum(axis=1) == df, statistic, np.nan)


def _score(step: _Step) -> np.ndarray:
    """Rao's statistic at dispersion 1."""
    below = step.smaller_rows
    rows = below._rows()
    eta = rows.linear_predictor(step.smaller)
    offset = rows.rows(rows.offset, 0.0)
    found = row_quantities(rows.family(below.family), rows.rows(rows.y, 0.0), rows.prior_weights(), eta, offset)
    scores = np.where(found.working_weights > 0, found.working_weights * found.working, 0.0)
    return score_statistics(step.larger._rows(), found.working_weights, scores, step.larger_fit.aliased)
