"""jaxglm's solver alone: `irls.solve_many` on arrays that are on the device, to a `Solution` that is there too.

One fit is `irls.solve`. Ragged groups and scans are packed on the host, so there is no such call for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.adapters.interface import Job, Library, Setting, require
from benchmarks.adapters.jaxglm_fit import family_of
from benchmarks.checks import Found
from benchmarks.problems import Problem


def prepare(problem: Problem, setting: Setting) -> Job:
    import jax

    from jaxglm import irls

    require(problem.layout in ("own", "shared", "single"), f"has no call for a {problem.layout} layout: see jaxglm_fit")
    solve = irls.solve if problem.layout == "single" else irls.solve_many
    device = jax.devices(setting.device)[0]
    arrays = {name: getattr(problem, name) for name in ("X", "y", "weights", "offset") if getattr(problem, name) is not None}
    family = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), family_of(problem))

    def transfer() -> Any:
        with jax.enable_x64(True):
            return jax.block_until_ready(jax.device_put((arrays, family), device))

    def run(there: Any) -> Any:
        arrays, family = there
        with jax.enable_x64(True), jax.default_device(device):
            return jax.block_until_ready(solve(family=family, **arrays))

    def found(solution: Any) -> Found:
        parts = [np.asarray(getattr(solution, name)) for name in ("coefficients", "status", "rank", "n_iterations")]
        return Found(*(part[None] if problem.layout == "single" else part for part in parts))

    return Job(run, np.arange(problem.fits), found, transfer=transfer)


LIBRARY = Library(
    "jaxglm_solver",
    "irls.solve_many, device arrays to device arrays",
    prepare,
    tolerance=1e-9,
    devices=("cpu", "gpu"),
    compiles=True,
)
