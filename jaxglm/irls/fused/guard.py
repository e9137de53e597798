"""Whether a kernel can run: the device, the compiler, the family, and a test of the whole.

Kernels are an offer, never a duty. `available` says why there is none, in words for a debug log, and nothing here raises.
It looks before it leaps, since on a device that is too old the compiler does not refuse but aborts the process. What a
family may call is read off the compiler's own table of functions, so that a family of the user's own is judged like any
other; a kernel for it is then translated once, in advance, because inside somebody's `jit` an error could not be caught.
The first kernel on a device has to solve a few small problems, whose answers are checked without it.
"""

from __future__ import annotations

import inspect
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglm import families
from jaxglm.family import Family
from jaxglm.irls.fused.launch import solve
from jaxglm.irls.fused.recipes import Given, Recipe, recipe
from jaxglm.irls.fused.tiles import pack
from jaxglm.irls.options import IRLS

LARGEST = {np.dtype(np.float64): 10, np.dtype(np.float32): 12}  # columns, as many as registers hold
CAPABILITY = (9, 0)  # compute capability of the first devices that the compiler serves
AGREEMENT = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-4}  # the largest increment left in the self-test

log = logging.getLogger("jaxglm")


def available(family: Family, given: Given, device: Any, options: IRLS = IRLS()) -> str | None:  # noqa: B008
    """None if kernels can fit this family on this device, else the reason why not, which also goes to the debug log."""
    structure = jax.tree.structure(family)
    reason = _unavailable(structure, replace(given, dtype=np.dtype(given.dtype)), device, options)
    if reason is not None:
        log.debug("no kernel for %s with %d columns on %s: %s", family.name, given.p, device, reason)
    return reason


@lru_cache(maxsize=256)
def _unavailable(structure: Any, given: Given, device: Any, options: IRLS) -> str | None:
    try:
        with jax.enable_x64(True):
            return (
                _unfit_device(device)
                or _unfit_compiler()
                or _unfit_problem(given, options)
                or _unfit_family(recipe(structure, options, given))
                or _untranslatable(structure, given, device, options)
                or _failing(device, given.dtype)
            )
    except Exception as error:  # whatever a changing compiler may raise: there is another way
        return f"{type(error).__name__}: {error}".splitlines()[0]


def _unfit_device(device: Any) -> str | None:
    if device.platform not in ("gpu", "cuda"):
        return f"it needs a GPU, not {device.platform}"
    capability = str(getattr(device, "compute_capability", "0.0"))
    if not capability.replace(".", "").isdigit() or tuple(map(int, f"{capability}.0".split(".")[:2])) < CAPABILITY:
        return f"it needs compute capability {'.'.join(map(str, CAPABILITY))}, not {capability}"
    return None


def _unfit_compiler() -> str | None:
    """Whether this JAX has the kernel compiler as it is used here."""
    try:
        import jax.experimental.pallas.mosaic_gpu as plgpu

        wanted = {"out_type", "scratch_types", "grid", "grid_names", "compiler_params"}
        missing = wanted - set(inspect.signature(plgpu.kernel).parameters)
        missing |= {"force_gpu_interpret_mode"} - set(dir(plgpu))  # without which they could not be tested
        plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane, unsafe_no_auto_barriers=True)
    except (ImportError, AttributeError, TypeError) as error:
        return f"JAX {jax.__version__} has no such kernels: {error}"
    return f"the kernels of JAX {jax.__version__} lack {', '.join(sorted(missing))}" if missing else None


def _unfit_problem(given: Given, options: IRLS) -> str | None:
    if given.dtype not in LARGEST:
        return f"it has no arithmetic in {given.dtype}"
    if not 1 <= given.p <= LARGEST[given.dtype]:
        return f"it holds at most {LARGEST[given.dtype]} columns in {given.dtype}, not {given.p}"
    if options.factorization == "orthogonal":
        return "it solves normal equations only"
    return None


def _unfit_family(made: Recipe) -> str | None:
    """Whether the compiler knows every primitive of the family."""
    unknown = frozenset[str]().union(*(program.primitives for program in made.programs)) - _known()
    return f"the compiler does not know {', '.join(sorted(unknown))}" if unknown else None


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    """The names of the primitives that the compiler translates for lanes of a warpgroup."""
    from jax._src.pallas.mosaic_gpu import lowering

    for key, table in lowering.mosaic_lowering_rules.items():
        names = [part.name for part in (key if isinstance(key, tuple) else (key,))]
        if names in (["Lane"], ["Lane", "Warpgroup"]):
            return frozenset(primitive.name for primitive in table)
    return frozenset()


def _untranslatable(structure: Any, given: Given, device: Any, options: IRLS) -> str | None:
    """Translate a kernel for this family, without running it. What goes wrong is raised."""
    family = jax.tree.unflatten(structure, [1.0] * structure.num_leaves)
    X, rows = jax.ShapeDtypeStruct((1, 1, given.p), given.dtype), jax.ShapeDtypeStruct((1, 1), given.dtype)

    def run(X: Any, y: Any, weights: Any, offset: Any) -> Any:
        return solve(pack(X, y, weights, offset, given.parts), family, options)

    with jax.default_device(device):
        jax.jit(run).lower(X, rows, rows if given.weights else None, rows if given.offset else None)
    return None


@lru_cache(maxsize=16)
def _failing(device: Any, dtype: Any) -> str | None:
    """Whether kernels on this device fail a small test. It runs in a thread, out of what may be traced around it."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(self_test, device, dtype).result()


def self_test(device: Any, dtype: Any) -> str | None:
    """What is wrong with the answers to a few small problems, None if nothing is."""
    X, y, plain = _problems(dtype)
    with jax.enable_x64(True), jax.default_device(device):
        run = jax.jit(lambda X, y: solve(pack(X, y, parts=4), families.Binomial()))
        fits = run(jnp.asarray(X), jnp.asarray(y))
        coefficients, decided = np.asarray(fits.coefficients, np.float64), np.asarray(fits.decided)
    if not np.array_equal(decided, plain):
        return f"of {len(plain)} test problems it decided {int(decided.sum())} and not {int(plain.sum())}"
    X, y, coefficients = X[plain].astype(np.float64), y[plain].astype(np.float64), coefficients[plain]
    mu = 1.0 / (1.0 + np.exp(-np.einsum("gnp,gp->gn", X, coefficients)))
    score, information = np.einsum("gni,gn->gi", X, y - mu), np.einsum("gni,gn,gnj->gij", X, mu * (1.0 - mu), X)
    rest = np.abs(np.linalg.solve(information, score[..., None])).max()
    return None if rest <= AGREEMENT[np.dtype(dtype)] else f"its test results are {rest:.1e} from the optimum"


def _problems(dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (g, n, p), y (g, n) and which have a plain answer: not the separated, nor that with twice the same column."""
    g, n = 40, 24
    rng = np.random.default_rng(0)
    X = np.concatenate([np.ones((g, n, 1)), rng.uniform(-1.0, 1.0, (g, n, 2))], axis=2)
    y = np.tile(np.arange(n) % 2, (g, 1))
    y[0] = X[0, :, 1] > 0.0
    X[1, :, 2] = X[1, :, 1]
    return X.astype(dtype), y.astype(dtype), np.arange(g) > 1
