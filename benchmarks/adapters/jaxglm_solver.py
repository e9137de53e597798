"""jaxglm's solver alone: `irls.solve_many` on arrays that are on the device, to a `Solution` that is there too.

`jaxglm_solver` is one compiled call for all fits; `jaxglm_split` gives each core a share of them from a host thread of its
own, and is run only when asked for: jaxlib 0.10.2 hangs where two threads factor batches by LAPACK at a time. One fit is
`irls.solve`. Ragged groups and scans are packed on the host, so there is no such call for them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.adapters.interface import Job, Library, Setting, require
from benchmarks.adapters.jaxglm_fit import family_of
from benchmarks.checks import Found
from benchmarks.problems import Problem

OWN_AXES = {"X": 2}  # of one fit's array; 1 for the others


def prepare(problem: Problem, setting: Setting) -> Job:
    return _job(problem, setting, 1)


def prepare_split(problem: Problem, setting: Setting) -> Job:
    require(problem.layout != "single" and setting.threads > 1, "needs several fits and several cores")
    return _job(problem, setting, setting.threads)


def _job(problem: Problem, setting: Setting, shares: int) -> Job:
    import jax

    from jaxglm import irls

    require(problem.layout in ("own", "shared", "single"), f"has no call for a {problem.layout} layout: see jaxglm_fit")
    bounds = np.linspace(0, problem.fits, shares + 1).round().astype(int)
    host = [_share(problem, slice(a, b)) for a, b in pairwise(bounds)]
    solve = irls.solve if problem.layout == "single" else irls.solve_many
    program = jax.jit(lambda arrays, family: solve(family=family, **arrays))
    device = jax.devices(setting.device)[0]

    def transfer() -> list[Any]:
        with jax.enable_x64(True):
            return jax.block_until_ready(jax.device_put(host, device))

    pool = ThreadPoolExecutor(shares)

    def one(share: Any) -> Any:
        with jax.enable_x64(True), jax.default_device(device):
            return jax.block_until_ready(program(*share))

    def run(there: list[Any]) -> list[Any]:
        return [one(there[0])] if shares == 1 else list(pool.map(one, there))

    def found(solutions: list[Any]) -> Found:
        names = ("coefficients", "status", "rank", "n_iterations")
        parts = [[np.asarray(getattr(solution, name)) for solution in solutions] for name in names]
        return Found(*(part[0][None] if problem.layout == "single" else np.concatenate(part) for part in parts))

    return Job(run, np.arange(problem.fits), found, transfer=transfer)


def _share(problem: Problem, part: slice) -> tuple[dict[str, np.ndarray], Any]:
    """The arrays and the family of some of the fits."""
    import jax

    arrays = {name: getattr(problem, name) for name in ("X", "y", "weights", "offset") if getattr(problem, name) is not None}
    arrays = {name: values[part] if values.ndim > OWN_AXES.get(name, 1) else values for name, values in arrays.items()}

    def numbers(leaf: Any) -> Any:
        values = np.asarray(leaf, np.float64)
        return values[part] if values.ndim else values

    return arrays, jax.tree.map(numbers, family_of(problem))


LIBRARY = Library(
    "jaxglm_solver",
    "irls.solve_many, device arrays to device arrays, one call",
    prepare,
    tolerance=1e-9,
    devices=("cpu", "gpu"),
    compiles=True,
)
SPLIT = Library(
    "jaxglm_split",
    "irls.solve_many, device arrays to device arrays, a host thread for each core",
    prepare_split,
    tolerance=1e-9,
    compiles=True,
    extra=True,
)
