"""Groups of any sizes, labels and order: what a group gets depends on nothing but its own rows.

All fits are Poisson with four columns, so that the whole file compiles only a few programs. Results of converged groups
agree to 1e-12 in eta, or to 1e-15 times the condition of the design where that is more.
"""

import datetime

import jax
import numpy as np
import pytest

import jaxglm
from jaxglm import Status, calls, families, irls
from jaxglm.groups import factorize
from jaxglm.packing import Layout

P = 4
pytestmark = pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")


def rows_of(sizes, seed=0):
    """X (N, P), y and ids (N,) of groups of these sizes: a constant, two numbers, and one level of a factor."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(len(sizes)), sizes)
    n = len(ids)
    X = np.column_stack([np.ones(n), rng.normal(size=n), rng.uniform(-1, 1, n), rng.integers(0, 2, n)])
    eta = X @ np.array([1.0, 0.3, -0.5, 0.2]) + 0.2 * rng.normal(size=len(sizes))[ids]
    return X, rng.poisson(np.exp(eta)).astype(float), ids


@pytest.fixture(scope="module")
def mixed():
    """Sizes from 1 row to 20,000, log-uniform, in no order; the rows, and their fit."""
    rng = np.random.default_rng(1)
    small = np.exp(rng.uniform(0, np.log(20000), 60)).astype(int)
    sizes = rng.permutation(np.concatenate([[1, 2, 3, 4, 5, 32, 33, 1024, 1025, 2048, 2049, 20000], small]))
    X, y, ids = rows_of(sizes)
    return X, y, ids, jaxglm.fit(X, y, family="poisson", groups=ids)


def fit(X, y, ids, **arguments):
    return jaxglm.fit(X, y, family="poisson", groups=ids, **arguments)


def assert_same(X, fit, other, ids, places=None):
    """Statuses, aliasing and counts are equal, and eta of converged groups as near as their condition allows. places:
    where the groups of `other` are in `fit`."""
    places = np.arange(len(fit)) if places is None else np.asarray(places)
    for name in ("status", "rank", "n_obs", "df_residual", "df_null", "infinite"):
        np.testing.assert_array_equal(getattr(fit, name)[places], getattr(other, name), err_msg=name)
    np.testing.assert_array_equal(np.isnan(fit.coefficients[places]), np.isnan(other.coefficients))
    for at, place in enumerate(places):
        if fit.status[place] == Status.CONVERGED and fit.n_obs[place] > fit.rank[place]:
            rows, keep = X[ids == place], ~np.isnan(other.coefficients[at])
            a, b = rows[:, keep] @ fit.coefficients[place, keep], rows[:, keep] @ other.coefficients[at, keep]
            condition = np.linalg.cond(rows[:, keep] / np.linalg.norm(rows[:, keep], axis=0))
            bound = 1e-12 if condition < 1e4 else 1e-15 * condition
            assert np.max(np.abs(a - b)) <= bound * max(1.0, np.max(np.abs(a))), (place, np.max(np.abs(a - b)), condition)
            np.testing.assert_allclose(fit.deviance[place], other.deviance[at], rtol=1e-10, atol=1e-10)


def test_every_size_ends_with_an_answer(mixed):
    _, _, ids, fits = mixed
    np.testing.assert_array_equal(fits.n_obs, np.bincount(ids))
    assert np.isin(fits.status, (Status.CONVERGED, Status.SEPARATED)).all()
    assert fits.converged[np.bincount(ids) >= 40].all()


def test_the_order_of_rows_does_not_matter(mixed):
    X, y, ids, fits = mixed
    order = np.random.default_rng(2).permutation(len(y))
    shuffled = fit(X[order], y[order], ids[order])
    assert_same(X, fits, shuffled, ids)
    np.testing.assert_allclose(shuffled.fitted, fits.fitted[order], rtol=1e-9, atol=1e-12)


def test_row_wise_results_come_in_the_order_of_the_rows(mixed):
    X, _, ids, fits = mixed
    b = np.nan_to_num(fits.coefficients)[ids]
    sound = np.isin(ids, np.flatnonzero(fits.converged))
    np.testing.assert_allclose(fits.linear_predictor[sound], np.sum(X * b, axis=1)[sound], rtol=1e-10, atol=1e-12)


def test_the_names_of_groups_do_not_matter(mixed):
    X, y, ids, fits = mixed
    names = np.random.default_rng(3).permutation(len(fits))
    renamed = fit(X, y, names[ids])
    assert_same(X, fits, renamed, ids, np.argsort(names))


def test_batch_mates_do_not_matter(mixed):
    X, y, ids, fits = mixed
    sizes = np.bincount(ids)
    for place in [*np.argsort(sizes)[[0, 2, 5, 20, 40, 55]], int(np.argmax(sizes))]:
        inside = ids == place
        assert_same(X, fits, fit(X[inside], y[inside], ids[inside]), ids, [place])
    some = np.isin(ids, np.arange(0, len(fits), 3))
    assert_same(X, fits, fit(X[some], y[some], ids[some]), ids, np.arange(0, len(fits), 3))


@pytest.mark.parametrize(("small", "large", "many"), [((3, 16), (2, 512), 300), ((8, 32), (1, 2048), 10**6)])
def test_the_layout_does_not_matter(mixed, monkeypatch, without_lanes, small, large, many):
    X, y, ids, fits = mixed
    few = np.isin(ids, np.flatnonzero(np.bincount(ids) < 3000))
    monkeypatch.setattr(calls, "SMALL", Layout(*small))
    monkeypatch.setattr(calls, "LARGE", Layout(*large))
    monkeypatch.setattr(calls, "MANY_ROWS", many)
    assert_same(X, fits, fit(X[few], y[few], ids[few]), ids, np.unique(ids[few]))


def test_against_a_loop_of_single_fits(mixed):
    """Sixteen groups of one size, which is one program for `irls.solve`."""
    X, y, ids = rows_of([40] * 16, seed=5)
    fits = fit(X, y, ids)
    with jax.enable_x64(True):
        for k in range(16):
            alone = irls.solve(X[ids == k], y[ids == k], families.Poisson())
            np.testing.assert_allclose(fits.coefficients[k], alone.coefficients, rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(fits.covariance[k], alone.covariance, rtol=1e-9, atol=1e-13)
            for name in ("deviance", "null_deviance", "log_likelihood"):
                np.testing.assert_allclose(getattr(fits, name)[k], getattr(alone, name), rtol=1e-11)


def test_one_batch_of_one_group_is_one_fit(mixed):
    X, y, ids, _ = mixed
    inside = ids == np.argmax(np.bincount(ids))
    many, one = fit(X[inside], y[inside], ids[inside]), jaxglm.fit(X[inside], y[inside], family="poisson")
    assert many.coefficients.shape == (1, P)
    np.testing.assert_array_equal(many.coefficients[0], one.coefficients)
    assert (many.deviance[0], int(many.status[0])) == (one.deviance, one.status)


def left_to_right(X, tolerance=1e-11):
    """Columns that R's dqrdc2 keeps: what is left of one after those before it, against its length."""
    keep, basis = [], np.zeros((len(X), 0))
    for column in X.T:
        rest = column - basis @ (basis.T @ column)
        rest = rest - basis @ (basis.T @ rest)
        keep.append(bool(np.linalg.norm(rest) > tolerance * np.linalg.norm(column)))
        if keep[-1]:
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
    return np.array(keep)


def test_aliasing_is_that_of_a_left_to_right_factorization():
    rng = np.random.default_rng(7)
    designs = []
    for n in [1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 12, 20, 40, 60, 90]:
        X = np.column_stack([np.ones(n), rng.normal(size=n), rng.uniform(-1, 1, n), rng.integers(0, 2, n)])
        designs += [X, X * [1, 0, 1, 1], X * [1, 1, 1, 0], np.column_stack([X[:, :2], 3 * X[:, 1] - 2, X[:, 3]])]
        designs += [X[:, [1, 0, 3, 2]] * [0, 1, 1, 1], np.column_stack([X[:, 0] * 5, X[:, 0], X[:, 3], 1 - X[:, 3]])]
        designs += [X * [1e-9, 1e9, 1e12, 1e-12], np.column_stack([X[:, :3], X[:, 1] + 1e-13 * X[:, 2]])]
    ids = np.repeat(np.arange(len(designs)), [len(X) for X in designs])
    fits = fit(np.concatenate(designs), rng.poisson(3.0, len(ids)) + 1.0, ids)
    keep = np.array([left_to_right(X) for X in designs])
    assert fits.converged.all()
    np.testing.assert_array_equal(~np.isnan(fits.coefficients), keep)
    np.testing.assert_array_equal(fits.rank, keep.sum(axis=1))
    np.testing.assert_array_equal(np.isnan(fits.standard_errors), ~keep)
    both = keep[:, :, None] & keep[:, None, :]
    np.testing.assert_array_equal(np.isnan(fits.covariance), ~both)
    np.testing.assert_array_equal(fits.df_residual, fits.n_obs - fits.rank)


KEYS = {
    "int": np.array([7, -3, 12, 10**12]),
    "str": np.array(["b", "a", "ü", "a b"]),
    "float": np.array([0.5, -1.5, 2.0, np.inf]),
    "bool": np.array([True, False]),
    "date": np.array(["2021-05-01", "2020-01-31", "2024-02-29"], "datetime64[D]"),
    "time": np.array(["2021-05-01T10:00", "2020-01-31T00:01"], "datetime64[ns]"),
    "object": np.array(["b", "a", "c"], object),
    "object of dates": np.array([datetime.date(2021, 5, 1), datetime.date(2020, 1, 31)], object),
}


@pytest.mark.parametrize("kind", KEYS)
def test_any_kind_of_label(kind):
    X, y, ids = rows_of([40] * len(KEYS[kind]), seed=9)
    order = np.random.default_rng(4).permutation(len(y))
    X, y, ids = X[order], y[order], ids[order]
    fits = fit(X, y, KEYS[kind][ids])
    np.testing.assert_array_equal(fits.groups, np.sort(KEYS[kind]))
    plain = fit(X, y, ids)
    for place, key in enumerate(KEYS[kind]):
        np.testing.assert_allclose(fits[key].coefficients, plain.coefficients[place], rtol=1e-11, atol=1e-13)


def test_labels_of_two_columns():
    X, y, ids = rows_of([40] * 6, seed=9)
    store, year = np.array(["n", "s"])[ids % 2], np.array([2021, 2019, 2020])[ids // 2]
    fits = fit(X, y, (store, year))
    assert fits.groups == [("n", 2019), ("n", 2020), ("n", 2021), ("s", 2019), ("s", 2020), ("s", 2021)]
    plain = fit(X, y, ids)
    np.testing.assert_allclose(fits["s", 2019].coefficients, plain.coefficients[3], rtol=1e-11, atol=1e-13)


def test_rows_without_a_label_belong_nowhere():
    X, y, ids = rows_of([40] * 4, seed=9)
    for labels in (np.where(ids == 1, np.nan, ids), np.where(ids == 1, None, ids.astype(object))):
        fits = fit(X, y, labels)
        assert fits.groups.tolist() == [0, 2, 3]
        assert fits.n_unassigned == 40
        assert np.isnan(fits.fitted[ids == 1]).all()
        assert np.isfinite(fits.fitted[ids != 1]).all()


def test_a_list_of_pairs_is_not_taken_for_columns():
    """Labels that are tuples, one a row, are neither two rows of labels nor silently wrong."""
    pairs = [("a", 1), ("b", 2), ("a", 1)]
    try:
        groups = factorize(pairs)
    except (TypeError, ValueError):
        return
    assert len(groups.codes) == 3, f"{len(groups.codes)} codes for 3 rows"
    assert len(groups) == 2


def test_compilations_do_not_grow_with_numbers_and_sizes():
    """Traces of the family's link, over calls with many different numbers and sizes of groups."""
    traces = []

    def forward(mu):
        return jax.numpy.log(mu)

    def inverse(eta):
        traces.append(eta.shape)
        return jax.numpy.exp(eta)

    link = jaxglm.links.Link("counted", forward=forward, inverse=inverse, means=jaxglm.links.POSITIVE, infinite_at=(0.0,))
    family = families.Poisson(link)
    rng = np.random.default_rng(8)
    counts = []
    for g in [1, 2, 3, 5, 9, 17, 40, 100, 7, 250]:
        sizes = np.exp(rng.uniform(np.log(40), np.log(900), g)).astype(int)
        X, y, ids = rows_of(sizes, seed=g)
        assert jaxglm.fit(X, y, family=family, groups=ids).converged.all()
        counts.append(len(traces))
    new = np.flatnonzero(np.diff(counts, prepend=0))
    assert len(new) <= 4, f"calls that traced again: {new.tolist()}, traces after each: {counts}"
