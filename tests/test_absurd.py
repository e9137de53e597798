"""One batch with a group of every absurdity among ordinary ones.

Each absurd group gets its status, and the ordinary groups are the same to the last bit as in a call where ordinary rows
stand in place of the absurd ones. Nothing raises, and there is one warning.
"""

import warnings
from dataclasses import fields
from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import expit

import jaxglm
from jaxglm import Status, StatusWarning

pytestmark = pytest.mark.long

P, N = 4, 24
CONVERGED, SEPARATED, NO_DATA, INVALID = Status.CONVERGED, Status.SEPARATED, Status.NO_DATA, Status.INVALID_DATA
ENDED = (Status.CONVERGED, Status.SEPARATED, Status.MAX_ITERATIONS, Status.STEP_FAILED)


class Rows(NamedTuple):
    """The rows of a group: X (n, P), y, weights, offset (n,)."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    offset: np.ndarray


def ordinary(family, seed, n=N):
    """A group whose fit is unremarkable: responses are drawn again until both halves of a design hold both kinds."""
    rng = np.random.default_rng([seed, len(family)])
    X = np.column_stack([np.ones(n), rng.normal(size=n), rng.uniform(-1, 1, n), np.arange(n) % 2])
    offset, weights = rng.uniform(-0.5, 0.5, n), rng.integers(1, 4, n).astype(float)
    eta = X @ [0.1, 0.3, -0.4, 0.2] + offset
    if family == "binomial":
        y = (0.25 + 0.5 * (rng.permutation(n) % 2) + 0.1 * (expit(eta) - 0.5)).clip(0.05, 0.95)
        return Rows(X, y, weights, offset)
    return Rows(X, rng.poisson(np.exp(eta + 1.5)).astype(float), weights, offset)


def put(values, where, value):
    """A copy with something else in it."""
    out = values.copy()
    out[where] = value
    return out


def columns(rows, factors):
    return rows._replace(X=rows.X * factors)


def cut(rows, n):
    return Rows(*(part[:n] for part in rows))


def absurd(family):
    """Name: what is done to an ordinary group, and the statuses that it may end with."""
    large = 1.5 if family == "binomial" else -1.0
    everything = {
        "all zeros": (lambda r: r._replace(y=r.y * 0), SEPARATED),
        "all ones": (lambda r: r._replace(y=r.y * 0 + 1), SEPARATED if family == "binomial" else CONVERGED),
        "NaN in X": (lambda r: r._replace(X=put(r.X, (3, 1), np.nan)), INVALID),
        "NaN in y": (lambda r: r._replace(y=put(r.y, 3, np.nan)), INVALID),
        "NaN in weights": (lambda r: r._replace(weights=put(r.weights, 3, np.nan)), INVALID),
        "NaN in offset": (lambda r: r._replace(offset=put(r.offset, 3, np.nan)), INVALID),
        "infinity in X": (lambda r: r._replace(X=put(r.X, (3, 1), np.inf)), INVALID),
        "both infinities in X": (lambda r: r._replace(X=put(put(r.X, (3, 1), np.inf), (4, 1), -np.inf)), INVALID),
        "infinity in y": (lambda r: r._replace(y=put(r.y, 3, np.inf)), INVALID),
        "infinity in weights": (lambda r: r._replace(weights=put(r.weights, 3, np.inf)), INVALID),
        "infinity in offset": (lambda r: r._replace(offset=put(r.offset, 3, -np.inf)), INVALID),
        "a negative weight": (lambda r: r._replace(weights=put(r.weights, 3, -1.0)), INVALID),
        "a response out of range": (lambda r: r._replace(y=put(r.y, 3, large)), INVALID),
        "everything NaN": (lambda r: Rows(*(part * np.nan for part in r)), INVALID),
        "no row": (lambda r: r._replace(weights=r.weights * 0), NO_DATA),
        "no row, and NaN in all": (lambda r: Rows(r.X * np.nan, r.y * np.nan, r.weights * 0, r.offset * np.nan), NO_DATA),
        "one row": (lambda r: cut(r, 1), CONVERGED),
        "fewer rows than columns": (lambda r: cut(r, 3), CONVERGED),
        "zero weights hiding NaN": (
            lambda r: Rows(
                put(r.X, 3, np.nan), put(r.y, 4, np.nan), put(r.weights, [3, 4, 5, 6], 0.0), put(r.offset, 5, np.inf)
            ),
            CONVERGED,
        ),
        "columns times 1e8": (lambda r: columns(r, [1, 1e8, 1e-8, 1]), CONVERGED),
        "columns times 1e150": (lambda r: columns(r, [1, 1e150, 1e-150, 1]), CONVERGED),
        "columns near the largest number": (lambda r: columns(r, [1, 1e308 / np.abs(r.X[:, 1]).max(), 1, 1]), ENDED),
        "duplicated columns": (lambda r: r._replace(X=r.X[:, [0, 1, 1, 0]]), CONVERGED),
        "columns of zeros": (lambda r: columns(r, [0, 0, 0, 0]), CONVERGED),
        "offsets of 1e3": (lambda r: r._replace(offset=r.offset + 1e3), ENDED),
        "offsets of -1e3": (lambda r: r._replace(offset=r.offset - 1e3), ENDED),
        "offsets of both": (lambda r: r._replace(offset=r.offset + 1e3 * (-1.0) ** np.arange(len(r.y))), ENDED),
        "huge weights": (lambda r: r._replace(weights=r.weights * 1e12), CONVERGED),
        "tiny weights": (lambda r: r._replace(weights=r.weights * 1e-300), CONVERGED),
        "one tiny weight": (lambda r: r._replace(weights=put(r.weights, 3, 1e-300)), CONVERGED),
        "duplicated rows": (lambda r: Rows(*(part[np.arange(N) // 2] for part in r)), CONVERGED),
        "one row, many times": (lambda r: Rows(*(part[np.zeros(N, int)] for part in r)), CONVERGED),
        "ill-conditioned": (lambda r: r._replace(X=np.c_[r.X[:, :3], r.X[:, 2] + 1e-7 * r.X[:, 3]]), CONVERGED),
    }
    if family == "poisson":
        everything["huge counts"] = (lambda r: r._replace(y=np.round(r.y * 1e12)), CONVERGED)
    return everything


SIZES = {"one row": 1, "fewer rows than columns": 3}


def batch(family, clean):
    """Absurd groups between ordinary ones. clean: with ordinary rows, of the same sizes, in place of the absurd ones."""
    groups, names = [], []
    for k, (name, (spoil, _)) in enumerate(absurd(family).items()):
        groups += [ordinary(family, 2 * k), ordinary(family, 2 * k + 1, SIZES.get(name, N))]
        names += [f"ordinary {k}", name]
        if not clean:
            groups[-1] = spoil(ordinary(family, 2 * k + 1))
    return groups, names


def fit(groups, family, **arguments):
    """The fit of groups, and the warnings of the call."""
    ids = np.repeat(np.arange(len(groups)), [len(g.y) for g in groups])
    X, y, weights, offset = (np.concatenate(part) for part in zip(*groups, strict=True))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = jaxglm.fit(X, y, family=family, groups=ids, weights=weights, offset=offset, **arguments)
    return found, caught


def assert_identical(found, other, index):
    for field in fields(found.solution):
        a, b = getattr(found.solution, field.name)[index], getattr(other.solution, field.name)[index]
        np.testing.assert_array_equal(a, b, err_msg=field.name)


@pytest.fixture(scope="module", params=["binomial", "poisson"])
def both(request):
    """The family, the fits of the absurd batch and of the clean one, names, and warnings."""
    spoiled, names = batch(request.param, False)
    found, caught = fit(spoiled, request.param)
    clean, _ = fit(batch(request.param, True)[0], request.param)
    return request.param, found, clean, np.array(names), caught


def is_ordinary(names):
    return np.char.startswith(names, "ordinary")


def test_statuses(both):
    family, found, _, names, _ = both
    assert found.converged[is_ordinary(names)].all()
    wrong = {}
    for name, (_, allowed) in absurd(family).items():
        status = Status(int(found.status[names == name][0]))
        if status not in (allowed if isinstance(allowed, tuple) else (allowed,)):
            wrong[name] = status
    assert wrong == {}


def test_ordinary_groups_are_the_same_to_the_last_bit(both):
    _, found, clean, names, _ = both
    assert_identical(found, clean, is_ordinary(names))


def test_ordinary_groups_are_as_alone(both):
    family, found, _, names, _ = both
    groups, _ = batch(family, False)
    for k in np.flatnonzero(is_ordinary(names))[[0, 7, 20]]:
        alone, _ = fit([groups[k]], family)
        np.testing.assert_allclose(found.coefficients[k], alone.coefficients[0], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(found.covariance[k], alone.covariance[0], rtol=1e-11)


def test_one_warning(both):
    _, _, _, _, caught = both
    assert [w.category for w in caught] == [StatusWarning]


def test_numbers_are_nan_where_there_is_no_answer_and_finite_where_there_is(both):
    _, found, _, names, _ = both
    lost = np.isin(found.status, (INVALID, NO_DATA, Status.STEP_FAILED))
    for name in ("coefficients", "covariance", "standard_errors", "deviance", "null_deviance", "log_likelihood", "aic", "bic"):
        assert np.isnan(getattr(found, name)[lost]).all(), name
    answered = {}
    for name in ("deviance", "null_deviance", "log_likelihood", "aic"):
        bad = ~np.isfinite(getattr(found, name)) & ~lost
        if bad.any():
            answered[name] = names[bad].tolist()
    assert answered == {}


def test_scaled_columns_have_scaled_coefficients(both):
    family, found, _, names, _ = both
    groups, _ = batch(family, True)
    for name, factors in (("columns times 1e8", [1, 1e8, 1e-8, 1]), ("columns times 1e150", [1, 1e150, 1e-150, 1])):
        place = int(np.flatnonzero(names == name)[0])
        plain, _ = fit([groups[place]], family)
        np.testing.assert_allclose(found.coefficients[place] * factors, plain.coefficients[0], rtol=1e-10, err_msg=name)
        np.testing.assert_allclose(found.standard_errors[place] * factors, plain.standard_errors[0], rtol=1e-9, err_msg=name)


def test_hidden_rows_are_not_there(both):
    family, found, _, names, _ = both
    place = int(np.flatnonzero(names == "zero weights hiding NaN")[0])
    group = batch(family, True)[0][place]
    rest = Rows(*(np.delete(part, [3, 4, 5, 6], axis=0) for part in group))
    alone, _ = fit([rest], family)
    assert found.n_obs[place] == N - 4
    np.testing.assert_allclose(found.coefficients[place], alone.coefficients[0], rtol=1e-11)
    np.testing.assert_allclose(found.aic[place], alone.aic[0], rtol=1e-12)


def test_row_wise_results_of_an_absurd_batch(both):
    _, found, _, names, _ = both
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted, ids = found.fitted, found.observations.codes
        for kind in ("deviance", "pearson", "response", "working"):
            found.residuals(kind)
        found.tidy(), found.glance(), found.summary(), repr(found)
    assert np.isfinite(fitted[is_ordinary(names)[ids]]).all()


def test_single_precision():
    spoiled, names = batch("binomial", False)
    found, caught = fit(spoiled, "binomial", precision="float32")
    clean, _ = fit(batch("binomial", True)[0], "binomial", precision="float32")
    names = np.array(names)
    assert_identical(found, clean, is_ordinary(names))
    assert found.converged[is_ordinary(names)].all()
    assert [w.category for w in caught] == [StatusWarning]
    cases = absurd("binomial")
    for name in ("all zeros", "NaN in X", "NaN in y", "a negative weight", "a response out of range", "no row", "one row"):
        assert found.status[names == name][0] == cases[name][1], name


def square(names):
    """Places of the cases of N rows."""
    return [k for k, name in enumerate(names) if name not in SIZES]


def test_designs_of_their_own():
    spoiled, names = batch("binomial", False)
    clean, _ = batch("binomial", True)
    use = square(names)

    def stacked(groups):
        X, y, weights, offset = (np.stack(part) for part in zip(*(groups[k] for k in use), strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StatusWarning)
            return jaxglm.fit(X, y, family="binomial", weights=weights, offset=offset)

    found, other = stacked(spoiled), stacked(clean)
    assert_identical(found, other, is_ordinary(np.array(names)[use]))
    ragged, _ = fit(spoiled, "binomial")
    np.testing.assert_array_equal(found.status, ragged.status[use])


def test_a_shared_design():
    spoiled, names = batch("binomial", False)
    clean, _ = batch("binomial", True)
    use = [k for k in square(names) if np.isfinite(spoiled[k].X).all() and np.array_equal(spoiled[k].X, clean[k].X)]
    X = clean[0].X

    def shared(groups):
        y, weights, offset = (np.stack([groups[k][i] for k in use]) for i in (1, 2, 3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StatusWarning)
            return jaxglm.fit(X, y, family="binomial", weights=weights, offset=offset)

    found, other = shared(spoiled), shared(clean)
    kept = np.array(names)[use]
    assert_identical(found, other, is_ordinary(kept))
    assert found.converged[is_ordinary(kept)].all()
    cases = absurd("binomial")
    for name in ("all zeros", "NaN in y", "NaN in weights", "infinity in offset", "a negative weight", "no row"):
        assert found.status[kept == name][0] == cases[name][1], name


def test_a_scan_over_features():
    rows = ordinary("binomial", 0)
    rng = np.random.default_rng(5)
    features = rng.normal(size=(N, 24))

    def scan(given):
        return jaxglm.scan(rows.X[:, :3], rows.y, given, "binomial", weights=rows.weights, offset=rows.offset, missing="drop")

    spoiled = features.copy()
    spoiled[:, 1] = np.nan
    spoiled[3, 3] = np.nan
    spoiled[4, 5] = np.inf
    spoiled[:, 7] = 0.0
    spoiled[:, 9] = rows.X[:, 1]
    spoiled[:, 11] *= 1e150
    spoiled[:, 13] *= 1e-8
    spoiled[:, 15] = rows.X[:, 1] + 1e-7 * features[:, 15]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = scan(spoiled)
    assert [w.category for w in caught] == [StatusWarning]
    clean = scan(features)
    # A feature with a missing value makes weights differ between fits, so the clean call has one too, in another fit.
    assert found.status[[1, 3, 5, 7, 9, 11, 13, 15]].tolist() == [NO_DATA, 0, INVALID, 0, 0, 0, 0, 0]
    assert found.n_dropped[[1, 3]].tolist() == [N, 1]
    assert found.rank[[7, 9]].tolist() == [3, 3]
    untouched = np.r_[0:16:2, 16:24]
    np.testing.assert_allclose(found.coefficients[untouched], clean.coefficients[untouched], rtol=1e-12, atol=1e-14)
    marked = np.where(np.arange(N)[:, None] == 0, np.where(np.arange(24) == 1, np.nan, features), features)
    again = scan(marked)
    assert_identical(found, again, untouched)


def test_keys_whose_rows_were_all_dropped():
    groups = [ordinary("binomial", k) for k in range(3)]
    groups[1] = groups[1]._replace(y=groups[1].y * np.nan)
    groups[2] = groups[2]._replace(y=put(groups[2].y, [0, 5], np.nan))
    found, caught = fit(groups, "binomial", missing="drop")
    assert found.status.tolist() == [CONVERGED, NO_DATA, CONVERGED]
    assert found.n_dropped.tolist() == [0, N, 2]
    assert found.groups.tolist() == [0, 1, 2]
    assert [w.category for w in caught] == [StatusWarning]
