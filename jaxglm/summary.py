"""Results in words: the summary, the short form, and the warning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from jaxglm.errors import listed
from jaxglm.observations import counted
from jaxglm.status import Method, Status, StatusWarning


def counts(result: Any) -> list[tuple[Status, int]]:
    """How many fits ended with each status that occurs."""
    found = np.bincount(result.solution.status, minlength=len(Status))
    return [(Status(code), int(count)) for code, count in enumerate(found) if count]


def resolved(result: Any) -> np.ndarray:
    """Which fits are separated but have finite estimates by reduction of bias, (g,)."""
    reduces = np.array([method.reduces_bias for method in Method])[result.solution.method]
    return reduces & (result.solution.status == Status.SEPARATED)


def short(result: Any) -> str:
    """One line."""
    family = f"{result.family.name} ({result.family.link.name})"
    terms = f"{len(result.names)} terms"
    if not result.many:
        return f"<GLMResults: {family}, {terms}, {result.n_obs} rows, {result.status.label}>"
    states = ", ".join(f"{count} {status.label}" for status, count in counts(result))
    return f"<GLMResults: {len(result)} fits, {family}, {terms}; {states or 'none'}>"


def warn(result: Any, stacklevel: int = 5) -> None:
    """One `StatusWarning` if some fits did not converge. Separated fits with finite estimates, as asked for, need none.
    stacklevel: of the user's call."""
    states = np.where(resolved(result), Status.CONVERGED, result.solution.status)
    failed = [(Status(code), int(np.sum(states == code))) for code in np.unique(states) if code != Status.CONVERGED]
    if not failed:
        return
    if not result.many:
        status = failed[0][0]
        warnings.warn(f"{status.label}: {status.message}", StatusWarning, stacklevel=stacklevel)
        return
    lines = []
    for status, count in failed:
        positions = np.flatnonzero(states == status)
        labels = result.groups
        some = listed([labels[i] for i in positions[:3]]) + (", ..." if count > 3 else "")
        lines.append(f"{count} {status.label} ({some})")
    warnings.warn(
        f"{sum(count for _, count in failed)} of {len(result)} fits did not converge: {'; '.join(lines)}. "
        "See fit.status; jaxglm.Status(code).message says what each means and what to do.",
        StatusWarning,
        stacklevel=stacklevel,
    )


def text(result: Any) -> str:
    """The summary of one fit, as R prints it, or of many."""
    return "\n".join(_many(result) if result.many else _one(result))


def _covariance(result: Any) -> list[str]:
    """What weights mean, and what errors and tests rest on, where that is not as usual."""
    weights = [] if result.weights_kind == "prior" else [f"Weights: {result.weights_kind}"]
    if result.covariance_type == "model":
        return weights
    degrees = result._degrees()
    known = "" if degrees is None or result.many else f", on {degrees[0, 0]:g} degrees of freedom"
    return [*weights, f"Covariance: {result.covariance_type}, statistics {'z' if degrees is None else 't'}{known}"]


def _head(result: Any) -> list[str]:
    head = f"Generalized linear model: {result.family.name} family, {result.family.link.name} link"
    formula = getattr(getattr(result.table, "design", None), "formula", None)
    return [head, f"Formula: {formula}"] if formula else [head]


def _one(result: Any) -> list[str]:
    statistic = "z" if result._degrees() is None else "t"
    errors, statistics, p = result.standard_errors, result.statistics, result.p_values
    known = counted(result.solution)[0]
    width = max([len(name) for name in result.names] + [4])
    lines = [*_head(result), "", f"{'':{width}}  {'Estimate':>12} {'Std. error':>12} {statistic:>9} {'p':>10}"]
    for j, name in enumerate(result.names):
        note = ""
        if np.isnan(result.coefficients[j]):
            note = "  not estimated" if np.isnan(known[j]) else "  aliased"
        elif result.infinite[j]:
            note = "  +infinite" if result.infinite[j] > 0 else "  -infinite"
        values = f"{result.coefficients[j]:12.6g} {errors[j]:12.6g} {statistics[j]:9.3f} {_p(p[j]):>10}"
        lines.append(f"{name:{width}}  {values}{note}")
    how = "known" if result.family.dispersion is not None else "estimated"
    lines += [
        "",
        *_covariance(result),
        f"Dispersion ({how}): {result.dispersion:.6g}",
        f"Null deviance:     {result.null_deviance:.6g} on {result.df_null} degrees of freedom",
        f"Residual deviance: {result.deviance:.6g} on {result.df_residual} degrees of freedom",
    ]
    if np.isfinite(result.aic):
        lines.append(f"Log-likelihood: {result.log_likelihood:.6g}   AIC: {result.aic:.6g}   BIC: {result.bic:.6g}")
    lines.append(
        f"Rows: {result.n_obs}{f' ({result.n_dropped} dropped)' if result.n_dropped else ''}   Steps: {result.n_iterations}"
    )
    if result.method == Method.ELASTIC_NET.label:
        lines.append("An elastic net has no standard errors: its estimates are shrunken, and some are set to zero.")
    if result.method == Method.BOUNDARY.label:
        lines.append("The optimum is on the boundary of the valid means, where estimates have no normal errors.")
    plain = (Method.IRLS.label, Method.BOUNDARY.label)
    rungs = {
        Method.OTHER_START.label: "from another start",
        Method.DAMPED.label: "by damped steps",
        Method.LBFGS.label: "by L-BFGS",
    }
    how = rungs.get(result.method, f"estimates {result.method.replace('_', ' ')}")
    method = "" if result.method in plain else f", {how}"
    lines.append(f"Status: {result.status.label}{method}")
    if result.status != Status.CONVERGED and not resolved(result)[0]:
        lines.append(result.status.message)
    return lines


def _many(result: Any) -> list[str]:
    found, total = result.solution, len(result)
    lines = [*_head(result), f"{total} fits of {len(result.names)} terms; rows: {int(found.n_obs.sum())}"]
    dropped = int(np.sum(result.dropped))
    if dropped or result.n_unassigned:
        lines.append(f"Left out: {dropped} rows with missing values, {result.n_unassigned} without a group")
    lines += _covariance(result)
    lines += ["", "Status:"]
    for status, count in counts(result):
        lines.append(f"  {status.label:15} {count:8d}  {status.message.split('. ')[0].rstrip('.')}.")
    aliased = int(np.sum((np.isnan(found.coefficients) & ~np.isnan(counted(found))).any(axis=1)))
    if aliased:
        lines.append(f"  {aliased} fits have aliased terms.")
    width = max([len(name) for name in result.names] + [4])
    lines += ["", f"{'Estimates':{width}}  {'fits':>7} {'5%':>11} {'median':>11} {'95%':>11} {'median se':>11} {'p < 0.05':>9}"]
    errors, p = result.standard_errors, result.p_values
    for j, name in enumerate(result.names):
        known = np.isfinite(errors[:, j])
        if not known.any():
            lines.append(f"{name:{width}}  {0:7d}")
            continue
        low, middle, high = np.quantile(found.coefficients[known, j], [0.05, 0.5, 0.95])
        share = np.mean(p[known, j] < 0.05)
        numbers = f"{low:11.4g} {middle:11.4g} {high:11.4g} {np.median(errors[known, j]):11.4g} {share:9.1%}"
        lines.append(f"{name:{width}}  {int(known.sum()):7d} {numbers}")
    return lines


def _p(value: float) -> str:
    return "" if np.isnan(value) else ("<2e-16" if value < 2e-16 else f"{value:.3g}")
