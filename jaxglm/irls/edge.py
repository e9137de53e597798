"""Where valid etas end, and which rows would like to be there.

Under an identity link a Poisson mean must be positive, under a log link a binomial one below 1. The likelihood of nearly every
row falls without bound towards such an edge and keeps the iteration away from it. The exception are rows whose response lies
at the edge itself, a count of zero or all successes: their likelihood is best there, and nothing but the edge stops them. It
is these that put an optimum on the boundary of the valid means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.family import Family
from jaxglm.links import REAL, Interval


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Edge:
    """Of each row, (n,). side: 1 where its response lies at a lower end of valid etas, -1 at an upper one, 0 elsewhere; end:
    that end, 0 where there is none; unit: the distance of the mean response from it."""

    side: Array
    end: Array
    unit: Array

    def slack(self, eta: Array) -> Array:
        """How far eta is inside of the end, in units; 1 for rows without one."""
        return jnp.where(self.side != 0, self.side * (eta - self.end) / self.unit, 1.0)


def has_edge(family: Family) -> bool:
    """Whether means are bounded, so that some finite eta may be an end."""
    return not _means(family).covers(REAL)


def valid_etas(family: Family, center: float) -> Interval:
    """The interval of valid etas around one of them. An infinite mean may have a finite eta too: 0 under the inverse link."""
    means = _means(family)
    ends = [float(family.link(jnp.asarray(bound, float))) for bound in (means.lower, means.upper)]
    lower = max((end for end in ends if end < center), default=-math.inf)
    return Interval(lower, min((end for end in ends if end > center), default=math.inf))


def edge_of(family: Family, y: Array, mean_response: Array) -> Edge:
    """The edge of rows with responses y (n,), harmless ones where rows are absent."""
    link, means, zero = family.link, _means(family), jnp.zeros_like(y)
    side, end, center = zero, zero, link(mean_response)
    bounds = [jnp.asarray(bound, y.dtype) for bound in (means.lower, means.upper)]
    etas = [link(bound) for bound in bounds]
    for k, (bound, eta) in enumerate(zip(bounds, etas, strict=True)):
        at = (y <= bound) if k == 0 else (y >= bound)
        there = at & jnp.isfinite(eta) & jnp.isfinite(bound)
        side = jnp.where(there, jnp.where(eta <= etas[1 - k], 1.0, -1.0), side)
        end = jnp.where(there, eta, end)
    unit = jnp.abs(center - end)
    return Edge(side, end, jnp.where(jnp.isfinite(unit) & (unit > 0), unit, 1.0))


def _means(family: Family) -> Interval:
    """The means that both the family and its link allow."""
    own, linked = family.means, family.link.means
    return Interval(max(own.lower, linked.lower), min(own.upper, linked.upper))
