"""Whether lanes can fit: the compiler, the device, the problem, the family, and a test of the whole.

Like kernels for GPUs, those for CPUs are an offer, never a duty. `available` says why there is none, in words for a debug
log; the general path is there all the same. Whether a family can be translated is found by translating it.
"""

from __future__ import annotations

import importlib.util
import logging
from functools import lru_cache
from typing import Any

import numpy as np

from jaxglm import families
from jaxglm.irls.lanes.program import Shape
from jaxglm.irls.lanes.run import Job, Rows, kernel, shape_of, solve
from jaxglm.irls.options import IRLS
from jaxglm.irls.solution import nothing

# Columns beyond which the small systems, written out, become large programs, by the way of solving.
MOST_COLUMNS = {"auto": 24, "cholesky": 12, "orthogonal": 8}
MOST_ASKED = 24  # the same for what is asked of fits that are made
AGREEMENT = {"float64": 1e-9, "float32": 1e-4}  # the largest increment left in the test

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
    """What is wrong with the answers to a few small problems on this machine, None if nothing is."""
    g, n = 20, 24
    rng = np.random.default_rng(0)
    X = np.concatenate([np.ones((g, n, 1)), rng.uniform(-1.0, 1.0, (g, n, 2))], axis=2)
    y = np.tile(np.arange(n) % 2.0, (g, 1))
    y[0] = X[0, :, 1] > 0.0
    X[1, :, 2] = X[1, :, 1]
    plain = np.arange(g) > 1
    rows = Rows(X, y, None, None, np.zeros(g, np.int64), np.full(g, n))
    job = Job(rows, families.Binomial(), None, None, IRLS(), np.dtype(dtype))
    found = nothing(g, 3)
    solve(job, found, np.arange(g))
    if not np.array_equal(~found.undecided, plain):
        return f"of {g} test problems they decided {int((~found.undecided).sum())} and not {int(plain.sum())}"
    X, y = X[plain], y[plain]
    mu = 1.0 / (1.0 + np.exp(-np.einsum("gnp,gp->gn", X, found.coefficients[plain])))
    score, information = np.einsum("gni,gn->gi", X, y - mu), np.einsum("gni,gn,gnj->gij", X, mu * (1.0 - mu), X)
    rest = np.abs(np.linalg.solve(information, score[..., None])).max()
    return None if rest <= AGREEMENT[dtype] else f"the test results are {rest:.1e} from the optimum"
