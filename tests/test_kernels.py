"""Who runs kernels, and what becomes of the fits: the plain pass over fits of one shape and over ragged groups."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreting import interpreted, interpreter, problem, x64_everywhere

import jaxglm
from jaxglm import IRLS, Status, families
from jaxglm.irls import fused
from jaxglm.irls.blocks import Blocks, blocks_of
from jaxglm.irls.data import Data
from jaxglm.irls.many import solve_plain_batch
from jaxglm.irls.solution import reported

__all__ = ["x64_everywhere"]  # a fixture


@interpreted
@pytest.mark.parametrize("weighted", [False, True])
def test_the_plain_pass_by_a_kernel_is_the_plain_pass(weighted):
    """Coefficients, statistics and statuses, for a window of the fits, some of which are not plain."""
    family = families.Poisson()
    X, eta, rng = problem(3, g=70, n=24, p=3)
    y, offset = rng.poisson(np.exp(eta)).astype(float), rng.uniform(-0.5, 0.5, eta.shape)
    y[20], X[21, :, 2], y[22, 3] = 0.0, 2.0 * X[21, :, 1], -1.0
    weights = rng.integers(1, 3, y.shape).astype(float) if weighted else np.ones(24)
    data = Data(*map(jnp.asarray, (X, y, weights, offset)), None, family)

    def solved(parts):
        blocks = Blocks(16, parts, weighted)
        return jax.jit(lambda data: reported(solve_plain_batch(50, IRLS(), blocks, data, None, 5)))(data)

    with interpreter()():
        by_kernel = jax.tree.map(np.asarray, solved(2))
    general = solved(0)
    np.testing.assert_array_equal(by_kernel.undecided, general.undecided)
    np.testing.assert_array_equal(by_kernel.status[~general.undecided], general.status[~general.undecided])
    decided = ~np.asarray(general.undecided) & (np.asarray(general.status) == Status.CONVERGED)
    assert decided.sum() == 47
    for name in ("coefficients", "covariance", "deviance", "null_deviance", "log_likelihood"):
        np.testing.assert_allclose(getattr(by_kernel, name)[decided], getattr(general, name)[decided], rtol=1e-8, atol=1e-10)
    assert (by_kernel.n_iterations[decided] >= 3).all()


def test_blocks_use_a_kernel_where_there_is_one(monkeypatch):
    data = Data(jnp.ones((300, 40, 3)), jnp.ones((300, 40)), jnp.ones(40), None, None, families.Poisson())
    device = jax.devices()[0]
    assert blocks_of(data, 300, IRLS(), device).parts == 0
    monkeypatch.setattr(fused, "available", lambda family, given, device, options: None if given.p == 3 else "no")
    assert blocks_of(data, 300, IRLS(), device, weighted=False).parts == fused.parts_for(300, 40)
    assert not blocks_of(data, 300, IRLS(), device, weighted=False).weighted
    for other in ({"X": jnp.ones((40, 3))}, {"X": jnp.ones((300, 40, 4))}, {"penalty": jnp.ones(3)}):
        assert blocks_of(replace(data, **other), 300, IRLS(), device).parts == 0


@interpreted
def test_ragged_groups_by_kernel_are_the_same_groups(monkeypatch):
    """From arrays to results, with groups that are separated, deficient, invalid, and of one row."""
    rng = np.random.default_rng(9)
    sizes = np.array([30, 12, 1, 25, 18, 40, 9, 22])
    groups = np.repeat(np.arange(len(sizes)), sizes)
    X = np.column_stack([np.ones(len(groups)), rng.normal(size=len(groups))])
    y = rng.poisson(np.exp(1.0 + 0.3 * X[:, 1])).astype(float)
    y[groups == 3], X[groups == 4, 1], y[np.flatnonzero(groups == 7)[0]] = 0.0, 2.0, -1.0
    order = rng.permutation(len(y))
    given = X[order], y[order], "poisson"

    def fitted():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jaxglm.StatusWarning)
            return jaxglm.fit(*given, groups=groups[order], weights=1.0 + (order % 2), offset=0.1 * X[order, 1])

    general = fitted()
    monkeypatch.setattr(fused, "available", lambda *given: None)
    with interpreter()():
        found = fitted()
    np.testing.assert_array_equal(found.status, general.status)
    for name in ("coefficients", "standard_errors", "deviance", "null_deviance", "log_likelihood"):
        np.testing.assert_allclose(getattr(found, name), getattr(general, name), rtol=1e-8, atol=1e-10)
