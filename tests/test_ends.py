"""What is asked of the rows of separated groups: where their likelihood has its end, and which way they go."""

import numpy as np
import pytest

from jaxglm import ends, families, limits, recession
from jaxglm.packing import Stacked


def rows_of(y, weights, sizes):
    """Rows of groups without columns that matter, as `packing.gather` makes them."""
    sizes = np.asarray(sizes)
    return Stacked(np.ones((len(y), 1)), y, weights, None, None, np.cumsum(sizes) - sizes, sizes)


@pytest.mark.parametrize("most_weights", [[1.0, 3.0], [1.0, 2.0, 5.0]], ids=["few kinds", "many kinds"])
def test_rows_of_few_kinds_are_told_what_each_would_be(most_weights):
    """Whether many rows are asked once a kind or each by itself, they are told what a few rows are."""
    rng, n = np.random.default_rng(7), 2 * ends.MANY
    y, weights, eta = rng.integers(0, 2, n) * 1.0, rng.choice(most_weights, n), rng.choice([-np.inf, 1.5], n)
    which, dispersion = np.arange(n) % 7 > 0, np.ones(4)
    rows = rows_of(y, weights, [n // 4] * 4)
    assert (ends._kinds([y, weights, eta]) is not None) == (len(most_weights) == 2)
    side, family = ends.sides(families.Binomial(), rows), families.Binomial()
    together, apart = ends.log_likelihoods(family, rows, which, eta, dispersion), np.zeros(n)
    for k in range(0, n, 64):
        part = slice(k, k + 64)
        few = rows_of(y[part], weights[part], np.ones(64, int))
        apart[part] = ends.log_likelihoods(family, few, which[part], eta[part], np.ones(64))
        np.testing.assert_array_equal(side[part], ends.sides(family, few))
    np.testing.assert_allclose(together, np.add.reduceat(apart, rows.starts), rtol=1e-12)
    assert np.isneginf(apart[which & (y == 1) & np.isneginf(eta)]).all()
    assert not apart[~which].any()


def test_rows_of_whole_numbers_are_numbers():
    y = np.arange(2 * ends.MANY) % 2
    side = ends.sides(families.Poisson(), rows_of(y, np.ones(len(y), int), [len(y)]))
    np.testing.assert_array_equal(side, np.where(y == 0, -1.0, 0.0))


def test_groups_without_rows_that_add_something_add_nothing():
    """And others what their rows do, whether many rows are looked at or few."""
    for n in (12, 3 * ends.MANY):
        y = np.where(np.arange(n) < n // 3, -1.5, 0.0)  # below what a log link reaches: a limit of zero is off by this much
        rows = rows_of(y, np.full(n, 2.0), [n // 3, n // 3, n // 3])
        found = ends.ends(families.Gaussian("log"), rows, np.arange(n) < n // 2)
        np.testing.assert_allclose(found.deviance, [2.0 * 1.5**2 * (n // 3), 0.0, 0.0], rtol=1e-12)
        np.testing.assert_allclose(found.chi_square, found.deviance, rtol=1e-12)
        at_ends = ends.ends(families.Binomial(), rows_of(np.abs(y) // 1, rows.weights, rows.sizes), np.arange(n) < n // 2)
        np.testing.assert_array_equal([at_ends.deviance, at_ends.chi_square], np.zeros((2, 3)))


def test_rows_with_a_missing_value_are_of_no_kind():
    values = np.where(np.arange(2 * ends.MANY) == 5, np.nan, 1.0)
    assert ends._kinds([values]) is None


def test_rows_go_along_the_direction_of_their_group(monkeypatch):
    """However many rows are looked at together."""
    rng, sizes = np.random.default_rng(8), np.array([3, 1, 40, 2, 9])
    X, direction, owner = rng.normal(size=(55, 3)), rng.normal(size=(5, 3)), np.repeat(np.arange(5), sizes)
    for numbers in (1, 30, 10_000):
        monkeypatch.setattr(recession, "NUMBERS", numbers)
        np.testing.assert_allclose(recession.along(X, direction, owner), np.sum(X * direction[owner], axis=1), rtol=1e-14)


def rows_with_a_dummy(sizes, seed=9):
    """Groups with an intercept, a number, and a dummy; where it is, all responses are 1."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    dummy = np.arange(n) % 2
    X = np.column_stack([np.ones(n), rng.normal(size=n), dummy])
    side = np.where((dummy == 1) | (rng.random(n) < 0.5), 1.0, -1.0)
    return recession.Rows(X, side, np.asarray(sizes), np.ones((len(sizes), 3), bool))


@pytest.mark.parametrize("left_over", [0.0, 1e-9, 1e-6, 1e-5])
def test_directions_that_nearly_separate_are_made_exact(left_over):
    """Whatever the iteration has left of other coefficients, up to a limit."""
    rows = rows_with_a_dummy([40, 25, 60])
    nearly = np.tile([left_over, -left_over, 3.0], (3, 1))
    found = recession.exact_proofs(rows, nearly)
    assert found.proved.all()
    np.testing.assert_array_equal(found.direction[:, :2], 0.0)
    np.testing.assert_array_equal(found.moved, rows.X[:, 2] == 1)
    np.testing.assert_array_equal(found.determined, [[True, True, False]] * 3)


def test_directions_that_do_not_separate_prove_nothing_and_leave_others_alone():
    rows = rows_with_a_dummy([40, 25, 60])
    wanted = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1e-6, 0.0, 1.0]])
    found = recession.exact_proofs(rows, wanted)
    np.testing.assert_array_equal(found.proved, [True, False, True])
    assert not found.moved[40:65].any()
    assert found.determined[1].all()
    assert not found.direction[1].any()


def test_components_that_a_direction_does_not_need_are_dropped():
    """In one group a small component moves rows that another moves anyway, in another rows that nothing else does."""
    place = np.arange(24)
    one, within, beside = place % 2 == 1, place % 4 == 3, place % 4 == 2
    mixed = np.where(place % 8 < 4, 1.0, -1.0)  # responses of rows that are not moved
    designs = [np.column_stack([np.ones(24), one, other]) * 1.0 for other in (within, beside)]
    sides = [np.where(one, 1.0, mixed), np.where(one | beside, 1.0, mixed)]
    rows = recession.Rows(np.concatenate(designs), np.concatenate(sides), np.array([24, 24]), np.ones((2, 3), bool))
    found = recession.exact_proofs(rows, np.array([[0.0, 1.0, 0.01], [0.0, 1.0, 0.01]]))
    np.testing.assert_allclose(found.direction, [[0.0, 1.0, 0.0], [0.0, 1.0, 0.01]], atol=1e-12)


def test_where_a_direction_takes_rows_is_told_by_exact_sums_where_rounding_could_matter():
    rng = np.random.default_rng(11)
    sizes = np.array([30, 50])
    X, owner = rng.normal(size=(80, 3)), np.repeat([0, 1], sizes)
    direction = np.array([[1.0, -1.0, 0.0], [1e-3, 2.0, -3.0]])
    X[:10, 1] = X[:10, 0] * (1 + 1e-15)  # nothing but rounding is left of these
    X[40:45] = 0.0
    reach = recession.reach_of(X, np.array([0, 30]))
    way = limits._infinite_etas(X, direction, owner, recession.along(X, direction, owner), reach)
    np.testing.assert_array_equal(way, [limits.infinite_eta(row, direction[k]) for row, k in zip(X, owner, strict=True)])
    assert not way[:10].any()
    assert not way[40:45].any()
    assert (way != 0).sum() == 65
