"""The array door: every shape of `fit` and `scan`, each equal to a loop of single fits; and what is refused."""

import jax
import numpy as np
import pandas as pd
import pytest

import jaxglm
from jaxglm import IRLS, Ridge, Status, StatusWarning, families

G, N, P = 4, 24, 3
RNG = np.random.default_rng(12)
X = np.column_stack([np.ones(N), RNG.uniform(-1, 1, N), RNG.normal(size=N)])
XS = np.stack([np.column_stack([np.ones(N), RNG.uniform(-1, 1, (N, P - 1))]) for _ in range(G)])
Y = RNG.poisson(np.exp(0.8 + 0.5 * X[:, 1] + 0.3 * np.arange(G)[:, None])).astype(float)
W = RNG.integers(1, 9, (G, N)) / 4.0
OFFSET = RNG.uniform(-0.4, 0.4, (G, N))
FEATURES = RNG.integers(0, 3, (N, 5))
LABELS = np.array(["pear", "fig", "apple"])[RNG.permutation(np.repeat([0, 1, 2], [10, 8, 6]))]


def same(one, other, tolerance=1e-12):
    """Hold everything two results have for each fit against each other."""
    for name in (
        "coefficients", "covariance", "standard_errors", "deviance", "null_deviance", "log_likelihood", "aic", "bic",
        "dispersion", "p_values",
    ):  # fmt: skip
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=tolerance, atol=tolerance, err_msg=name)
    for name in ("rank", "n_obs", "df_residual", "df_null", "status", "infinite", "n_dropped"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def same_rows(values, expected, tolerance=1e-12):
    """Hold row-wise quantities against each other."""
    np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance)


def poisson(X, y, **keywords):
    """A Poisson fit."""
    return jaxglm.fit(X, y, family="poisson", **keywords)


SHAPES = {
    "responses": ((X, Y), {}),
    "own designs": ((XS, Y), {}),
    "own designs, one response": ((XS, Y[0]), {}),
    "weights": ((X, Y[0]), {"weights": W}),
    "offsets": ((X, Y[0]), {"offset": OFFSET}),
    "responses, shared weights and offset": ((X, Y), {"weights": W[0], "offset": OFFSET[0]}),
    "everything": ((XS, Y), {"weights": W, "offset": OFFSET, "exposure": np.exp(OFFSET[::-1])}),
    "exposures": ((X, Y[1]), {"exposure": np.exp(OFFSET)}),
}


def each(values, k, axes):
    """The k-th of values that have an axis of fits beside their own axes."""
    return values[k] if values.ndim > axes else values


@pytest.mark.parametrize(("arrays", "keywords"), SHAPES.values(), ids=SHAPES)
def test_a_leading_axis_anywhere_makes_many_fits(arrays, keywords):
    fit = poisson(*arrays, **keywords)
    assert (len(fit), fit.coefficients.shape, fit.covariance.shape) == (G, (G, P), (G, P, P))
    assert fit.groups.tolist() == list(range(G))
    assert fit.deviance.shape == fit.converged.shape == (G,)
    assert fit.fitted.shape == fit.working_weights.shape == (G, N)
    for k in range(G):
        single = {name: each(values, k, 1) for name, values in keywords.items()}
        one = poisson(each(arrays[0], k, 2), each(arrays[1], k, 1), **single)
        same(fit[k], one)
        same_rows(fit.fitted[k], one.fitted)
        same_rows(fit.residuals("pearson")[k], one.residuals("pearson"))
        same_rows(fit.working_response[k], one.working_response)
        same_rows(fit[k].linear_predictor, one.linear_predictor)


def test_one_fit_has_plain_scalars():
    fit = poisson(X, Y[0])
    assert (fit.coefficients.shape, fit.covariance.shape, fit.conf_int().shape) == ((P,), (P, P), (P, 2))
    for name in ("deviance", "null_deviance", "log_likelihood", "aic", "bic", "dispersion", "theta"):
        assert type(getattr(fit, name)) is float, name
    for name in ("rank", "n_obs", "n_iterations", "n_dropped", "df_residual", "df_null"):
        assert type(getattr(fit, name)) is int, name
    assert fit.status is Status.CONVERGED
    assert (fit.converged, fit.method, fit.groups, len(fit)) == (True, "irls", None, 1)
    assert (fit.fitted.shape, fit.infinite.tolist()) == ((N,), [0, 0, 0])
    with pytest.raises(TypeError, match="one fit, not many"):
        fit[0]


def test_the_leading_axis_stays_for_one_of_many():
    fit = poisson(X, Y[:1])
    assert (fit.coefficients.shape, fit.deviance.shape, fit.fitted.shape) == ((1, P), (1,), (1, N))
    assert (fit.status.tolist(), fit.groups.tolist(), fit.method.tolist()) == ([0], [0], ["irls"])
    same(fit[0], poisson(X, Y[0]))
    ragged = poisson(X, Y[0], groups=["only"] * N)
    assert (ragged.coefficients.shape, ragged.fitted.shape) == ((1, P), (N,))
    assert ragged.predict(X).shape == (1, N)
    same(ragged["only"], poisson(X, Y[0]))


@pytest.mark.parametrize(
    "labels",
    [LABELS, LABELS.tolist(), pd.Series(LABELS), np.unique(LABELS, return_inverse=True)[1] * 10 - 7, LABELS.astype(object)],
    ids=["text", "list", "pandas", "integers", "objects"],
)
def test_groups_of_any_labels_in_any_order(labels):
    fit = poisson(X, Y[0], groups=labels, weights=W[0], offset=OFFSET[0])
    keys = np.unique(np.asarray(labels))
    assert fit.groups.tolist() == keys.tolist()
    assert fit.fitted.shape == (N,)
    for key in keys:
        inside = np.asarray(labels) == key
        one = poisson(X[inside], Y[0, inside], weights=W[0, inside], offset=OFFSET[0, inside])
        same(fit[key.item() if hasattr(key, "item") else key], one)
        same_rows(fit.fitted[inside], one.fitted)
        same_rows(fit.residuals()[inside], one.residuals())


def test_groups_of_two_columns_are_tuples():
    half = np.arange(N) % 2
    two = poisson(X, Y[0], groups=(half, np.arange(N) // 12), offset=OFFSET[0])
    assert two.groups == [(0, 0), (0, 1), (1, 0), (1, 1)]
    array = poisson(X, Y[0], groups=np.column_stack([half, np.arange(N) // 12]), offset=OFFSET[0])
    same(two, array)
    inside = (half == 1) & (np.arange(N) < 12)
    same(two[1, 0], poisson(X[inside], Y[0, inside], offset=OFFSET[0, inside]))
    assert list(two.tidy().columns[:3]) == ["group_1", "group_2", "term"]
    with pytest.raises(KeyError, match="named by 2 values"):
        two[1]


def test_rows_without_a_label_belong_nowhere():
    labels = LABELS.astype(object)
    labels[[2, 9]] = None, np.nan
    fit = poisson(X, Y[0], groups=labels)
    assert fit.groups.tolist() == ["apple", "fig", "pear"]
    assert (fit.n_unassigned, fit.n_obs.sum(), fit.n_dropped.sum()) == (2, N - 2, 0)
    assert np.flatnonzero(np.isnan(fit.fitted)).tolist() == [2, 9]
    here = np.array([label is not None and label == label for label in labels])
    same(fit, poisson(X[here], Y[0, here], groups=LABELS[here]))


def test_categorical_labels_keep_their_order():
    fit = poisson(X, Y[0], groups=pd.Series(pd.Categorical(LABELS, ["pear", "fig", "apple"])))
    assert fit.groups.tolist() == ["pear", "fig", "apple"]


def test_pandas_missing_labels():
    labels = pd.Series(LABELS, dtype="string").where(np.arange(N) != 2)
    fit = poisson(X, Y[0], groups=labels)
    assert (fit.groups.tolist(), fit.n_unassigned) == (["apple", "fig", "pear"], 1)


def test_pandas_missing_responses():
    success = pd.Series(np.where(Y[0] > 2, "yes", "no"), dtype="string").where(np.arange(N) != 2)
    assert jaxglm.fit(X, success, family="binomial", missing="drop").n_dropped == 1


def test_groups_of_one_kind_and_right_length():
    with pytest.raises(TypeError, match="must be of one kind, to be sorted; these are int, str"):
        poisson(X, Y[0], groups=[1, "a"] * (N // 2))
    with pytest.raises(ValueError, match="groups must name one group for each of the 24 rows"):
        poisson(X, Y[0], groups=[1, 2, 3])
    with pytest.raises(ValueError, match=r"with groups=, X must have shape \(N, p\)"):
        poisson(XS, Y, groups=LABELS)
    with pytest.raises(ValueError, match=r"with groups=, weights must have shape \(24,\)"):
        poisson(X, Y[0], groups=LABELS, weights=W)


@pytest.mark.parametrize("kind", ["NaN", "code", "small code"])
def test_scan_leaves_missing_features_out(kind):
    features = FEATURES.astype(float)
    features[[1, 5, 8], [0, 0, 3]] = np.nan
    given, code = features, None
    if kind != "NaN":
        code = -9
        given = np.where(np.isnan(features), code, features).astype(np.int8 if kind == "small code" else int)
    fit = jaxglm.scan(X, Y[0], given, family="poisson", missing="drop", missing_code=code)
    assert (fit.names, fit.coefficients.shape) == (["x1", "x2", "x3", "feature"], (5, 4))
    assert fit.n_dropped.tolist() == [2, 0, 0, 1, 0]
    assert list(fit.tidy().columns[:2]) == ["feature", "term"]
    for k in range(5):
        here = ~np.isnan(features[:, k])
        one = poisson(np.column_stack([X, features[:, k]])[here], Y[0, here])
        same_rows(fit[k].coefficients, one.coefficients)
        same_rows(fit[k].standard_errors, one.standard_errors)
        same_rows([fit[k].deviance, fit[k].null_deviance, fit[k].bic], [one.deviance, one.null_deviance, one.bic])
        assert fit[k].n_obs == one.n_obs
        same_rows(fit.fitted[k, here], one.fitted)


def test_scan_names_weights_and_missing_invalid():
    features = pd.DataFrame(FEATURES.astype(float), columns=list("abcde"))
    features.loc[3, "b"] = np.nan
    with pytest.warns(StatusWarning, match=r"1 of 5 fits did not converge: 1 invalid_data \(b\)"):
        fit = jaxglm.scan(X, Y[0], features, family="poisson", weights=W[0], offset=OFFSET[0], names=["one", "u", "v"])
    assert (fit.groups.tolist(), fit.names) == (list("abcde"), ["one", "u", "v", "feature"])
    one = poisson(np.column_stack([X, FEATURES[:, 2]]), Y[0], weights=W[0], offset=OFFSET[0])
    same_rows(fit["c"].coefficients, one.coefficients)
    same_rows(fit["c"].residuals(), one.residuals())
    assert fit["b"].n_obs == one.n_obs
    again = jaxglm.scan(X, Y[0], FEATURES[:, 2:3], "poisson", weights=W[0], offset=OFFSET[0], start=one.coefficients)
    same_rows(again[0].coefficients, one.coefficients)
    assert again[0].n_iterations < one.n_iterations
    with pytest.raises(ValueError, match=r"transposed: pass features\.T"):
        jaxglm.scan(X, Y[0], FEATURES.T, family="poisson")
    with pytest.raises(ValueError, match=r"weights must have shape \(24,\)"):
        jaxglm.scan(X, Y[0], FEATURES, family="poisson", weights=W)


def test_names():
    assert poisson(X, Y[0]).names == ["x1", "x2", "x3"]
    assert poisson(X, Y[0], names=["a", "b", "c"]).names == ["a", "b", "c"]
    assert poisson(pd.DataFrame(X, columns=["u", "v", "w"]), pd.Series(Y[0])).names == ["u", "v", "w"]
    for names in (["a", "b"], ["a", "a", "b"]):
        with pytest.raises(ValueError, match="names must be 3 different names"):
            poisson(X, Y[0], names=names)


def test_a_missing_value_is_invalid_or_dropped():
    holes, design = Y.copy(), X.copy()
    holes[1, [2, 7]] = np.nan
    with pytest.warns(StatusWarning, match=r"1 of 4 fits did not converge: 1 invalid_data \(1\)"):
        fit = poisson(X, holes)
    assert fit.status.tolist() == [0, Status.INVALID_DATA, 0, 0]
    assert fit.n_dropped.tolist() == [0, 0, 0, 0]
    assert np.isnan([*fit.coefficients[1], *fit.fitted[1]]).all()
    whole = poisson(X, Y)
    for k in (0, 2, 3):
        same(fit[k], whole[k])
    design[4, 1] = np.nan
    dropped = poisson(design, holes, missing="drop")
    assert dropped.n_dropped.tolist() == [1, 3, 1, 1]
    for k in range(G):
        here = ~np.isnan(holes[k]) & ~np.isnan(design[:, 1])
        one = poisson(X[here], Y[k, here])
        same_rows(dropped[k].coefficients, one.coefficients)
        same_rows(dropped[k].null_deviance, one.null_deviance)
        assert (dropped[k].n_obs, dropped[k].df_null) == (one.n_obs, one.df_null)
        same_rows(dropped.fitted[k, here], one.fitted)


def test_missing_values_of_ragged_groups():
    holes = np.where(np.isin(np.arange(N), [0, 3]), np.nan, Y[0])
    fit = poisson(X, holes, groups=LABELS, missing="drop")
    lost = [int(np.sum(np.isnan(holes[key == LABELS]))) for key in fit.groups]
    assert fit.n_dropped.tolist() == lost
    here = ~np.isnan(holes)
    other = poisson(X[here], Y[0, here], groups=LABELS[here])
    same_rows(fit.coefficients, other.coefficients)
    same_rows(fit.fitted[here], other.fitted)


def hidden():
    """Rows that hold what no row may, under weight zero; and where the others are."""
    design, y, weights, known = X.copy(), Y[0].copy(), np.ones(N), np.zeros(N)
    design[1], y[2], known[3], y[4] = np.inf, np.nan, np.nan, -5.0
    weights[1:5] = 0.0
    return (design, y), {"weights": weights, "offset": known}, weights > 0


@pytest.mark.parametrize("missing", ["invalid", "drop"])
def test_weight_zero_hides_whatever_the_row_holds(missing):
    arrays, keywords, here = hidden()
    same(
        poisson(*arrays, **keywords, missing=missing), poisson(X[here], Y[0, here], offset=np.zeros(here.sum()))
    )  # not there, so not dropped either


def test_rows_of_weight_zero_may_have_no_fitted_value():
    arrays, keywords, here = hidden()
    fit, one = poisson(*arrays, **keywords), poisson(X[here], Y[0, here], offset=np.zeros(here.sum()))
    same_rows(fit.fitted[here], one.fitted)
    same_rows(fit.residuals()[here], one.residuals())


@pytest.mark.parametrize("exposure", [-1.0, 0.0, np.inf])
@pytest.mark.parametrize("missing", ["invalid", "drop"])
def test_an_impossible_exposure_is_invalid_not_missing(missing, exposure):
    values = np.ones(N)
    values[6] = exposure
    with pytest.warns(StatusWarning, match="invalid_data"):
        fit = poisson(X, Y[0], exposure=values, missing=missing)
    assert (fit.status, fit.n_dropped) == (Status.INVALID_DATA, 0)


def test_labels_as_responses():
    labels = np.where(Y[0] > 2, "yes", "no")
    expected = jaxglm.fit(X, Y[0] > 2, family="binomial")
    same(jaxglm.fit(X, labels, family="binomial"), expected)
    same(jaxglm.fit(X, pd.Series(labels), family="binomial"), expected)
    same(jaxglm.fit(X, np.stack([labels, labels]), family="binomial")[1], expected)
    holes = labels.astype(object)
    holes[0] = None
    assert jaxglm.fit(X, holes, family="binomial", missing="drop").n_dropped == 1
    with pytest.raises(ValueError, match="exactly two, failure and success; this one has 3: apple, fig, pear"):
        jaxglm.fit(X, LABELS, family="binomial")


def test_a_saturated_fit_is_a_fact_not_a_failure():
    fit = jaxglm.fit(X[:3], Y[0, :3])
    assert (fit.status, fit.rank, fit.df_residual) == (Status.CONVERGED, 3, 0)
    assert np.isfinite(fit.coefficients).all()
    assert np.isnan([fit.dispersion, *fit.standard_errors, *fit.p_values, *fit.log10_p_values, *fit.conf_int().ravel()]).all()


def test_augment_has_the_arrays_rows():
    table = poisson(X, Y).augment()
    assert list(table.columns[:7]) == ["fit", "x1", "x2", "x3", "y", "weight", "offset"]
    assert table["fit"].tolist() == np.repeat(np.arange(G), N).tolist()
    np.testing.assert_array_equal(table["y"], Y.ravel())
    np.testing.assert_array_equal(table["fitted"], poisson(X, Y).fitted.ravel())
    assert "fit" not in poisson(X, Y[0]).augment().columns


def test_start_is_one_or_one_a_fit():
    fit = poisson(X, Y)
    for start in (fit.coefficients[0], fit.coefficients):
        again = poisson(X, Y, start=start)
        np.testing.assert_allclose(again.coefficients, fit.coefficients, rtol=1e-9)
        assert again.n_iterations[0] <= 1
    for start in (np.zeros(2), np.zeros((3, P))):
        with pytest.raises(ValueError, match=r"start must have shape \(3,\) or \(4, 3\)"):
            poisson(X, Y, start=start)


def test_ridge_of_every_shape():
    strengths = np.array([[0.0, 1.0, 2.0]] * G) * np.arange(1.0, G + 1)[:, None]
    own = poisson(X, Y, penalty=Ridge(strengths))
    for k in range(G):
        one = poisson(X, Y[k], penalty=Ridge(strengths[k]))
        same(own[k], one)
        mu = np.exp(X @ one.coefficients)
        np.testing.assert_allclose(X.T @ (Y[k] - mu), strengths[k] * one.coefficients, atol=1e-7)
        information = (X.T * mu) @ X + np.diag(strengths[k])
        np.testing.assert_allclose(one.covariance, np.linalg.inv(information), rtol=1e-7)
    same(poisson(X, Y, penalty=Ridge(2.0)), poisson(X, Y, penalty=Ridge([2.0, 2.0, 2.0])))
    for strength in (np.ones(2), -1.0, np.nan):
        with pytest.raises(ValueError, match="the penalty's strength must"):
            poisson(X, Y, penalty=Ridge(strength))


def test_theta_is_one_or_one_a_fit():
    theta = np.array([0.5, 1.0, 2.0, 8.0])
    fit = jaxglm.fit(X, Y, family=families.NegativeBinomial(theta))
    assert fit.theta.tolist() == theta.tolist()
    for k in range(G):
        one = jaxglm.fit(X, Y[k], family=families.NegativeBinomial(theta[k]))
        same(fit[k], one)
        assert fit[k].theta == theta[k]
        same_rows(fit.residuals()[k], one.residuals())
        same_rows(fit.working_weights[k], one.working_weights)
    assert np.isnan(poisson(X, Y).theta).all()
    with pytest.raises(ValueError, match=r"in the order of fit\.groups: shape \(4,\), not \(3,\)"):
        jaxglm.fit(X, Y, family=families.NegativeBinomial(np.ones(3)))
    with pytest.raises(ValueError, match=r"names a column, which only jaxglm\.glm can look up"):
        jaxglm.fit(X, Y, family=families.NegativeBinomial("theta"))


def test_float32_is_close_and_gives_float64_back():
    exact, fit = poisson(X, Y), poisson(X, Y, precision="float32")
    assert fit.coefficients.dtype == fit.deviance.dtype == fit.fitted.dtype == np.float64
    assert fit.converged.all()
    np.testing.assert_allclose(fit.coefficients, exact.coefficients, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(fit.standard_errors, exact.standard_errors, rtol=2e-4)
    np.testing.assert_allclose(fit.deviance, exact.deviance, rtol=2e-4)
    with pytest.raises(ValueError, match='precision must be "float64" or "float32"'):
        poisson(X, Y, precision="float16")


def test_devices_and_options():
    same(poisson(X, Y, device="cpu"), poisson(X, Y, device=jax.devices("cpu")[0]))
    with pytest.warns(StatusWarning, match="4 of 4 fits did not converge: 4 max_iterations"):
        fit = poisson(X, Y, options=IRLS(max_iterations=1))
    assert np.isfinite(fit.coefficients).all()
    assert np.isnan(fit.standard_errors).all()


REFUSED = {
    "transposed": ((X, Y.T), {}, ValueError, "transpose"),
    "rows": ((X, Y[0, :5]), {}, ValueError, r"y must have shape \(24,\)"),
    "weights": ((X, Y[0]), {"weights": np.ones(3)}, ValueError, r"weights must have shape \(24,\)"),
    "two g": ((X, Y), {"weights": W[:2]}, ValueError, "4.*2|2.*4"),
    "two g of X": ((XS[:3], Y), {}, ValueError, "4.*3|3.*4"),
    "text": ((np.full((N, 2), "a"), Y[0]), {}, TypeError, r"X must be numbers.*jaxglm\.glm with a formula"),
    "ragged": (([[1.0], [1.0, 2.0]], [1, 2]), {}, ValueError, "X must be a rectangular array"),
    "flat": ((X[:, 0], Y[0]), {}, ValueError, r"X must have shape \(n, p\)"),
    "no columns": ((X[:, :0], Y[0]), {}, ValueError, "X has no columns"),
    "missing": ((X, Y), {"missing": "omit"}, ValueError, "missing must be"),
    "family": ((X, Y[0]), {"family": "possion"}, ValueError, "Did you mean 'poisson'"),
}


@pytest.mark.parametrize(("arrays", "keywords", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_anything_runs(arrays, keywords, error, says):
    with pytest.raises(error, match=says):
        jaxglm.fit(*arrays, **{"family": "poisson", **keywords})
