"""Profile likelihood: intervals and tests of one coefficient, the others fitted again at every value of it.

With D(v) the deviance when coefficient j is held at v and all others are fitted, the interval holds the values with
D(v) - D <= q^2 phi: q is the normal quantile where the dispersion phi is known, and where it is estimated (by Pearson's
statistic, at the fit) Student's with the residual degrees of freedom, so that intervals of a linear model are R's
`confint.lm`. (MASS's `confint.glm` has the normal quantile there too, and reads its ends off a spline through some ten
refits; ours are roots.) Fits whose bias was reduced have profiles of the likelihood times |X'WX|^(1/2), which they
maximise, the information being that of all columns, as logistf has it (Heinze and Schemper 2002). That is so under
canonical links with "mean" and under all with "jeffreys", where the dispersion is known; other fits with less bias have no
likelihood to profile, and get NaN.

An end is infinite exactly where the profile never reaches the level. In a separated fit a coefficient that the rows that
are not at their limits determine has the profile of these rows. A diverging one has one finite end at most: its profile
falls for ever on the other side. An end is NaN where refits stop at the edge of the valid means before the level is reached.

Every round of the search fits all groups, terms and sides that are still open, as one batch: coefficient j times its column
goes to the offset, and the column out of the design. The signed root of D(v) - D is nearly a straight line in v, on which
a bracketing secant method (Anderson and Bjorck 1973) takes some five rounds to 1e-9 of a standard error.

Sources: Venzon and Moolgavkar (1988); Venables and Ripley, Modern Applied Statistics with S (2002), section 8.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxglm import fitting, wald
from jaxglm.crossings import crossings
from jaxglm.ends import sides
from jaxglm.errors import did_you_mean, listed
from jaxglm.family import Family
from jaxglm.irls.solution import Solution
from jaxglm.limits import infinite_eta
from jaxglm.packing import Picked, Source, gather, reweighted
from jaxglm.separation import decide, recedes
from jaxglm.sorting import sort_rows
from jaxglm.status import Method, Status, maximise_likelihood
from jaxglm.task import Task

TOLERANCE = 1e-9  # of an end, in standard errors
NUMBERS = 2**25  # in the covariances of one batch of refits
NOTHING = -1  # the term of a refit that holds none


@dataclass(frozen=True)
class LikelihoodRatio:
    """Likelihood-ratio tests of coefficients. statistic: (p,), the fall of D by fitting the coefficient, over the
    dispersion; p_value: (p,), by the chi-squared distribution with one degree of freedom, or by F where the dispersion is
    estimated. With many fits there is a leading axis g."""

    statistic: np.ndarray
    p_value: np.ndarray


@dataclass(frozen=True)
class Members:
    """Refits of a batch. groups, terms: (m,), the latter the coefficients held, or NOTHING; direction: (m, p), takes rows to
    their limits whatever the coefficient is held at; these rows are left out; flat: (m,), whether D is then the same at all
    values."""

    groups: np.ndarray
    terms: np.ndarray
    direction: np.ndarray
    flat: np.ndarray

    def __getitem__(self, which: Any) -> Members:
        return Members(self.groups[which], self.terms[which], self.direction[which], self.flat[which])

    @property
    def whole(self) -> Members:
        """The same fits, with nothing held."""
        return replace(self, terms=np.full(len(self.terms), NOTHING))


def _of_groups(groups: np.ndarray, p: int) -> Members:
    """One fit of each group, of all rows and with nothing held."""
    m = len(groups)
    return Members(groups, np.full(m, NOTHING), np.zeros((m, p)), np.zeros(m, bool))


@dataclass(frozen=True)
class Held:
    """The rows of refits that each hold a coefficient at a value: a `packing.Source`.

    base: the rows of the groups; values: (m,); aliased: (g, p), columns that are left out; keeps: whether the column held
    stays in the design.
    """

    base: Source
    members: Members
    values: np.ndarray
    aliased: np.ndarray
    keeps: bool

    @property
    def p(self) -> int:
        return self.base.p

    @property
    def sizes(self) -> np.ndarray:
        return self.base.sizes[self.members.groups]

    def only(self, columns: np.ndarray) -> Source:
        """Not to be had: the columns that are held are known by their places."""
        raise NotImplementedError("rows of refits with a coefficient held have all columns")

    def pick(self, groups: np.ndarray, positions: np.ndarray) -> Picked:
        groups, positions = np.broadcast_arrays(groups, positions)
        held = self.members[groups]
        picked = self.base.pick(held.groups, positions)
        some = held.terms != NOTHING
        column = np.take_along_axis(picked.X, np.where(some, held.terms, 0)[..., None], axis=-1)[..., 0]
        with np.errstate(invalid="ignore", over="ignore"):  # rows of weight zero may hold anything
            known = np.where(some, column * self.values[groups], 0.0)
            at_limit = infinite_eta(picked.X, held.direction) != 0
        out = self.aliased[held.groups]
        if not self.keeps:
            out = out | (np.arange(self.p) == held.terms[..., None])
        return replace(
            picked,
            X=np.where(out, 0.0, picked.X),
            weights=np.where(at_limit, 0.0, picked.weights),
            offset=known if picked.offset is None else known + picked.offset,
        )


@dataclass(frozen=True)
class Look:
    """What refits of a batch say. deviance: (m,), called D above, less log |X'WX| of all columns where the likelihood is
    penalised, and infinite where there is no fit; coefficients: (m, p), of the columns not held."""

    deviance: np.ndarray
    coefficients: np.ndarray


@dataclass(frozen=True)
class Profiled:
    """What is profiled: the rows of all groups, their family, what was found for them, and whether the likelihood is
    penalised by Jeffreys' prior."""

    source: Source
    family: Family
    found: Solution
    penalised: bool

    def refit(self, members: Members, values: np.ndarray, start: np.ndarray | None = None) -> Solution:
        """Fit each member with its coefficient at a value; start: (m, p) or None."""
        task = Task(
            source=Held(self.source, members, values, self.found.aliased, self.penalised),
            family=self.family.of(members.groups),
            start=start,
            bias_reduction="jeffreys" if self.penalised else None,
            held=np.arange(self.source.p) == members.terms[:, None] if self.penalised else None,
        )
        return fitting.fit(task)

    def look(self, members: Members, values: np.ndarray, near: np.ndarray | None = None) -> Look:
        """D of each member. near: (m, p), the other coefficients at values that are not far: from there a fit is tried once
        more where it failed from the usual start, and in any case where the likelihood is penalised, as there may be two
        optima then."""
        fits = self.refit(members, values)
        deviance, coefficients = self._deviance(fits), fits.coefficients
        doubtful = np.flatnonzero(~np.isfinite(deviance) | self.penalised)
        if near is not None and len(doubtful):
            again = self.refit(members[doubtful], values[doubtful], np.nan_to_num(near[doubtful]))
            other = self._deviance(again)
            better = other < deviance[doubtful]
            deviance[doubtful[better]], coefficients[doubtful[better]] = other[better], again.coefficients[better]
        return Look(deviance, coefficients)

    def _deviance(self, fits: Solution) -> np.ndarray:
        """D of fits, infinite where there is none."""
        deviance = fits.deviance
        if self.penalised:
            deviance = deviance + _log_determinants(fits.covariance)
        usable = (fits.status == Status.CONVERGED) | (fits.status == Status.SEPARATED)
        return np.where(usable & np.isfinite(deviance), deviance, np.inf)


def _log_determinants(covariances: np.ndarray) -> np.ndarray:
    """Of each covariance (m, p, p), on the terms that have one."""
    known = ~np.isnan(np.diagonal(covariances, axis1=1, axis2=2))
    both = known[:, :, None] & known[:, None, :]
    return np.linalg.slogdet(np.where(both, covariances, np.eye(known.shape[1])))[1]


def intervals(result: Any, level: float, terms: Sequence[str | int] | None = None) -> np.ndarray:
    """Profile-likelihood intervals of terms of a result, (g, terms, 2). See `Inference.profile_interval`."""
    chosen, degrees = term_places(result, terms), _degrees(result)
    quantile = np.broadcast_to(np.reshape(wald.quantile(level, degrees), (-1,)), (len(result),))
    ends = np.full((len(result), len(result.names), 2), np.nan)
    for profiled, groups in _portions(result, 2 * len(chosen)):
        members = _members(profiled, groups, chosen)
        for side, way in enumerate((-1.0, 1.0)):
            never = members.flat | (profiled.found.infinite[members.groups, members.terms] == way)
            ends[members.groups, members.terms, side] = np.where(never, way * np.inf, np.nan)
        _search(profiled, members, quantile, ends)
    return ends[:, chosen]


def _search(profiled: Profiled, members: Members, quantile: np.ndarray, ends: np.ndarray) -> None:
    """Put in the ends that are not infinite."""
    infinite = profiled.found.infinite[members.groups, members.terms]
    place, side = np.nonzero(~members.flat[:, None] & (infinite[:, None] != [-1, 1]))
    if not len(place):
        return
    (origin, unit), best = (part[..., place] for part in _scales(profiled, members)), _best(profiled, members)[place]
    members, way, finite = members[place], np.where(side == 0, -1.0, 1.0), infinite[place] == 0
    dispersion, height = profiled.found.dispersion[members.groups], quantile[members.groups]

    near = profiled.found.coefficients[members.groups]

    def misfits(which: np.ndarray, points: np.ndarray) -> np.ndarray:
        values = origin[which] + way[which] * points * unit[which]
        look = profiled.look(members[which], values, near[which])
        rise = look.deviance - best[which]
        inside = np.isfinite(rise)
        near[which[inside]] = look.coefficients[inside]
        return np.sqrt(np.maximum(rise, 0.0) / dispersion[which]) - height[which]

    first = np.where(finite, height, 0.0)
    found = crossings(misfits, first, np.where(finite, -height, np.nan), TOLERANCE)
    ends[members.groups, members.terms, side] = origin + way * found * unit


def ratio_tests(result: Any, value: float, terms: Sequence[str | int] | None = None) -> LikelihoodRatio:
    """Likelihood-ratio tests of terms of a result, (g, terms). See `Inference.profile_tests`."""
    chosen = term_places(result, terms)
    statistic = np.full((len(result), len(result.names)), np.nan)
    for profiled, groups in _portions(result, len(chosen)):
        members = _members(profiled, groups, chosen)
        statistic[members.groups, members.terms] = 0.0
        members = members[~members.flat]
        if len(members.groups):
            rise = profiled.look(members, np.full(len(members.groups), value)).deviance - _best(profiled, members)
            rise = np.where(np.isfinite(rise), np.maximum(rise, 0.0), np.nan)
            statistic[members.groups, members.terms] = rise / profiled.found.dispersion[members.groups]
    statistic = statistic[:, chosen]
    return LikelihoodRatio(statistic, wald.p_values(np.sqrt(statistic), _degrees(result)))


def _degrees(result: Any) -> np.ndarray | None:
    """Residual degrees of freedom (g, 1) where the dispersion is estimated, whatever the covariance is, else None."""
    solution = result.solution
    return (solution.n_obs - solution.rank)[:, None] if result.family.dispersion is None else None


def term_places(result: Any, terms: Sequence[str | int] | None) -> np.ndarray:
    """The places of terms given by name or place. Raises KeyError for others."""
    names = list(result.names)
    if terms is None:
        return np.arange(len(names))
    if isinstance(terms, (str, int, np.integer)):
        raise TypeError(f"terms must be a list of names or places, such as [{terms!r}], not {terms!r}")
    places = []
    for term in terms:
        if term in names:
            places.append(names.index(term))
        elif isinstance(term, (int, np.integer)) and -len(names) <= term < len(names):
            places.append(int(term) % len(names))
        else:
            raise KeyError(f"there is no term {term!r}.{did_you_mean(str(term), names)} Terms: {listed(names)}")
    return np.array(places, np.int64)


def _portions(result: Any, each: int) -> Iterator[tuple[Profiled, np.ndarray]]:
    """What is to be profiled, a portion of groups at a time, for so many refits of each."""
    if result.penalized:
        raise ValueError("the fit was penalized by penalty=; what it maximises is no likelihood, and has no profile here")
    if result.weights_kind == "sampling":
        raise ValueError("with sampling weights there is no likelihood to profile; use Wald intervals, conf_int()")
    rows, found, method = result._rows(), result.solution, result.solution.method
    sort = None if rows.codes is None else sort_rows(rows.codes, rows.g)
    source = rows.source(sort)
    jeffreys = method == Method.JEFFREYS
    if result.family.is_canonical:
        jeffreys = jeffreys | (method == Method.MEAN_BIAS_REDUCED)
    if result.family.dispersion is None:
        jeffreys = jeffreys & False
    plain = maximise_likelihood(method)
    if len(method) and not (plain | jeffreys).any():
        how = Method(int(method[0])).label.replace("_", " ")
        raise ValueError(
            f"these estimates ({how}) maximise no likelihood, so there is none to profile. There is one by maximum likelihood, "
            'with bias_reduction="jeffreys", or "mean" under a canonical link, where the dispersion is known'
        )
    settled = (found.status == Status.CONVERGED) | (found.status == Status.SEPARATED)
    settled &= np.isfinite(found.dispersion) & (found.dispersion > 0) & (method != Method.BOUNDARY)
    size = max(1, NUMBERS // max(1, each * source.p**2))
    for penalised, which in ((False, plain), (True, jeffreys)):
        groups = np.flatnonzero(which & settled)
        for begin in range(0, len(groups), size):
            part = groups[begin : begin + size]
            yield _refitted(Profiled(source, result.family, found, penalised), part), part


def _refitted(profiled: Profiled, groups: np.ndarray) -> Profiled:
    """The same with what is found for the groups fitted again in float64 to the default tolerance."""
    fits = profiled.refit(_of_groups(groups, profiled.source.p), np.zeros(len(groups)))
    found = jax.tree.map(lambda leaf: np.array(leaf), profiled.found)
    for name in ("coefficients", "covariance", "deviance", "status", "infinite", "direction"):
        getattr(found, name)[groups] = getattr(fits, name)
    return replace(profiled, found=found)


def _members(profiled: Profiled, groups: np.ndarray, terms: np.ndarray) -> Members:
    """The groups' terms that are not aliased, and what of separated groups is at its limit whatever they are held at.

    For a coefficient that the other rows determine these are the rows that the group's direction moves. For a diverging one
    they are those that some direction moves without it. If another direction takes it the opposite way, it may have any
    value, as one may that neither diverges nor is determined.
    """
    found = profiled.found
    group, term = (part.reshape(-1) for part in np.meshgrid(groups, terms, indexing="ij"))
    usable = ~found.aliased[group, term] & np.isin(found.status[group], (Status.CONVERGED, Status.SEPARATED))
    group, term = group[usable], term[usable]
    separated = found.status[group] == Status.SEPARATED
    infinite, determined = found.infinite[group, term] != 0, np.isfinite(found.covariance[group, term, term])
    direction = np.where((separated & determined)[:, None], found.direction[group], 0.0)
    members = Members(group, term, direction, separated & ~determined & ~infinite)
    diverging = np.flatnonzero(infinite)
    if len(diverging):
        apart = np.unique(group[diverging])
        rows = gather(profiled.source, apart)
        present = rows.weights > 0
        rows = reweighted(rows, np.where(present, rows.weights, 0.0), np.where(present[:, None], rows.X, 0.0))
        side, owner = sides(profiled.family.of(apart), rows), np.searchsorted(apart, group[diverging])
        for k, place in zip(diverging, owner, strict=True):
            inside = np.arange(rows.starts[place], rows.starts[place] + rows.sizes[place])
            inside = inside[present[inside]]
            free = ~found.aliased[group[k]]
            way = -float(found.infinite[group[k], term[k]])
            members.flat[k] = recedes(rows.X[inside], side[inside], free, int(term[k]), way)
            free = free & (np.arange(len(free)) != term[k])
            members.direction[k] = decide(rows.X[inside], side[inside], free).direction[0]
    return members


def _best(profiled: Profiled, members: Members) -> np.ndarray:
    """D of each member's fit with nothing held, on its rows."""
    own = np.where(profiled.found.infinite[members.groups, members.terms] != 0, members.terms, NOTHING)
    _, first, place = np.unique(np.stack([members.groups, own]), axis=1, return_index=True, return_inverse=True)
    return profiled.look(members[first].whole, np.zeros(len(first))).deviance[place.reshape(-1)]


def _scales(profiled: Profiled, members: Members) -> np.ndarray:
    """Where to begin and how far to step, (2, m): at an estimate by its error, or at 0 where it is infinite, by what changes
    an eta by 1 at most."""
    found, source = profiled.found, profiled.source
    infinite = found.infinite[members.groups, members.terms] != 0
    with np.errstate(invalid="ignore"):
        unit = np.sqrt(found.covariance[members.groups, members.terms, members.terms])
    for k in np.flatnonzero(infinite):
        picked = source.pick(members.groups[k], np.arange(source.sizes[members.groups[k]]))
        column = np.where(picked.weights > 0, picked.X[:, members.terms[k]], 0.0)
        unit[k] = 1.0 / np.max(np.abs(column))
    return np.stack([np.where(infinite, 0.0, found.coefficients[members.groups, members.terms]), unit])
