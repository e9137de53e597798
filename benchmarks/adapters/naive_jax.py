"""The obvious JAX: jit(vmap(while_loop)), the yardstick of what batching alone is worth.

IRLS in float64 as anyone would write it: R's start, the Gram matrix by einsum, `cholesky` and `cho_solve`, the same stop
rule as jaxglm's default (the length of the step in the norm of the information, at most 1e-9), coefficients and nothing
else. No step is halved, no group is looked after, and every lane runs until the slowest has stopped.

Groups of different sizes are padded to the largest with weights of zero. Where the designs of all fits would take more than
MEMORY, it is given some of the fits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.adapters.interface import Job, Library, Setting
from benchmarks.checks import Found
from benchmarks.problems import MISSING, Problem

TOLERANCE, MAX_ITERATIONS = 1e-9, 100
MEMORY = {"cpu": 1e9, "gpu": 3e10}  # bytes of design, which the loop needs twice more
ROWS = ("y", "weights", "offset", "theta")


def working(family: str, eta: Any, y: Any, theta: Any) -> tuple[Any, Any]:
    """Working weights and scores, (n,)."""
    import jax
    import jax.numpy as jnp

    if family == "gaussian":
        return jnp.ones_like(eta), y - eta
    if family == "binomial":
        mu = jax.nn.sigmoid(eta)
        return mu * (1.0 - mu), y - mu
    mu = jnp.exp(eta)
    if family == "poisson":
        return mu, y - mu
    if family == "gamma":
        return jnp.ones_like(mu), y / mu - 1.0
    return mu / (1.0 + mu / theta), (y - mu) / (1.0 + mu / theta)


def start_eta(family: str, y: Any, weights: Any) -> Any:
    """R's start: eta at means near the responses."""
    import jax.numpy as jnp

    if family == "gaussian":
        return y
    if family == "binomial":
        mu = (weights * y + 0.5) / (weights + 1.0)
        return jnp.log(mu / (1.0 - mu))
    return jnp.log({"poisson": y + 0.1, "gamma": y}.get(family, jnp.where(y == 0, 1.0 / 6.0, y)))


def irls(family: str, X: Any, y: Any, weights: Any, offset: Any, theta: Any) -> tuple[Any, Any]:
    """One fit: coefficients and iterations."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.linalg import cho_solve

    estimated = family in ("gaussian", "gamma")

    def step(eta: Any, away: Any) -> tuple[Any, Any]:
        """The weighted least-squares fit of `away` plus the working residual, and its length in units of the stop rule."""
        w, score = working(family, eta, y, theta)
        w, score = weights * w, weights * score
        factor = jnp.linalg.cholesky(jnp.einsum("np,n,nq->pq", X, w, X))
        right = jnp.einsum("np,n->p", X, score + w * away)
        change = cho_solve((factor, True), right)
        unit = jnp.sum(score**2 / jnp.where(w > 0, w, 1.0)) / jnp.sum((weights > 0).astype(y.dtype)) if estimated else 1.0
        return change, jnp.sqrt(jnp.sum(change * right) / unit)

    def advance(state: Any) -> Any:
        b, _, count = state
        change, length = step(X @ b + offset, jnp.zeros_like(y))
        return b + change, length, count + 1

    eta = start_eta(family, y, weights)
    first, _ = step(eta, eta - offset)
    state = (first, jnp.asarray(jnp.inf, first.dtype), jnp.asarray(1, jnp.int32))
    b, _, count = jax.lax.while_loop(lambda s: (s[1] > TOLERANCE) & (s[2] < MAX_ITERATIONS), advance, state)
    return b, count


def dense(problem: Problem) -> tuple[dict[str, np.ndarray], dict[str, int | None]]:
    """Arrays that `vmap` can take, and their axes of fits: zero weights where a row is padding or a feature missing."""
    if problem.bounds is not None:
        sizes = np.diff(problem.bounds)
        inside = np.arange(sizes.max()) < sizes[:, None]
        X, y = np.zeros((*inside.shape, problem.p)), np.zeros(inside.shape)
        X[inside], y[inside] = problem.X, problem.y
        return {"X": X, "y": y, "weights": inside.astype(np.float64)}, {"X": 0, "y": 0, "weights": 0}
    arrays = {"X": problem.X} | {
        name: np.asarray(getattr(problem, name)) for name in ROWS if getattr(problem, name) is not None
    }
    if problem.features is not None:
        arrays["features"] = problem.features
    if problem.layout == "single":
        arrays = {name: values[None] for name, values in arrays.items()}
    own = {"X": 3, "theta": 1}
    return arrays, {name: 0 if values.ndim == own.get(name, 2) else None for name, values in arrays.items()}


def one(family: str) -> Callable[[dict[str, Any]], tuple[Any, Any]]:
    """`irls` of one fit's arrays, what is not there put in."""
    import jax.numpy as jnp

    def fit(arrays: dict[str, Any]) -> tuple[Any, Any]:
        X, y = arrays["X"], arrays["y"]
        weights, offset = arrays.get("weights", jnp.ones_like(y)), arrays.get("offset", jnp.zeros_like(y))
        if "features" in arrays:
            feature = arrays["features"]
            X = jnp.concatenate([X, feature.astype(X.dtype)[:, None]], axis=1)
            weights = jnp.where(feature == MISSING, 0.0, weights)
        return irls(family, X, y, weights, offset, arrays.get("theta"))

    return fit


def prepare(problem: Problem, setting: Setting) -> Job:
    import jax

    longest = problem.rows // problem.fits if problem.bounds is None else int(np.diff(problem.bounds).max())
    alike = problem.layout == "shared"
    each = (longest if alike else longest * problem.p) * 8
    places = problem.some(int(MEMORY[setting.device] / each) or 1, problem.rows)
    arrays, axes = dense(problem.take(places))
    device = jax.devices(setting.device)[0]
    program = jax.jit(jax.vmap(one(problem.family), in_axes=(axes,)))

    def transfer() -> Any:
        with jax.enable_x64(True):
            return jax.block_until_ready(jax.device_put(arrays, device))

    def run(there: Any) -> Any:
        with jax.enable_x64(True), jax.default_device(device):
            return jax.block_until_ready(program(there))

    return Job(run, places, lambda r: Found(np.asarray(r[0]), iterations=np.asarray(r[1])), transfer=transfer)


LIBRARY = Library(
    "naive_jax",
    "jit(vmap(while_loop)), coefficients only, device arrays to device arrays",
    prepare,
    tolerance=1e-7,
    distribution="jax",
    module="jax",
    devices=("cpu", "gpu"),
    compiles=True,
)
