"""What a kernel for a family needs to know: the row functions that it calls, as programs.

The same functions as everywhere else, of the family, its link and `irls.working`, traced for lanes instead of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxglm.family import Family
from jaxglm.irls.fused.programs import Program, trace
from jaxglm.irls.fused.tiles import LANES, Tiles
from jaxglm.irls.loop import start_eta
from jaxglm.irls.options import IRLS
from jaxglm.irls.working import working
from jaxglm.links import Mean
from jaxglm.rows import Rows

PASSES = 40  # after so many a fit is left to the general path, so that no tile waits for one lane


@dataclass(frozen=True)
class Given:
    """What a kernel is given: columns, the type of its arithmetic, lanes a fit, and whether there are prior weights, and an
    offset."""

    p: int
    dtype: Any
    parts: int = 1
    weights: bool = False
    offset: bool = False


@dataclass(frozen=True)
class Recipe:
    """All about a kernel that is known before it runs. The programs take the family's parameters, one array each, then

    check: y, weights, offset -> whether the row is sound;
    center: total weight, mean response -> the `Mean` of a row whose response is the mean response;
    level: y, weights, offset, that -> twice the loss less the deviance, and the loss at eta = offset;
    start, safe: y, weights, offset, mean response -> working weights and right-hand sides of the start, and of a constant
    mean;
    look: y, weights, eta, floor -> working weights, scores, loss.

    observed: whether observed weights are used; quadratic: whether the weights used make it Newton's method; estimated:
    whether the dispersion is; separable: whether estimates can be infinite; passes: over the rows, at most.
    """

    options: IRLS
    given: Given
    passes: int
    observed: bool
    quadratic: bool
    estimated: bool
    separable: bool
    check: Program
    center: Program
    level: Program
    start: Program
    safe: Program
    look: Program

    @property
    def programs(self) -> tuple[Program, ...]:
        """All programs."""
        return self.check, self.center, self.level, self.start, self.safe, self.look


def recipe_for(tiles: Tiles, family: Family, options: IRLS, passes: int = PASSES) -> Recipe:
    """The recipe of a kernel for tiles like these. The family's parameters may have any values."""
    given = Given(tiles.X.shape[1], jnp.dtype(tiles.y.dtype), tiles.parts, tiles.weights is not None, tiles.offset is not None)
    return recipe(jax.tree.structure(family), options, given, passes)


@lru_cache(maxsize=64)
def recipe(structure: Any, options: IRLS, given: Given, passes: int = PASSES) -> Recipe:
    """The recipe of a kernel for families of this structure."""
    family = jax.tree.unflatten(structure, [None] * structure.num_leaves)
    observed = options.information == "observed" and not family.is_canonical
    rows = _Rows(structure, given, observed)
    with jax.enable_x64(True):  # the programs are kept for whoever asks, under whatever configuration
        programs = rows.programs()
    return Recipe(
        options=options,
        given=given,
        passes=passes,
        observed=observed,
        quadratic=observed or family.is_canonical,
        estimated=family.dispersion is None,
        separable=family.can_separate,
        **programs,
    )


@dataclass(frozen=True)
class _Rows:
    """The row functions of a family; see `Recipe`."""

    structure: Any
    given: Given
    observed: bool

    def programs(self) -> dict[str, Program]:
        """All row functions as programs."""
        lane = jax.ShapeDtypeStruct((LANES,), self.given.dtype)
        own, row = [lane] * self.structure.num_leaves, [lane] * 3
        mean: Any = Mean(**dict.fromkeys((field.name for field in fields(Mean)), lane))  # type: ignore[arg-type]
        return {
            "check": trace(self.check, own, *row),
            "center": trace(self.center, own, lane, lane),
            "level": trace(self.level, own, *row, mean),
            "start": trace(self.start, own, *row, lane),
            "safe": trace(self.safe, own, *row, lane),
            "look": trace(self.look, own, lane, lane, lane, lane),
        }

    def _family(self, own: list[Array]) -> Family:
        return jax.tree.unflatten(self.structure, own)

    def _rows(self, y: Array, weights: Array) -> Rows:
        return Rows(None, y, weights if self.given.weights else jnp.ones_like(y))

    def _shift(self, eta: Array, offset: Array) -> Array:
        return eta - offset if self.given.offset else eta

    def check(self, own: list[Array], y: Array, weights: Array, offset: Array) -> Array:
        sound = self._family(own).valid_response_at(y)
        if self.given.weights:
            sound = (sound & jnp.isfinite(weights) & (weights >= 0.0)) | (weights == 0.0)
        return sound & jnp.isfinite(offset) if self.given.offset else sound

    def center(self, own: list[Array], total_weight: Array, mean_response: Array) -> Mean:
        family = self._family(own)
        return family.link.mean(family.link(family.start_at(mean_response, total_weight)))

    def level(self, own: list[Array], y: Array, weights: Array, offset: Array, mean: Mean) -> tuple[Array, Array]:
        family, rows = self._family(own), self._rows(y, weights)
        constant = rows.weights * (2.0 * family.loss_at(y, mean) - family.unit_deviance_at(y, mean))
        at_zero = working(family, rows, offset if self.given.offset else jnp.zeros_like(y))
        return jnp.where(rows.present, constant, 0.0), at_zero.loss

    def start(self, own: list[Array], y: Array, weights: Array, offset: Array, mean_response: Array) -> tuple[Array, Array]:
        family, rows = self._family(own), self._rows(y, weights)
        eta = start_eta(family, rows, mean_response)
        row = working(family, rows, eta)
        return row.weights, row.scores + row.weights * self._shift(eta, offset)

    def safe(self, own: list[Array], y: Array, weights: Array, offset: Array, mean_response: Array) -> tuple[Array, Array]:
        family, rows = self._family(own), self._rows(y, weights)
        row = working(family, rows, start_eta(family, rows, mean_response))
        return row.weights, row.weights * self._shift(family.link(mean_response), offset)

    def look(self, own: list[Array], y: Array, weights: Array, eta: Array, floor: Array) -> tuple[Array, Array, Array]:
        row = working(self._family(own), self._rows(y, weights), eta, floor if self.observed else None)
        return row.weights, row.scores, row.loss
