"""Robust covariances against R's sandwich, in every shape of call, with groups of all kinds side by side."""

import warnings

import numpy as np
import pandas as pd
import pytest
from covariances import DATA, REFERENCE, Y, assert_covariance

import jaxglm
from jaxglm import families, leverage
from jaxglm.leverage import hat_values
from jaxglm.status import Status, StatusWarning

pytestmark = pytest.mark.long

NAMES = sorted({case["name"] for case in REFERENCE["cases"]})
TYPES = ("HC0", "HC1", "HC2", "HC3", "HC4")
X = np.column_stack([np.ones(60), DATA["x"], DATA["z"], DATA["x"] + 2 * DATA["z"]])
ALIASED = ("poisson_log",)  # cases with the last column, which is aliased
CASES = [*((name, "weights") for name in NAMES), ("binomial_logit", "plain")]


def case_of(name, part, kind):
    (case,) = [c for c in REFERENCE["cases"] if (c["name"], c["part"], c["kind"]) == (name, part, kind)]
    return case


def arguments(name, kind):
    """y, family, weights and offset of a case's rows."""
    response, link = name.rsplit("_", 1)
    family = families.NegativeBinomial(2.0) if response == "negative_binomial" else families.named(response, link)
    weights = DATA["trials"].astype(float) if response == "binomial" else np.ones(60)
    weights = weights * DATA["weights"] if kind == "weights" else weights
    return Y[response], family, weights, DATA["offset"] if kind == "weights" else np.zeros(60)


def covariances(fit, shop, region):
    """All kinds of robust covariances of a result, by the reference's names."""
    found = {type: fit.robust(type) for type in TYPES}
    found["cluster"] = fit.robust("cluster", shop)
    found["cluster_HC1"] = fit.robust("cluster", shop, correction="HC1", cadjust=False)
    found["cluster_two"] = fit.robust("cluster", (shop, region))
    return found


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_one_fit_and_ragged_groups_are_as_in_r(name, kind):
    y, family, weights, offset = arguments(name, kind)
    columns = [0, 1, 2, 3] if name in ALIASED else [0, 1, 2]
    whole = jaxglm.fit(X[:, columns], y, family, weights=weights, offset=offset)
    parts = jaxglm.fit(X[:, columns], y, family, weights=weights, offset=offset, groups=DATA["group"])
    for label, made in covariances(whole, DATA["shop"], DATA["region"]).items():
        assert_covariance(made.covariance, case_of(name, "all", kind)["covariance"][label], len(columns))
    for label, made in covariances(parts, DATA["shop"], DATA["region"]).items():
        for k, group in enumerate("abc"):
            assert_covariance(made.covariance[k], case_of(name, group, kind)["covariance"][label], len(columns))
    there = weights > 0
    np.testing.assert_allclose(hat_values(whole)[there], case_of(name, "all", kind)["hat"], rtol=1e-8)
    for group in "abc":
        inside = there & (DATA["group"] == group)
        np.testing.assert_allclose(hat_values(parts)[inside], case_of(name, group, kind)["hat"], rtol=1e-8)
    assert (hat_values(whole)[~there] == 0).all()


@pytest.fixture(scope="module")
def shapes():
    """The same three fits, of weights 0 outside of a group, in every shape."""
    y, family, weights, offset = arguments("poisson_log", "weights")
    inside = [np.where(DATA["group"] == group, weights, 0.0) for group in "abc"]
    W, shared = np.stack(inside), {"offset": offset}
    return {
        "shared design": jaxglm.fit(X[:, :3], np.stack([y] * 3), family, weights=W, **shared),
        "own designs": jaxglm.fit(np.stack([X[:, :3]] * 3), y, family, weights=W, **shared),
        "replicates": jaxglm.fit(X[:, :3], y, family, weights=W, **shared),
    }


@pytest.mark.parametrize("shape", ["shared design", "own designs", "replicates"])
def test_fits_of_one_shape_are_as_in_r(shapes, shape):
    fits = shapes[shape]
    joint = np.stack([DATA["shop"]] * 3)
    found = covariances(fits, DATA["shop"], DATA["region"]) | {"cluster": fits.robust("cluster", joint)}
    for label, made in found.items():
        for k, group in enumerate("abc"):
            assert_covariance(made.covariance[k], case_of("poisson_log", group, "weights")["covariance"][label], 3)
    assert hat_values(fits).shape == (3, 60)
    np.testing.assert_allclose(hat_values(fits).sum(axis=1), 3.0, rtol=1e-12)


@pytest.mark.parametrize("missing", ["invalid", "drop"])
def test_scan(missing):
    y, family, weights, offset = arguments("poisson_log", "weights")
    features = np.column_stack([DATA["z"], DATA["z"], DATA["x"]]).astype(float)
    rows = np.full(60, True)
    if missing == "drop":
        features[:4, 1] = np.nan
        rows[:4] = False
    fits = jaxglm.scan(X[:, :2], y, features, family, weights=weights, offset=offset, missing=missing)
    one = jaxglm.fit(X[rows][:, :3], y[rows], family, weights=weights[rows], offset=offset[rows])
    for type in ("HC1", "HC3"):
        made = fits.robust(type)
        assert_covariance(made.covariance[0], case_of("poisson_log", "all", "weights")["covariance"][type], 3)
        np.testing.assert_allclose(made.covariance[1], one.robust(type).covariance, rtol=1e-9)
        assert np.isnan(made.covariance[2, 2]).all()
    clusters = fits.robust("cluster", DATA["shop"])
    assert_covariance(clusters.covariance[0], case_of("poisson_log", "all", "weights")["covariance"]["cluster"], 3)
    np.testing.assert_allclose(clusters.covariance[1], one.robust("cluster", DATA["shop"][rows]).covariance, rtol=1e-9)
    np.testing.assert_allclose(hat_values(fits)[1][rows], hat_values(one), rtol=1e-9)


@pytest.fixture(scope="module")
def table():
    """A table with a missing value, and its fits by group."""
    data = pd.DataFrame({name: DATA[name] for name in ("group", "shop", "region", "x", "z", "weights", "offset")})
    data = pd.concat([data, data.iloc[:1].assign(x=np.nan)])
    data["y"] = [*Y["poisson"], 3.0]
    return data, jaxglm.glm("y ~ x + z", data, "poisson", by="group", weights="weights", offset="offset")


def test_table_takes_names_of_columns(table):
    data, fit = table
    found = fit.robust("cluster", "shop"), fit.robust("cluster", ["shop", "region"]), fit.robust(clusters=data["shop"])
    for made, label in zip(found, ("cluster", "cluster_two", "cluster"), strict=True):
        for group in "abc":
            assert_covariance(made[group].covariance, case_of("poisson_log", group, "weights")["covariance"][label], 3)


def test_everything_downstream_uses_it(table, tmp_path):
    data, fit = table
    made = fit.robust("HC3")
    assert (fit.covariance_type, made.covariance_type) == ("model", "HC3")
    np.testing.assert_array_equal(made.coefficients, fit.coefficients)
    errors = np.sqrt(np.diagonal(made.covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(made.tidy()["std_error"], errors.ravel(), rtol=1e-14)
    np.testing.assert_allclose(made.statistics, fit.coefficients / errors, rtol=1e-14)
    new = data.iloc[:3]
    x = np.column_stack([np.ones(3), new["x"], new["z"]])
    place = [list("abc").index(group) for group in new["group"]]
    variance = np.einsum("ni,nij,nj->n", x, made.covariance[place], x)
    np.testing.assert_allclose(made.prediction(new, "link").standard_error, np.sqrt(variance), rtol=1e-12)
    assert "Covariance: HC3, statistics z" in made.summary()
    assert "Covariance: HC3, statistics z" in made["a"].summary()
    assert "Covariance" not in fit.summary()
    made.save(tmp_path / "fit")
    again = jaxglm.load(tmp_path / "fit")
    np.testing.assert_array_equal(again.covariance, made.covariance)
    assert again.covariance_type == "HC3"
    np.testing.assert_allclose(made["b"].robust("HC1").covariance, fit.robust("HC1")["b"].covariance, rtol=1e-12)
    np.testing.assert_allclose(made.robust("HC0").covariance, fit.robust("HC0").covariance, rtol=1e-12)
    np.testing.assert_allclose(hat_values(made), hat_values(fit), rtol=1e-10)


def test_statistics_are_z_unless_degrees_are_given(tmp_path):
    y, family, _, _ = arguments("gaussian_identity", "plain")
    fit = jaxglm.fit(X[:, :3], y, family)
    made = fit.robust("cluster", DATA["shop"])
    half = made.conf_int()[:, 1] - made.coefficients
    np.testing.assert_allclose(half / made.standard_errors, 1.959963984540054, rtol=1e-12)
    for degrees, value in (("residual", 57), ("clusters", 8), (5.0, 5)):
        student = fit.robust("cluster", DATA["shop"], degrees=degrees)
        expected = {57: 2.002465459291007, 8: 2.306004135204166, 5: 2.570581835636314}[value]
        half = student.conf_int()[:, 1] - student.coefficients
        np.testing.assert_allclose(half / student.standard_errors, expected, rtol=1e-10)
        assert f"on {value} degrees" in student.summary()
        predicted = student.prediction(X[:2, :3])
        np.testing.assert_allclose((predicted.high - predicted.estimate) / predicted.standard_error, expected, rtol=1e-10)
        student.save(tmp_path / "fit")
        np.testing.assert_array_equal(jaxglm.load(tmp_path / "fit").conf_int(), student.conf_int())


def bad_among_good():
    """Rows of good groups, and of one separated, one invalid, one empty, one of a single row and one of a single cluster."""
    rng = np.random.default_rng(3)
    g, n = 8, 30
    ids = np.repeat(np.arange(g), n)
    A = np.column_stack([np.ones(g * n), rng.normal(size=g * n), np.tile(np.arange(n) % 2, g)])
    y = rng.binomial(1, 0.5, g * n).astype(float)
    weights, clusters = np.ones(g * n), rng.integers(0, 6, g * n)
    y[ids == 1] = np.where(A[ids == 1, 2] == 1, 1.0, y[ids == 1])  # the last term diverges
    y[(ids == 2) & (np.arange(g * n) % n == 4)] = np.nan
    weights[ids == 3] = 0.0
    weights[ids == 4] = np.where(np.arange(n) == 0, 1.0, 0.0)
    clusters[ids == 5] = 2
    return A, y, weights, clusters, ids


def test_bad_groups_change_nothing_for_the_others():
    A, y, weights, clusters, ids = bad_among_good()
    with pytest.warns(StatusWarning):
        fit = jaxglm.fit(A, y, "binomial", weights=weights, groups=ids)
    good = np.isin(ids, [0, 6, 7])
    alone = jaxglm.fit(A[good], y[good], "binomial", groups=ids[good])
    with pytest.warns(StatusWarning, match=r"2 of 8 fits \(4, 5\).*one cluster"):
        found = fit.robust("cluster", clusters)
    for made, other in ((found, alone.robust("cluster", clusters[good])), (fit.robust("HC1"), alone.robust("HC1"))):
        np.testing.assert_allclose(made.covariance[[0, 6, 7]], other.covariance, rtol=1e-12)
        assert np.isnan(made.covariance[[2, 3, 4]]).all()
    assert np.isnan(found.covariance[5]).all()
    assert fit.status[1] == Status.SEPARATED
    rest = (ids == 1) & (A[:, 2] == 0)
    left = jaxglm.fit(A[rest][:, :2], y[rest], "binomial")
    limit, expected = fit.robust("HC0").covariance[1], left.robust("HC0").covariance
    np.testing.assert_allclose(limit[:2, :2], expected, rtol=1e-7)
    assert np.isnan(limit[2]).all()
    assert np.isnan(hat_values(fit)[(ids == 1) & (A[:, 2] == 1)]).all()
    np.testing.assert_allclose(hat_values(fit)[rest], hat_values(left), rtol=1e-7)


def test_a_row_that_alone_holds_a_term_has_no_hc3():
    alone = np.zeros(60)
    alone[7] = 1.0
    A, y = np.column_stack([X[:, :2], alone]), Y["gaussian"]
    fits = jaxglm.fit(np.stack([A, X[:, :3]]), y)
    with pytest.warns(StatusWarning, match=r"1 of 2 fits \(0\).*hat value of 1"):
        made = fits.robust("HC3")
    assert np.isnan(made.covariance[0]).all()
    np.testing.assert_allclose(made.covariance[1], jaxglm.fit(X[:, :3], y).robust("HC3").covariance, rtol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(fits.robust("HC0").covariance).all()


def test_nearly_dependent_columns_and_large_units():
    year = 1990.0 + 30 * (DATA["x"] + 1)
    A = np.column_stack([np.ones(60), year, year**2])
    center = np.column_stack([np.ones(60), year - 2020, (year - 2020) ** 2])
    there = jaxglm.fit(A, Y["gaussian"]), jaxglm.fit(center, Y["gaussian"])
    np.testing.assert_allclose(hat_values(there[0]), hat_values(there[1]), rtol=1e-9)
    for type in TYPES:
        last = [fit.robust(type).standard_errors[2] for fit in there]
        np.testing.assert_allclose(*last, rtol=1e-7)


def test_single_precision_is_made_good():
    y, family, _, _ = arguments("poisson_log", "plain")
    fits = [jaxglm.fit(X[:, :3], y, family, precision=precision) for precision in ("float32", "float64")]
    np.testing.assert_allclose(*(np.diagonal(fit.robust("HC3").covariance) for fit in fits), rtol=2e-4)
    np.testing.assert_allclose(hat_values(fits[0]).sum(), 3.0, rtol=1e-9)


def test_ridge_keeps_its_bread():
    y, family, _, _ = arguments("poisson_log", "plain")
    fit = jaxglm.fit(X[:, :3], y, family, penalty=jaxglm.Ridge([0.0, 2.0, 2.0]))
    scores = X[:, :3] * (fit.working_weights * fit.residuals("working"))[:, None]
    B = np.linalg.inv((X[:, :3].T * fit.working_weights) @ X[:, :3] + np.diag([0.0, 2.0, 2.0]))
    np.testing.assert_allclose(fit.robust("HC0").covariance, B @ scores.T @ scores @ B, rtol=1e-8)


def test_perfect_fits_and_no_degrees_of_freedom():
    fits = jaxglm.fit(X[:3, :3], [X[:3, :3] @ [1.0, 2.0, 3.0], Y["gaussian"][:3]])
    assert np.abs(fits.robust("HC0").covariance).max() < 1e-20
    assert np.isnan(fits.robust("HC1").covariance).all()


def test_bad_requests(table, tmp_path):
    _, fit = table
    one = jaxglm.fit(X[:, :3], Y["poisson"], "poisson")
    with pytest.raises(ValueError, match=r"no covariance of type 'hc3'. Did you mean 'HC3'"):
        one.robust("hc3")
    with pytest.raises(ValueError, match="go together"):
        one.robust("cluster")
    with pytest.raises(ValueError, match="go together"):
        one.robust("HC1", DATA["shop"])
    with pytest.raises(ValueError, match=r"clusters must have shape \(60,\), one label for each row, not \(59,\)"):
        one.robust("cluster", DATA["shop"][1:])
    with pytest.raises(ValueError, match="one cluster; at least two"):
        one.robust("cluster", np.ones(60))
    with pytest.raises(ValueError, match="cluster of some row is missing"):
        one.robust("cluster", np.where(DATA["x"] > 0.5, np.nan, DATA["shop"]))
    with pytest.raises(ValueError, match="correction must be one of"):
        one.robust("cluster", DATA["shop"], correction="HC3")
    with pytest.raises(ValueError, match="degrees must be"):
        one.robust("HC1", degrees="clusters")
    with pytest.raises(ValueError, match="fit was made from arrays"):
        one.robust("cluster", "shop")
    with pytest.raises(ValueError, match=r"no column .shopp.. Did you mean .shop"):
        fit.robust("cluster", "shopp")
    with pytest.raises(ValueError, match="one group"):
        fit["a"].robust("cluster", "shop")
    fit.save(tmp_path / "fit")
    with pytest.raises(ValueError, match="loaded from a file, which holds no rows"):
        jaxglm.load(tmp_path / "fit").robust("HC0")


def many_shapes():
    """Fits of every shape, with rows of weight zero, offsets, an aliased and a separated group; and clusters of their rows."""
    rng = np.random.default_rng(8)
    g, n = 11, 40
    X = np.concatenate([np.ones((g, n, 1)), rng.standard_normal((g, n, 2))], axis=2)
    X[3, :, 2] = 2.0 * X[3, :, 1]
    y = (rng.random((g, n)) < 0.5) * 1.0
    y[4] = X[4, :, 1] > 0
    given = {"weights": rng.integers(0, 3, (g, n)).astype(float), "offset": rng.normal(0, 0.2, (g, n)), "family": "binomial"}
    by_row, each = rng.integers(0, 6, n), rng.integers(0, 7, (g, n))
    long = {name: values.reshape(-1) if isinstance(values, np.ndarray) else values for name, values in given.items()}
    shuffled = rng.permutation(g * n)
    long = {name: values[shuffled] if isinstance(values, np.ndarray) else values for name, values in long.items()}
    ids = np.repeat(np.arange(g), n)[shuffled]
    features = rng.integers(0, 3, (n, g)).astype(np.int8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            (jaxglm.fit(X, y, **given), by_row),
            (jaxglm.fit(X, y, **given), each),
            (jaxglm.fit(X[0], y, **given), (by_row, np.arange(n) % 4)),
            (jaxglm.fit(X.reshape(-1, 3)[shuffled], y.reshape(-1)[shuffled], groups=ids, **long), each.reshape(-1)[shuffled]),
            (jaxglm.fit(X.reshape(-1, 3)[shuffled], y.reshape(-1)[shuffled], groups=ids, **long), np.arange(g * n)),
            (jaxglm.scan(X[0], y[0], features, "binomial"), by_row),
        ]


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("which", range(6))
def test_lanes_say_what_the_general_path_says(which, few, monkeypatch):
    from jaxglm import cluster_sums
    from jaxglm.irls import lanes

    monkeypatch.setattr(cluster_sums, "FEW" if not few else "NEAR", 0)
    fit, clusters = many_shapes()[which]

    def all_types():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clustered = fit.robust("cluster", clusters, correction="HC1", degrees="clusters")
            return [fit.robust("HC3").covariance, clustered.covariance, clustered.degrees]

    found = all_types()
    monkeypatch.setattr(lanes, "available", lambda job, device: "not wanted")
    for one, wanted in zip(found, all_types(), strict=True):
        assert np.isfinite(wanted).any()
        np.testing.assert_allclose(one, wanted, rtol=1e-9, atol=1e-12)


def test_short_orders_for_all_fits_are_sorted():
    """Clusters that are the same for all fits, of few rows; not of many rows, nor where fits have clusters of their own."""
    from jaxglm import cluster_sums

    def kind(fit, clusters):
        return type(cluster_sums.marks_of(fit._rows(), [np.asarray(clusters)])[0]) is cluster_sums.FewClusters

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(2, 300, 2)), rng.normal(size=(2, 300))
    short, long = jaxglm.fit(X[:, :40], y[:, :40]), jaxglm.fit(X, y)
    each = np.arange(80).reshape(2, 40) % 5
    assert (kind(short, each[0]), kind(short, each), kind(long, np.arange(300) % 5)) == (False, True, True)
    assert not kind(long, np.arange(300))


@pytest.mark.parametrize("p", [1, 3, 20])
def test_roots(p):
    """Of regular matrices, of ones with rows of zeros, and of none; one that is singular leaves the others as they are."""
    rng = np.random.default_rng(p)
    half = rng.normal(size=(7, p, p + 2)) * 10.0 ** rng.integers(-3, 4, (7, p, 1))
    half[2, p // 2] = 0.0
    matrices = half @ np.swapaxes(half, 1, 2)
    matrices[5] = np.nan
    roots = leverage.factored(matrices)
    size = np.sqrt(np.maximum(np.diagonal(matrices, axis1=1, axis2=2), 1e-300))
    error = (roots.root @ np.swapaxes(roots.root, 1, 2) - matrices) / size[:, :, None] / size[:, None, :]
    fine = np.arange(7) != 5
    assert np.abs(error[fine]).max() < 1e-13
    assert np.isnan(roots.root[5]).all()
    assert (roots.root[fine] == np.tril(roots.root[fine])).all()
    scaled = matrices[3:5] / size[3:5, :, None] / size[3:5, None, :]
    least = np.min(np.diagonal(np.linalg.cholesky(scaled), axis1=1, axis2=2) ** 2, axis=1)
    np.testing.assert_allclose(roots.smallest_pivot[3:5], least, rtol=1e-9)
    with_singular = np.concatenate([matrices, np.ones((1, p, p))])
    np.testing.assert_allclose(leverage.factored(with_singular).root[fine.nonzero()], roots.root[fine], rtol=1e-9)
