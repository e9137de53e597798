"""Tables of rows: some of their rows, wherever these lie in memory."""

import numpy as np
import pytest

from jaxglm.packing import Stacked, _at, thinned


@pytest.mark.parametrize("offset", [None, np.arange(9.0)])
def test_tables_are_thinned_to_some_of_their_rows(offset):
    sizes = np.array([2, 3, 4])
    X = np.arange(18.0).reshape(9, 2)
    table = Stacked(X, np.arange(9.0), np.arange(9.0) + 1.0, offset, None, np.cumsum(sizes) - sizes, sizes)
    which = np.array([1, 0, 0, 0, 0, 1, 1, 0, 1], bool)
    for flags, left in ((which, [1, 0, 3]), (which & (np.arange(9) < 2), [1, 0, 0]), (np.zeros(9, bool), [0, 0, 0])):
        fewer = thinned(table, flags)
        np.testing.assert_array_equal(fewer.sizes, left)
        np.testing.assert_array_equal(fewer.X, X[flags])
        np.testing.assert_array_equal(fewer.weights, table.weights[flags])
        assert fewer.offset is None if offset is None else (fewer.offset == offset[flags]).all()
        for k in np.flatnonzero(fewer.sizes):
            np.testing.assert_array_equal(fewer.y[fewer.starts[k]], table.y[flags & (np.repeat([0, 1, 2], sizes) == k)][0])


def test_rows_are_taken_from_any_order_of_memory():
    X = np.arange(12.0).reshape(4, 3)
    for laid in (X, np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2]):
        for index in (np.array([2, 0]), np.array([[3, 1], [0, 0]])):
            np.testing.assert_array_equal(_at(laid, index), X[index])
