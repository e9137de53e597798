"""Fused kernels without a GPU: interpreted, where JAX can."""

import jax
import numpy as np
import pytest


def interpreter():
    """The context in which kernels are interpreted, or None."""
    try:
        import jax.experimental.pallas.mosaic_gpu as plgpu
    except ImportError:
        return None
    return getattr(plgpu, "force_gpu_interpret_mode", None)


interpreted = pytest.mark.skipif(interpreter() is None, reason=f"JAX {jax.__version__} does not interpret GPU kernels")


@pytest.fixture(scope="module", autouse=True)
def x64_everywhere():
    """The interpreter's own threads compute in float64 only if the configuration says so, not a context."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def problem(seed, g=100, n=16, p=2, noise=1.0):
    """X (g, n, p), eta (g, n) and a generator, for fits that are unremarkable."""
    rng = np.random.default_rng(seed)
    X = np.concatenate([np.ones((g, n, 1)), rng.uniform(-1.0, 1.0, (g, n, p - 1))], axis=2)
    return X, np.einsum("gnp,gp->gn", X, 0.5 * rng.normal(size=(g, p)) * noise), rng
