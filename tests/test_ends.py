"""What is asked of the rows of separated groups: where their likelihood has its end, and which way they go."""

import numpy as np
import pytest

from jaxglm import ends, families, recession
from jaxglm.packing import Stacked


def rows_of(y, weights, sizes):
    """Rows of groups without columns that matter, as `packing.gather` makes them."""
    sizes = np.asarray(sizes)
    return Stacked(np.ones((len(y), 1)), y, weights, None, None, np.cumsum(sizes) - sizes, sizes)


@pytest.mark.parametrize("most_weights", [[1.0, 3.0], [1.0, 2.0, 5.0]], ids=["few kinds", "many kinds"])
def test_rows_of_few_kinds_are_told_what_each_would_be(most_weights):
    """Whether many rows are asked once a kind or each by itself, they are told what a few rows are."""
    rng, n = np.random.default_rng(7), 2 * ends.FEWEST
    y, weights, eta = rng.integers(0, 2, n) * 1.0, rng.choice(most_weights, n), rng.choice([-np.inf, 1.5], n)
    which, dispersion = np.arange(n) % 7 > 0, np.ones(4)
    rows = rows_of(y, weights, [n // 4] * 4)
    assert (ends._kinds(n, (y, weights, eta)) is not None) == (len(most_weights) == 2)
    found = ends.log_likelihoods(families.Binomial(), rows, which, eta, dispersion)
    side = ends.sides(families.Binomial(), rows)
    for k in range(0, n, 64):
        part = slice(k, k + 64)
        few = rows_of(y[part], weights[part], [64])
        np.testing.assert_array_equal(
            found[part], ends.log_likelihoods(families.Binomial(), few, which[part], eta[part], dispersion[:1])
        )
        np.testing.assert_array_equal(side[part], ends.sides(families.Binomial(), few))
    assert np.isneginf(found[which & (y == 1) & np.isneginf(eta)]).all()
    assert not found[~which].any()


def test_rows_with_a_missing_value_are_of_no_kind():
    values = np.where(np.arange(2 * ends.FEWEST) == 5, np.nan, 1.0)
    assert ends._kinds(len(values), (values,)) is None


def test_rows_go_along_the_direction_of_their_group(monkeypatch):
    """However many rows are looked at together."""
    rng, sizes = np.random.default_rng(8), np.array([3, 1, 40, 2, 9])
    X, direction, owner = rng.normal(size=(55, 3)), rng.normal(size=(5, 3)), np.repeat(np.arange(5), sizes)
    for numbers in (1, 30, 10_000):
        monkeypatch.setattr(recession, "NUMBERS", numbers)
        np.testing.assert_allclose(recession.along(X, direction, owner), np.sum(X * direction[owner], axis=1), rtol=1e-14)
