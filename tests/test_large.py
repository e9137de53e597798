"""One large fit: rows dealt out, left where the user has them or copied, must give what any other way gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxglm
from jaxglm import fitting, irls, large
from jaxglm.irls import borrowed, data
from jaxglm.irls.borrowed import calls
from jaxglm.penalty import Ridge
from jaxglm.status import Status, StatusWarning

N, P = 4003, 13


@pytest.fixture(scope="module")
def rows():
    """A design of which some columns are the user's, responses, weights, some of them zero, and offsets."""
    rng = np.random.default_rng(5)
    table = rng.standard_normal((N, P + 3))
    table[:, 1] = 1.0
    X = table[:, 1 : P + 1]
    eta = X @ rng.uniform(-0.5, 0.5, P)
    weights = rng.integers(0, 4, N).astype(float)
    return {
        "X": X,
        "binomial": (rng.random(N) < 1 / (1 + np.exp(-eta))).astype(float),
        "poisson": rng.poisson(np.exp(eta)).astype(float),
        "gamma": rng.gamma(2.0, np.exp(eta) / 2.0),
        "gaussian": eta + rng.standard_normal(N),
        "weights": weights,
        "offset": rng.normal(0.0, 0.3, N),
    }


@pytest.fixture
def dealt(monkeypatch, without_lanes):
    """Fits of a few thousand rows count as large; tells how many of their shares stayed where they are."""
    lent = []

    def lend(X, rows, count):
        lent.append(X)
        return borrowed.lend(X, rows, count)

    monkeypatch.setattr(large, "LEAST", 1000)
    monkeypatch.setattr(large, "CHUNK", 1000)
    monkeypatch.setattr(large, "cores", lambda: 2)
    monkeypatch.setattr(large, "lend", lend)
    return lent


def agree(found, wanted, tolerance=1e-9):
    for name in ("coefficients", "covariance", "deviance", "null_deviance", "log_likelihood", "dispersion", "aic"):
        a, b = getattr(found, name), getattr(wanted, name)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.max(np.abs(np.nan_to_num(b))), err_msg=name)
    assert found.status == wanted.status


def arguments(rows, family):
    return {"X": rows["X"], "y": rows[family], "family": family, "weights": rows["weights"], "offset": rows["offset"]}


@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian", "gamma"])
def test_it_is_the_fit_of_any_other_way(rows, family, monkeypatch, request):
    given = arguments(rows, family) | ({"family": jaxglm.families.Gamma("log")} if family == "gamma" else {})
    wanted = jaxglm.fit(**given)
    lent = request.getfixturevalue("dealt")
    agree(jaxglm.fit(**given), wanted)
    assert len(lent) == large.SHARES * 2
    monkeypatch.setattr(large, "available", lambda dtype: False)
    agree(jaxglm.fit(**given), wanted)
    assert len(lent) == large.SHARES * 2


def test_without_weights_and_offset_and_with_a_penalty(rows, request):
    given = {"X": rows["X"], "y": rows["binomial"], "family": "binomial"}
    wanted, penalized = jaxglm.fit(**given), jaxglm.fit(**given, penalty=Ridge(3.0))
    request.getfixturevalue("dealt")
    agree(jaxglm.fit(**given), wanted)
    agree(jaxglm.fit(**given, penalty=Ridge(3.0)), penalized)


def test_one_large_group_among_others_in_any_order(rows, request):
    ids = np.where(np.arange(N) % 5 == 0, np.arange(N) % 4, 7)
    given = {"X": rows["X"], "y": rows["poisson"], "family": "poisson", "groups": ids}
    wanted = jaxglm.fit(**given)
    lent = request.getfixturevalue("dealt")
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr(large, "LEAST", 20_000)
        found = jaxglm.fit(**given)
        assert not lent  # its rows lie scattered
        np.testing.assert_allclose(found.coefficients, wanted.coefficients, rtol=1e-9, atol=1e-11)
        sort = np.argsort(ids, kind="stable")
        found = jaxglm.fit(rows["X"][sort], rows["poisson"][sort], "poisson", groups=ids[sort])
        assert len(lent) == large.SHARES * 2
        np.testing.assert_allclose(found.coefficients, wanted.coefficients, rtol=1e-9, atol=1e-11)


def test_single_precision(rows, request):
    X, y = rows["X"].astype(np.float32), rows["binomial"]
    wanted = jaxglm.fit(X.astype(float), y, "binomial")
    lent = request.getfixturevalue("dealt")
    found = jaxglm.fit(X, y, "binomial", precision="float32")
    np.testing.assert_allclose(found.coefficients, wanted.coefficients, rtol=1e-4, atol=1e-4)
    assert found.converged
    del lent


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_sums_that_overflow(rows, family, monkeypatch, request):
    """Squares that single precision does not hold: the careful way makes such fits, and nobody is warned of infinities."""
    X = rows["X"].astype(np.float32)
    X[:, 5] *= np.float32(1e22)
    wanted = jaxglm.fit(X.astype(float), rows[family], family)
    request.getfixturevalue("dealt")
    solved = []
    monkeypatch.setattr(fitting, "solve_large", lambda task, group: solved.append(large.solve_large(task, group)) or solved[-1])
    found = jaxglm.fit(X, rows[family], family, precision="float32")
    assert [bool(one.undecided) for one in solved] == [True]
    assert found.converged
    np.testing.assert_allclose(found.coefficients, wanted.coefficients, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_cannot_be_used(rows, value, request):
    request.getfixturevalue("dealt")
    X = rows["X"].copy()
    X[17, 3] = value
    with pytest.warns(StatusWarning, match="invalid_data"):
        assert jaxglm.fit(X, rows["binomial"], "binomial").status == Status.INVALID_DATA
    present = np.arange(N) != 17
    dropped = jaxglm.fit(X, rows["binomial"], "binomial", weights=present.astype(float))
    agree(dropped, jaxglm.fit(rows["X"][present], rows["binomial"][present], "binomial"))


def test_separated_and_aliased(rows, request):
    request.getfixturevalue("dealt")
    X = rows["X"].copy()
    X[:, 4] = 2.0 * X[:, 2] - X[:, 3]
    found = jaxglm.fit(X, rows["binomial"], "binomial")
    assert found.converged
    assert np.isnan(found.coefficients).tolist() == (np.arange(P) == 4).tolist()
    y = (X[:, 1] > 0).astype(float)
    with pytest.warns(StatusWarning, match="separated"):
        assert jaxglm.fit(rows["X"], y, "binomial").status == Status.SEPARATED


needs_kernels = pytest.mark.skipif(not borrowed.available("float64"), reason="no kernels on this machine")


@needs_kernels
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("n", "p", "k"), [(1, 1, 1), (3, 8, 2), (64, 7, 3), (65, 16, 1), (200, 50, 2), (131, 128, 3), (0, 5, 1)]
)
def test_kernels(n, p, k, dtype):
    """Every remainder of rows and of columns, beside memory that must not be read."""
    rng = np.random.default_rng(n + p)
    whole = np.full((n + 2, p + 6), np.nan, dtype)
    whole[1 : n + 1, 3 : p + 3] = rng.standard_normal((n, p))
    X, padded = whole[1 : n + 1, 3 : p + 3], n + 5
    w, r = rng.uniform(size=padded).astype(dtype), rng.standard_normal((k, padded)).astype(dtype)
    v = rng.standard_normal(p).astype(dtype)
    with jax.enable_x64(True):
        place = jnp.asarray([X.ctypes.data, whole.strides[0], n])
        eta, (gram, scores) = calls.dot(place, jnp.asarray(v), padded), calls.normal(place, jnp.asarray(w), jnp.asarray(r), p)
        size = calls.reach(place, p, dtype)
        found = {"eta": eta, "gram": gram, "scores": scores, "size": size}
    exact = X.astype(float)
    wanted = {
        "eta": np.append(exact @ v, np.zeros(5)),
        "gram": (exact * w[:n, None]).T @ exact,
        "scores": exact.T @ r[:, :n].T,
        "size": np.max(np.abs(exact), axis=0, initial=0.0),
    }
    for name, value in wanted.items():
        tolerance = 100 * np.finfo(dtype).eps
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance * np.sqrt(n + p), err_msg=name)


def test_another_agreement_is_for_the_general_path(monkeypatch, caplog):
    monkeypatch.setattr(calls, "version", lambda: (0, 99))
    with caplog.at_level("DEBUG", logger="jaxglm"):
        assert not calls.available.__wrapped__("float64")
    assert "(0, 99)" in caplog.text


@pytest.mark.parametrize("given", [(), pytest.param(("weights",), marks=pytest.mark.long), ("weights", "offset")], ids="+".join)
def test_the_core_takes_many_rows_in_chunks(rows, monkeypatch, given):
    """One fit by `solve`, and two by `solve_many`, rows in chunks, with a row that is not there and holds nothing of use."""
    more = {name: rows[name] for name in given}
    X, y, family = rows["X"].copy(), rows["poisson"], jaxglm.families.Poisson()
    if given:
        X[np.flatnonzero(rows["weights"] == 0)[0]] = np.nan

    def found():
        jax.clear_caches()
        with jax.enable_x64(True):
            one = jax.jit(lambda y: irls.solve(X, y, family, **more))(y)
            many = jax.jit(lambda y: irls.solve_many(X, y, family, **more))(jnp.stack([y, y[::-1]]))
            slope = jax.grad(lambda y: irls.solve(X, y, family, **more).coefficients[2])(jnp.asarray(y))
        return one, many, slope

    whole = found()
    monkeypatch.setattr(data, "LARGE", 1000)
    monkeypatch.setattr(data, "CHUNK", 1000)
    for a, b in zip(jax.tree.leaves(found()), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
