"""Whether lanes can fit: the compiler, the device, the problem, the family, and a test of the whole.

Like kernels for GPUs, those for CPUs are an offer, never a duty. `available` says why there is none, in words for a debug
log; the general path is there all the same. Whether a family can be translated is found by translating it.
"""

from __future__ import annotations

import importlib.util
import logging
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxglm import families
from jaxglm import rows as fits
from jaxglm.family import Family
from jaxglm.irls.lanes.program import Shape
from jaxglm.irls.lanes.run import Job, Rows, ask, kernel, shape_of
from jaxglm.irls.options import IRLS
from jaxglm.irls.working import working

# Columns beyond which the small systems, written out, become large programs, by the way of solving.
MOST_COLUMNS = {"auto": 24, "cholesky": 12, "orthogonal": 8}
MOST_ASKED = 24  # the same for what is asked of fits that are made
AGREEMENT = {"float64": 1e-9, "float32": 1e-4}  # the largest step left in the test

log = logging.getLogger("jaxglm")


def available(job: Job, device: Any) -> str | None:
    """None if lanes can do this job on this device, else the reason why not, which also goes to the debug log."""
    reason = _unfit(job, device) or _untranslatable(shape_of(job))
    if reason is not None:
        log.debug("no lanes for %s with %d columns on %s: %s", job.family.name, job.rows.p, device, reason)
    return reason


def _unfit(job: Job, device: Any) -> str | None:
    if device.platform != "cpu":
        return f"they are for CPUs, not {device.platform}"
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return "JAX is told not to compile"
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite is not installed"
    most = MOST_COLUMNS[job.options.factorization] if job.one is None else MOST_ASKED
    if not 1 <= job.rows.p <= most:
        return f"they take at most {most} columns this way, not {job.rows.p}"
    if (job.options.factorization == "auto") == job.careful:
        return "they make the plain pass, or each way of being careful"
    if job.penalty is not None and job.penalty.ndim > 2:
        return "they take penalties of single coefficients only"
    if job.careful and (job.rows.shared or np.dtype(job.dtype) != np.float64):
        return "being careful, they scale columns, each fit its own, in float64"
    return None


@lru_cache(maxsize=256)
def _untranslatable(shape: Shape) -> str | None:
    try:
        kernel(shape)
        return _failing(shape.dtype)
    except Exception as error:  # whatever compilers may raise: there is another way
        return f"{type(error).__name__}: {error}".splitlines()[0]


@lru_cache(maxsize=2)
def _failing(dtype: str) -> str | None:
    """What is wrong with the answers to a few small problems on this machine, None if nothing is: groups of 4 to 23 rows, and
    one of none, which need different numbers of turns."""
    g, n, kind = 21, 23, np.dtype(dtype)
    rng = np.random.default_rng(0)
    X, y, sizes = rng.uniform(-1.0, 1.0, (g, n, 1)), np.tile(np.arange(n) % 2.0, (g, 1)), np.arange(g) + n - g + 1
    rows = Rows(X, y, None, None, np.zeros(g, np.int64), sizes)
    job = Job(rows, families.Binomial(), None, None, IRLS(), kind, one=_slope, known=rng.uniform(-1.0, 1.0, g))
    found = ask(job, np.flatnonzero(sizes < n))
    there = (np.arange(n) < sizes[:, None]) & (sizes < n)[:, None]
    x, mu = X[..., 0], 1.0 / (1.0 + np.exp(-X[..., 0] * found[:, None]))
    score, information = np.sum(there * x * (y - mu), axis=1), np.sum(there * x * x * mu * (1.0 - mu), axis=1)
    rest = np.abs(score / np.where(information > 0, information, 1.0)).max()
    return None if rest <= AGREEMENT[dtype] else f"the test results are {rest:.1e} from the optimum"


def _slope(rows: fits.Rows, family: Family, start: Array) -> Array:
    """The slope of a line through the origin, by Newton's method."""

    def look(slope: Array, part: fits.Rows) -> fits.Totals:
        x, row = part.design.matrix()[:, 0], working(family, part, part.eta(slope[None]))
        return fits.Totals((jnp.sum(row.scores * x), jnp.sum(row.weights * x * x)))

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        score, information = fits.fold(rows, partial(look, state[0])).sums
        return state[0] + score / information, jnp.abs(score / information)

    few = jnp.sqrt(jnp.finfo(start.dtype).eps)
    return jax.lax.while_loop(lambda state: state[1] > few, step, (start, jnp.ones_like(start)))[0]
