"""Missing values: every number of a fit that lost rows is that of a fit to its other rows, at both doors and in every shape.

Six fits of one design: one lacks nothing; one lacks the rows that keep a dummy from being zero, which is then aliased; one
keeps no counts but zeros, and is separated; one keeps fewer rows than columns; one keeps none; one holds a value that is
not valid, which is not missing.
"""

import numpy as np
import pandas as pd
import pytest

import jaxglm
from jaxglm import Status, StatusWarning, fitting

G, N, P = 6, 30, 4
RNG = np.random.default_rng(5)
X = np.column_stack([np.ones(N), RNG.normal(size=N), RNG.uniform(-1, 1, N), np.arange(N) < 3])
XS = np.stack([np.column_stack([np.ones(N), RNG.normal(size=(N, 2)), np.arange(N) < 3]) for _ in range(G)])
Y = RNG.poisson(np.exp(0.7 + 0.4 * X[:, 1]), (G, N)).astype(float)
Y[2, ::2], Y[:2, :3], Y[3, :3] = 0.0, [1.0, 3.0, 2.0], [1.0, 2.0, 1.0]
W = RNG.integers(1, 5, (G, N)) / 2.0
OFFSET = RNG.uniform(-0.3, 0.3, (G, N))
LACKS = np.zeros((G, N), bool)
LACKS[1, [0, 1, 2, 9]] = True
LACKS[2, 1::2] = True
LACKS[3, 3:] = True
LACKS[4] = True
LACKS[5, 7] = True
EXPECTED = [Status.CONVERGED, Status.CONVERGED, Status.SEPARATED, Status.CONVERGED, Status.NO_DATA, Status.INVALID_DATA]
Y[5, 8] = -1.0

NUMBERS = (
    "coefficients", "covariance", "standard_errors", "statistics", "p_values", "log10_p_values", "deviance", "null_deviance",
    "log_likelihood", "aic", "bic", "dispersion",
)  # fmt: skip
COUNTS = ("n_obs", "df_residual", "df_null", "rank", "status", "infinite", "converged")
ROWS = {
    "fitted": lambda fit: fit.fitted,
    "linear predictor": lambda fit: fit.linear_predictor,
    "working response": lambda fit: fit.working_response,
    "working weights": lambda fit: fit.working_weights,
    **{
        f"{type} residuals": lambda fit, type=type: fit.residuals(type)
        for type in ("deviance", "pearson", "response", "working")
    },
}


def same(one, other, here=None, lost=0):
    """Hold all that two results say against each other: the second was given only the rows `here`."""
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-10, atol=1e-10, err_msg=name)
    np.testing.assert_allclose(one.conf_int(), other.conf_int(), rtol=1e-10, atol=1e-10)
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.n_dropped == lost
    if here is None:
        return
    for name, look in ROWS.items():
        values = look(one)
        np.testing.assert_allclose(values[here], look(other), rtol=1e-10, atol=1e-10, err_msg=name)
        assert np.isnan(values[~here]).all(), name


def each(values, k, axes):
    return None if values is None else values[k] if values.ndim > axes else values


def with_holes(values, holes):
    return np.where(holes, np.nan, values)


HALF = RNG.random((G, N)) < 0.5
SHAPES = {
    "responses": (X, with_holes(Y, LACKS), {}),
    "responses, weights and offsets": (
        X,
        with_holes(Y, LACKS & HALF),
        {"weights": W, "offset": with_holes(OFFSET, LACKS & ~HALF)},
    ),
    "weights": (X, Y[0], {"weights": with_holes(W, LACKS)}),
    "exposures": (X, Y[0], {"exposure": with_holes(np.exp(OFFSET), LACKS), "weights": W[1]}),
    "own designs": (with_holes(XS, LACKS[:, :, None] & (np.arange(P) == 1 + HALF[:, :, None])), Y, {}),
    "own designs and responses": (with_holes(XS, (LACKS & HALF)[:, :, None]), with_holes(Y, LACKS & ~HALF), {"weights": W}),
    "a row of the shared design": (with_holes(X, (np.arange(N) == 11)[:, None]), with_holes(Y, LACKS), {"offset": OFFSET[0]}),
}


def poisson(X, y, **keywords):
    """A Poisson fit without missing rows, and without its warning."""
    return jaxglm.fit(X, y, family="poisson", missing="drop", **keywords)


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
@pytest.mark.parametrize(("design", "y", "keywords"), SHAPES.values(), ids=SHAPES)
def test_a_fit_that_lost_rows_is_that_of_the_others(design, y, keywords):
    fit = poisson(design, y, **keywords)
    assert len(fit) == G
    for k in range(G):
        own, response = each(design, k, 2), each(y, k, 1)
        single = {name: each(values, k, 1) for name, values in keywords.items()}
        lost = np.isnan(own).any(axis=1) | np.isnan(response)
        for values in single.values():
            lost = lost | np.isnan(values)
        one = jaxglm.fit(own[~lost], response[~lost], "poisson", **{name: values[~lost] for name, values in single.items()})
        same(fit[k], one, ~lost, lost.sum())
        for name, look in ROWS.items():
            np.testing.assert_array_equal(look(fit)[k], look(fit[k]), err_msg=name)


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
def test_ragged_groups():
    order = RNG.permutation(G * N)
    flat = {name: values.reshape(-1)[order] for name, values in {"y": with_holes(Y, LACKS), "w": W, "o": OFFSET}.items()}
    rows, groups, lost = XS.reshape(-1, P)[order].copy(), np.repeat(np.arange(G), N)[order], LACKS.reshape(-1)[order]
    rows[np.flatnonzero(lost)[::3], 2] = np.nan
    flat["o"][np.flatnonzero(lost)[1::3]] = np.nan
    flat["w"][np.flatnonzero(lost)[2::3]] = np.nan
    fit = poisson(rows, flat["y"], weights=flat["w"], offset=flat["o"], groups=groups)
    assert fit.status.tolist() == EXPECTED
    for name, look in ROWS.items():
        assert np.isnan(look(fit)[lost]).all(), name
    for k in range(G):
        here = (groups == k) & ~lost
        one = jaxglm.fit(rows[here], flat["y"][here], "poisson", weights=flat["w"][here], offset=flat["o"][here])
        same(fit[k], one, ~lost[groups == k], LACKS[k].sum())
        if fit.status[k] != Status.NO_DATA:
            same(fit[k], jaxglm.fit(rows[here], flat["y"][here], "poisson", groups=groups[here], weights=flat["w"][here],
                                    offset=flat["o"][here])[k], lost=LACKS[k].sum())  # fmt: skip


FEATURES = RNG.integers(0, 3, (N, 5)).astype(float)
FEATURES[3:, 1] = 0.0  # nothing but zeros where the first rows are missing
GONE = RNG.random((N, 5)) < 0.15
GONE[:3, 1] = True
GONE[:, 4] = True


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
@pytest.mark.parametrize("family", ["poisson", "gaussian"])
@pytest.mark.parametrize("kind", ["NaN", "code"])
def test_scans(kind, family):
    covariates, y, weights, offset = X[:, :3].copy(), Y[0].copy(), W[0].copy(), OFFSET[0].copy()
    covariates[20, 1] = y[21] = weights[22] = offset[23] = np.nan
    weights[24], FEATURES[24, 0] = 0.0, np.nan  # is not there, and so not missing either
    given = with_holes(FEATURES, GONE) if kind == "NaN" else np.where(GONE | np.isnan(FEATURES), -9, FEATURES).astype(np.int8)
    code = None if kind == "NaN" else -9
    keywords = {"weights": weights, "offset": offset}
    fit = jaxglm.scan(covariates, y, given, family, missing="drop", missing_code=code, **keywords)
    assert fit.status.tolist() == [Status.CONVERGED] * 4 + [Status.NO_DATA]
    assert fit.rank.tolist() == [4, 3, 4, 4, 0]
    common = np.isin(np.arange(N), [20, 21, 22, 23])
    for k in range(5):
        lost = (common | GONE[:, k]) & (weights != 0)
        here = ~common & ~GONE[:, k] & (weights != 0)
        rows = np.column_stack([covariates, FEATURES[:, k]])[here]
        one = jaxglm.fit(rows, y[here], family, weights=weights[here], offset=offset[here])
        same(fit[k], one, lost=lost.sum())
        np.testing.assert_allclose(fit.fitted[k, here], one.fitted, rtol=1e-10, atol=1e-10)
        assert np.isnan(fit.fitted[k, lost]).all()
        assert np.isnan(fit.residuals()[k, lost]).all()


def table():
    """The fits' rows as a table of long form, with holes in every column that is used."""
    data = pd.DataFrame({"shop": np.repeat(list("abcdef"), N), "x": XS[:, :, 1].ravel(), "d": XS[:, :, 3].ravel()})
    data["y"], data["w"], data["o"] = Y.ravel(), W.ravel(), OFFSET.ravel()
    places = np.flatnonzero(LACKS.ravel())
    for turn, name in enumerate(("y", "x", "w", "o")):
        data.loc[places[turn::4], name] = np.nan
    return data


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
def test_tables_by_group():
    data = table()
    fit = jaxglm.glm("y ~ x + d", data, "poisson", by="shop", weights="w", offset="o")
    assert fit.status.tolist() == EXPECTED
    for k, shop in enumerate("abcdef"):
        rows = data[(data["shop"] == shop) & ~LACKS.ravel()]
        if len(rows):
            design = np.column_stack([np.ones(len(rows)), rows["x"], rows["d"]])
            one = jaxglm.fit(design, rows["y"], "poisson", weights=rows["w"], offset=rows["o"])
            same(fit[shop], one, lost=LACKS[k].sum())
            np.testing.assert_allclose(fit.fitted[rows.index], one.fitted, rtol=1e-10)
    assert np.isnan(fit.fitted[LACKS.ravel()]).all()


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
def test_tables_of_responses():
    data = pd.DataFrame({"x": X[:, 1], "z": X[:, 2], "d": X[:, 3], "o": OFFSET[0]})
    data.loc[13, "z"] = data.loc[14, "o"] = np.nan
    fit = jaxglm.glm("~ x + z + d", data, "poisson", responses=with_holes(Y, LACKS).T, weights=W[0], offset="o")
    gone = np.isin(np.arange(N), [13, 14])
    for k in range(G):
        lost = LACKS[k] | gone
        one = jaxglm.fit(X[~lost], Y[k, ~lost], "poisson", weights=W[0, ~lost], offset=OFFSET[0, ~lost])
        same(fit[k], one, lost=lost.sum())
        for name, look in ROWS.items():
            np.testing.assert_allclose(look(fit)[k, ~lost], look(one), rtol=1e-10, atol=1e-10, err_msg=name)
            assert np.isnan(look(fit)[k, lost]).all(), name
    frame = fit.augment()
    assert np.isnan(frame["fitted"].to_numpy().reshape(G, -1)[LACKS[:, ~gone]]).all()


def test_a_gaussian_dispersion_counts_the_rows_that_are_left():
    holes = with_holes(Y[:3], LACKS[:3])
    fit = jaxglm.fit(X, holes, missing="drop")
    for k in range(3):
        same(fit[k], jaxglm.fit(X[~LACKS[k]], Y[k, ~LACKS[k]]), ~LACKS[k], LACKS[k].sum())


def test_a_weight_of_zero_is_no_missing_value():
    weights = np.ones(N)
    weights[[2, 5]] = 0.0
    y = Y[0].copy()
    y[2] = np.nan
    fit = poisson(X, y, weights=weights)
    assert (fit.n_dropped, fit.n_obs) == (0, N - 2)
    assert np.isfinite(fit.fitted[[2, 5]]).all()


def test_infinite_values_are_invalid_not_missing():
    design = X.copy()
    design[4, 1] = np.inf
    with pytest.warns(StatusWarning, match="invalid_data"):
        assert poisson(design, Y[0]).n_dropped == 0


def test_nothing_is_copied_or_slower_where_nothing_is_missing(monkeypatch, without_lanes):
    """The shared design of fits without holes, or with holes in itself alone, has weights without an axis of fits, and all
    fits go the quick way."""
    seen = []
    monkeypatch.setattr(
        fitting, "_crossed", lambda task, size, members, real=fitting._crossed: seen.append(task) or real(task, size, members)
    )
    monkeypatch.setattr(fitting, "_carefully", lambda task, found, groups, tried: seen.append(len(groups)))
    poisson(X, Y[:2])
    poisson(with_holes(X, (np.arange(N) == 11)[:, None]), Y[:2])
    poisson(X, with_holes(Y[:2], np.arange(N) == 9))
    whole, design, responses = (task.source for task in seen[::2])
    assert whole.weights is None
    assert design.weights.shape == (N,)
    assert responses.weights.shape == (2, N)
    assert seen[1::2] == [0, 0, 0]
