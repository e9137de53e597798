"""Small linear algebra against numpy, R's rule for dependent columns, and the kinds of design against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxglm.designs import Appended, Constant, Dense, Shared, from_pairs, standardize
from jaxglm.linalg import cholesky, least_pivot, orthogonal, solve_on_host, stack

P, N = 4, 30


def draw(seed=0, p=P, n=N):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)), rng.uniform(0.5, 2.0, n), rng.normal(size=(n, 2))


def triangle(X, b):
    rows = jnp.concatenate([jnp.asarray(X), jnp.asarray(b)], axis=1)
    k = rows.shape[1]
    return stack(jnp.zeros((k, k), rows.dtype), rows)


@jax.jit
def factor_rows(X, b, keep, tolerance):
    return orthogonal(triangle(X, b), b.shape[1], keep, tolerance)


ALL = jnp.ones(P, bool)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_systems_that_are_known(x64, dtype):
    """Solved by LAPACK, they are as those that programs solve: all columns, some of them, and none that can be trusted."""
    X, w, b = draw(p=6)
    gram, right = (X.T @ (w[:, None] * X)).astype(dtype), (X.T @ b).astype(dtype)
    for keep in (np.ones(6, bool), np.arange(6) != 2):
        factor, increments, decrements = solve_on_host(gram, right, keep)
        inverse = np.zeros((6, 6))
        inverse[np.ix_(keep, keep)] = np.linalg.inv(gram[np.ix_(keep, keep)].astype(float))
        close = {"rtol": 200 * np.finfo(dtype).eps, "atol": 20 * np.finfo(dtype).eps}
        np.testing.assert_allclose(increments, inverse @ right, **close)
        np.testing.assert_allclose(decrements, np.diag(right.T @ inverse @ right), **close)
        np.testing.assert_allclose(factor.inverse(), inverse, **close)
        assert factor.inverse().dtype == increments.dtype == decrements.dtype == factor.lengths.dtype == dtype
        program = cholesky(jnp.where(keep[:, None] & keep, gram, jnp.eye(6, dtype=dtype)))
        np.testing.assert_allclose(factor.lengths, program.lengths, **close)
        np.testing.assert_allclose(factor.smallest_pivot, program.smallest_pivot, **close)
        np.testing.assert_array_equal(factor.aliased, ~keep)
    X[:, 5] = X[:, 4] - X[:, 3]
    infinite = np.where(np.eye(6) > 0, np.inf, 1.0)
    for broken in (X.T @ X, np.full((6, 6), np.nan), -np.eye(6), infinite):
        factor, increments, _ = solve_on_host(broken.astype(dtype), right, np.ones(6, bool))
        assert not factor.smallest_pivot > least_pivot(dtype)
        assert increments.shape == (6, 2)


def test_cholesky_against_numpy(x64):
    X, w, b = draw()
    X = X * [1.0, 1e6, 1e-6, 3.0]
    gram, right = X.T @ (w[:, None] * X), X.T @ b
    factor = cholesky(jnp.asarray(gram))
    inverse = np.linalg.inv(gram)
    np.testing.assert_allclose(factor.inverse(), inverse, rtol=1e-11)
    np.testing.assert_allclose(factor.unwhiten(factor.whiten(jnp.asarray(right))), inverse @ right, rtol=1e-10)
    np.testing.assert_allclose(
        np.sum(factor.whiten(jnp.asarray(right)) ** 2, 0), np.diag(right.T @ inverse @ right), rtol=1e-11
    )
    np.testing.assert_allclose(factor.lengths, np.sqrt(np.diag(gram)), rtol=1e-14)
    size = np.sqrt(np.diag(gram))
    pivots = np.diag(np.linalg.cholesky(gram / size / size[:, None])) ** 2
    assert float(factor.smallest_pivot) == pytest.approx(pivots.min(), rel=1e-12)
    assert not factor.aliased.any()


def test_cholesky_of_an_indefinite_matrix_says_so(x64):
    assert not float(cholesky(jnp.asarray([[1.0, 2.0], [2.0, 1.0]])).smallest_pivot) > 0


def test_orthogonal_against_numpy(x64):
    X, w, b = draw(1)
    root = np.sqrt(w)[:, None]
    factor, whitened = factor_rows(X * root, b * root, ALL, 1e-11)
    expected = np.linalg.lstsq(X * root, b * root, rcond=None)[0]
    np.testing.assert_allclose(factor.unwhiten(whitened), expected, rtol=1e-12)
    np.testing.assert_allclose(factor.inverse(), np.linalg.inv(X.T @ (w[:, None] * X)), rtol=1e-12)
    np.testing.assert_allclose(factor.whiten(jnp.asarray(X.T @ (w[:, None] * b))), whitened, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(factor.lengths, np.linalg.norm(X * root, axis=0), rtol=1e-14)


def test_orthogonal_keeps_what_the_gram_matrix_loses(x64):
    X, _, _ = draw(2)
    X[:, 3] = X[:, 0] + 1e-8 * X[:, 3]
    true = np.array([1.0, -2.0, 3.0, 0.5])
    b = (X @ true)[:, None]
    factor, whitened = factor_rows(X, np.hstack([b, b]), ALL, 1e-11)
    np.testing.assert_allclose(factor.unwhiten(whitened)[:, 0], true, rtol=1e-6)
    assert float(factor.smallest_pivot) == pytest.approx(1e-16, rel=2.0)
    assert not float(cholesky(jnp.asarray(X.T @ X)).smallest_pivot) > 1e-10


@pytest.mark.parametrize(("gap", "dependent"), [(1e-10, False), (1e-12, True), (0.0, True)])
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_near_dependent_columns(x64, gap, dependent, scale):
    X, _, b = draw(3)
    basis = np.linalg.qr(X)[0]
    X = np.column_stack([basis[:, 0], basis[:, 1], scale * (basis[:, 0] + gap * basis[:, 2]), basis[:, 3]])
    factor, whitened = factor_rows(X, b, ALL, 1e-11)
    np.testing.assert_array_equal(factor.aliased, [False, False, dependent, False])
    if dependent:
        solution = np.asarray(factor.unwhiten(whitened))
        assert (solution[2] == 0).all()
        np.testing.assert_allclose(solution[[0, 1, 3]], np.linalg.lstsq(X[:, [0, 1, 3]], b, rcond=None)[0], rtol=1e-11)
        assert (np.asarray(factor.inverse())[2] == 0).all()


def test_the_earlier_column_stays(x64):
    X, _, b = draw(4)
    X[:, 1], X[:, 3] = 0.0, 2.0 * X[:, 0] - X[:, 2]
    factor, _ = factor_rows(X, b, ALL, 1e-11)
    np.testing.assert_array_equal(factor.aliased, [False, True, False, True])
    X = X[:, [3, 1, 2, 0]]
    np.testing.assert_array_equal(factor_rows(X, b, ALL, 1e-11)[0].aliased, [False, True, False, True])


def test_columns_not_to_keep(x64):
    X, _, b = draw(5)
    factor, whitened = factor_rows(X, b, jnp.asarray([True, False, True, True]), 0.0)
    np.testing.assert_array_equal(factor.aliased, [False, True, False, False])
    expected = np.linalg.lstsq(X[:, [0, 2, 3]], b, rcond=None)[0]
    np.testing.assert_allclose(factor.unwhiten(whitened)[np.array([0, 2, 3])], expected, rtol=1e-12)


def test_fewer_rows_than_columns(x64):
    X, _, b = draw(6)
    some = np.zeros_like(X)
    some[:2] = X[:2]
    factor, _ = factor_rows(some, b, ALL, 1e-11)
    np.testing.assert_array_equal(factor.aliased, [False, False, True, True])


def test_stacking_chunks(x64):
    X, _, _ = draw(7)
    upper = jnp.zeros((P, P))
    for chunk in np.split(X, 3):
        upper = stack(upper, jnp.asarray(chunk))
    np.testing.assert_allclose(np.asarray(upper).T @ np.asarray(upper), X.T @ X, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(np.tril(upper, -1), 0.0)


def test_float32_stays_float32(x64):
    X, _, b = (a.astype(np.float32) for a in draw(8))
    factor, whitened = factor_rows(X, b, ALL, 1e-5)
    assert {leaf.dtype for leaf in (factor.upper, factor.scale, factor.smallest_pivot, whitened)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(factor.unwhiten(whitened), np.linalg.lstsq(X, b, rcond=None)[0], rtol=1e-4, atol=1e-6)
    assert cholesky(jnp.asarray(X.T @ X)).upper.dtype == jnp.float32


def test_designs_agree(x64):
    X, w, r = (jnp.asarray(a) for a in draw(9))
    designs = [Dense(X.T), Shared.of(X.T), Appended(Shared.of(X[:, :-1].T), X[:, -1])]
    v = jnp.asarray([0.3, -1.0, 2.0, 0.7])
    for design in designs:
        np.testing.assert_allclose(design.matrix(), X)
        np.testing.assert_allclose(design.dot(v), X @ v, rtol=1e-13)
        np.testing.assert_allclose(design.transposed_dot(r.T), X.T @ r, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(design.gram(w), X.T @ (w[:, None] * X), rtol=1e-12, atol=1e-13)
    constant, ones = Constant(), Dense(jnp.ones((1, N)))
    np.testing.assert_allclose(constant.transposed_dot(r.T), ones.transposed_dot(r.T), rtol=1e-13)
    np.testing.assert_allclose(constant.gram(w), ones.gram(w), rtol=1e-13)
    np.testing.assert_allclose(jnp.broadcast_to(constant.dot(v[:1]), (N,)), ones.dot(v[:1]))


def test_shared_gram_under_vmap(x64):
    X, _, _ = draw(10)
    weights = np.random.default_rng(1).uniform(size=(3, N))
    grams = jax.vmap(Shared.of(jnp.asarray(X.T)).gram)(jnp.asarray(weights))
    np.testing.assert_allclose(grams, np.einsum("np,gn,nq->gpq", X, weights, X), rtol=1e-12, atol=1e-13)


def test_pairs():
    np.testing.assert_array_equal(from_pairs(jnp.arange(6), 3), [[0, 1, 3], [1, 2, 4], [3, 4, 5]])


def test_standardize(x64):
    X, _, _ = draw(11)
    X = X * [1.0, 1e200, 1e-200, 0.0]
    scaled, scale, broken = standardize(jnp.asarray(X.T))
    np.testing.assert_array_equal(np.log2(scale), np.round(np.log2(scale)))
    np.testing.assert_array_equal(np.asarray(scaled) * np.asarray(scale)[:, None], X.T)
    assert 0.25 <= np.abs(scaled).max() <= 1.0
    assert float(scale[3]) in (1.0, 2.0)
    assert not broken.any()
    X[[2, 5], [0, 1]] = np.nan, np.inf
    scaled, _, broken = standardize(jnp.asarray(X.T))
    np.testing.assert_array_equal(np.flatnonzero(broken), [2, 5])
    assert (np.asarray(scaled)[:, [2, 5]] == 0).all()


def test_stacking_fewer_rows_than_columns():
    """What is left of the later columns is rounding of rounding, down to numbers without reciprocals."""
    rows = np.random.default_rng(7).normal(size=(2, 12)) * 10.0 ** np.arange(-6, 6)
    with jax.enable_x64(True):
        upper = np.asarray(stack(jnp.zeros((12, 12)), jnp.asarray(rows)))
        again = np.asarray(stack(jnp.asarray(upper), jnp.asarray(rows)))
    size = np.linalg.norm(rows, axis=0)
    np.testing.assert_allclose(upper.T @ upper / np.outer(size, size), rows.T @ rows / np.outer(size, size), atol=1e-14)
    np.testing.assert_allclose(again.T @ again / np.outer(size, size), 2 * rows.T @ rows / np.outer(size, size), atol=1e-14)
