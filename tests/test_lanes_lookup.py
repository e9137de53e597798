"""Lanes of a CPU: rows are looked up wherever they lie, and whether lanes are right is tested before they are used."""

import importlib.util
import logging

import jax
import numpy as np
import pytest

import jaxglm
from jaxglm import IRLS, families
from jaxglm.irls.lanes import Job, Rows, guard, solve
from jaxglm.irls.lanes.run import _blocks, shape_of
from jaxglm.irls.solution import nothing

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed")


def fitted(X, y, weights, offset, sizes):
    """The coefficients of fits whose rows are the first of n, each."""
    g, _, p = X.shape
    rows = Rows(X, y, weights, offset, np.zeros(g, np.int64), sizes)
    found = nothing(g, p)
    solve(Job(rows, families.Poisson(), None, None, IRLS(), np.dtype(np.float64)), found, np.arange(g))
    return found.coefficients


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 22])
def test_each_group_has_one_lane(count):
    lanes, rng = 4, np.random.default_rng(count)
    groups = np.sort(rng.choice(100, count, replace=False))
    for sizes in (np.full(100, 7), rng.integers(0, 50, 100)):
        blocks = _blocks(groups, sizes[groups], lanes)
        assert sorted(blocks[blocks >= 0]) == list(groups)
        assert len(blocks) == lanes * -(-count // lanes)
        if (sizes == 7).all():  # each lane goes along its own share, in order
            in_order = blocks.reshape(-1, lanes).T.reshape(-1)
            np.testing.assert_array_equal(in_order[in_order >= 0], groups)
        else:  # blocks are of about the same size: no group of a later block is larger than one before
            kept = sizes[blocks[blocks >= 0]]
            assert (np.diff(kept) <= 0).all()


def backwards(values):
    """The same numbers, the last first in memory."""
    return values[..., ::-1].copy()[..., ::-1]


def spaced(values):
    """The same numbers, with others between them."""
    return np.repeat(values, 3, axis=-1)[..., ::3]


def rows_first(values):
    """The same numbers, rows next to each other."""
    return np.ascontiguousarray(np.moveaxis(values, 1, -1)).swapaxes(1, -1) if values.ndim == 3 else np.asfortranarray(values)


@pytest.mark.parametrize("p", [1, 2, 3, 5, 6, 7, 8, 11, 13])
@pytest.mark.parametrize("weighted", [True, False])
def test_rows_are_looked_up_wherever_they_lie(p, weighted):
    """Blocks of full lanes, of lanes of different sizes, with an empty one, and a block that is not full."""
    rng = np.random.default_rng(p)
    g, n = 21, 45
    sizes = np.full(g, n)
    sizes[8:16] = [17, 18, 19, 20, 21, 22, 0, 45]
    X = np.round(rng.uniform(-1.0, 1.0, (g, n, p)) * 64.0)  # numbers that float32 and int8 hold as well
    y, offset = rng.poisson(2.0, (g, n)).astype(float), np.round(rng.normal(size=(g, n)), 1).astype(np.float32)
    weights = rng.integers(0, 4, (g, n)).astype(float) if weighted else None
    expected = fitted(X, y, weights, offset, sizes)
    assert np.isfinite(expected[sizes > 2 * p + 8]).all()
    assert np.isnan(expected[sizes == 0]).all()
    for moved in (backwards, spaced, rows_first, np.float32, np.int8):
        where = [v if v is None else moved(v) for v in (X, y, weights)]
        of_offset = offset if moved is np.int8 else moved(offset)
        np.testing.assert_array_equal(fitted(*where, of_offset, sizes), expected, err_msg=moved.__name__)
    alone = np.concatenate(
        [fitted(*(v if v is None else v[i : i + 1] for v in (X, y, weights, offset, sizes))) for i in range(g)]
    )
    np.testing.assert_array_equal(alone, expected)


def test_an_order_changes_nothing():
    rng = np.random.default_rng(3)
    groups = rng.permutation(np.repeat(np.arange(30), rng.integers(10, 60, 30)))
    X, y = rng.normal(size=(len(groups), 4)), rng.poisson(2.0, len(groups)).astype(float)
    order = np.argsort(groups, kind="stable")
    mixed, sorted_ = (jaxglm.fit(X[i], y[i], "poisson", groups=groups[i]) for i in (np.arange(len(y)), order))
    np.testing.assert_array_equal(mixed.coefficients, sorted_.coefficients)


@pytest.fixture
def untested(monkeypatch):
    """A guard that has not tested anything yet."""
    for cached in (guard._untranslatable, guard._failing):
        cached.cache_clear()
    yield monkeypatch
    for cached in (guard._untranslatable, guard._failing):
        cached.cache_clear()


@pytest.mark.parametrize(
    "wrong", [lambda found: found * (1.0 + 1e-6), lambda found: np.where(np.arange(21) == 5, np.nan, found)]
)
def test_lanes_that_are_wrong_are_not_used(untested, caplog, wrong):
    original = guard.ask
    untested.setattr(guard, "ask", lambda *arguments: wrong(original(*arguments)))
    X = np.random.default_rng(1).normal(size=(40, 3))
    job = Job(
        Rows(X, X[:, 0], None, None, np.zeros(1, np.int64), np.array([40])), families.Gaussian(), None, None, IRLS(), float
    )
    with caplog.at_level(logging.DEBUG, logger="jaxglm"):
        assert "from the optimum" in guard.available(job, jax.devices("cpu")[0])
        assert np.isfinite(jaxglm.fit(X, X @ [1.0, 2.0, 3.0] + 0.1 * X[:, 0] ** 2).coefficients).all()
    assert "no lanes for gaussian with 3 columns" in caplog.text


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_lanes_of_this_machine_are_right(untested, dtype):
    assert guard._failing(dtype) is None


def test_columns_side_by_side_have_a_kernel_of_their_own():
    X, y = np.zeros((4, 10, 3)), np.zeros((4, 10))

    def adjacent(X):
        rows = Rows(X, y, None, None, np.zeros(4, np.int64), np.full(4, 10))
        return shape_of(Job(rows, families.Gaussian(), None, None, IRLS(), float)).adjacent

    assert adjacent(X)
    assert adjacent(X[:, ::2])
    assert not adjacent(X[..., ::-1])
    assert not adjacent(X[..., :1])
