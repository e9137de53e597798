"""The bootstrap against R's boot for the same draws, and what it does in every shape of call."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from covariances import DATA, Y

import jaxglm
from jaxglm import bootstrap, families
from jaxglm.status import Status, StatusWarning

pytestmark = pytest.mark.long

REFERENCE = json.loads((Path(__file__).parent / "reference" / "bootstrap.json").read_text())
X = np.column_stack([np.ones(60), DATA["x"], DATA["z"]])
THERE = DATA["weights"] > 0


def proportions(link, **more):
    """The reference's fit: rows of positive weight, trials as weights."""
    rows = {"weights": DATA["trials"][THERE], "offset": DATA["offset"][THERE], **more}
    return jaxglm.fit(X[THERE], Y["binomial"][THERE], families.Binomial(link), **rows)


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: case["link"])
def test_replicates_and_intervals_are_those_of_boot(case):
    counts = np.array(REFERENCE["counts"])
    fit = proportions(case["link"])
    many = proportions(case["link"], groups=np.zeros(58))  # the same, as one of ragged groups
    found = [bootstrap.refitted(one.task, one.solution.aliased, np.array([0]), [counts])[0] for one in (fit, many)]
    two = np.array([0, 1])
    both = jaxglm.fit(np.stack([X[THERE]] * 2), Y["binomial"][THERE], families.Binomial(case["link"]),
        weights=DATA["trials"][THERE], offset=DATA["offset"][THERE])  # fmt: skip
    found += list(bootstrap.refitted(both.task, both.solution.aliased, two, [counts, counts]))
    for made in found:
        np.testing.assert_allclose(made, case["t"], rtol=1e-7, atol=1e-9)
    acceleration = bootstrap.acceleration(fit, None)
    np.testing.assert_allclose(acceleration[0], case["acceleration"], rtol=1e-4)
    exact = np.array([case["acceleration"]])
    for intervals in ("percentile", "bca"):
        made = bootstrap.Bootstrap(found[0][None], exact, intervals)
        expected = [interval[intervals] for interval in case["intervals"]]
        np.testing.assert_allclose(bootstrap.interval(made, fit.solution.coefficients, 0.9)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(bootstrap.covariance(made)[0], case["covariance"], rtol=1e-6)


def test_draws_depend_on_the_seed_and_on_the_rows():
    fit = proportions("logit")
    first, again, other = (fit.bootstrap(99, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.covariance, again.covariance)
    assert (first.covariance != other.covariance).all()
    units = bootstrap.units_of(fit, None)
    drawn = bootstrap.draw(units, 0, slice(None), np.random.default_rng(0), 500)
    assert (drawn.sum(axis=1) == 58).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1.0, atol=0.25)
    np.testing.assert_allclose(drawn.var(axis=0).mean(), 57 / 58, rtol=0.05)


@pytest.fixture(scope="module")
def poisson():
    """A response under which models hold, and clusters."""
    rng = np.random.default_rng(0)
    y = rng.poisson(np.exp(0.5 + 0.4 * DATA["x"])).astype(float)
    return y, rng.integers(0, 15, 60)


SHAPES = {
    "shared design": (X, 2, {}),
    "own designs": (np.stack([X] * 2), 2, {}),
    "ragged": (np.concatenate([X, X]), None, {"groups": np.repeat([0, 1], 60)}),
}


@pytest.mark.parametrize(
    ("shape", "clusters"), [("shared design", False), ("shared design", True), ("own designs", False), ("ragged", True)]
)
def test_every_shape(poisson, shape, clusters):
    """Errors are near those of the sandwich, and each fit's draws are its own."""
    y, codes = poisson
    A, g, more = SHAPES[shape]
    responses = np.stack([y] * 2) if g else np.concatenate([y, y])
    fits = jaxglm.fit(A, responses, "poisson", **more)
    labels = (codes if g else np.concatenate([codes, codes])) if clusters else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StatusWarning)
        made = fits.bootstrap(999, labels, seed=3, intervals="bca")
    expected = fits.robust("cluster" if clusters else "HC1", labels).standard_errors
    np.testing.assert_allclose(made.standard_errors, expected, rtol=0.25)
    assert (made.standard_errors[0] != made.standard_errors[1]).all()
    assert np.abs(bootstrap.acceleration(fits, None)).max() < 0.2
    low, high = np.moveaxis(made.conf_int(), -1, 0)
    assert ((low < fits.coefficients) & (fits.coefficients < high)).all()


def test_scan_and_aliased_terms(poisson):
    y, _ = poisson
    fits = jaxglm.scan(X, y, np.column_stack([DATA["offset"], DATA["x"] + DATA["z"]]), "poisson")
    made = fits.bootstrap(199, seed=0)
    assert np.isfinite(made.covariance[0]).all()
    assert np.isnan(made.covariance[1, 3]).all()
    plain = jaxglm.fit(X, np.stack([y, y]), "poisson").bootstrap(199, seed=0)
    np.testing.assert_allclose(made.covariance[1, :3, :3], plain.covariance[1], rtol=1e-7)
    np.testing.assert_allclose(made.conf_int()[1, :3], plain.conf_int()[1], rtol=1e-7)


def test_rows_that_frequencies_stand_for_are_drawn(poisson):
    y, _ = poisson
    frequency = DATA["frequency"].astype(float)
    counted = jaxglm.fit(X, y, "poisson", weights=jaxglm.Weights(frequency, "frequency"))
    index = np.repeat(np.arange(60), DATA["frequency"])
    repeated = jaxglm.fit(X[index], y[index], "poisson")
    made, other = (fit.bootstrap(1999, seed=1, intervals="bca") for fit in (counted, repeated))
    np.testing.assert_allclose(made.standard_errors, other.standard_errors, rtol=0.06)
    np.testing.assert_allclose(made.bootstrapped.acceleration, other.bootstrapped.acceleration, rtol=1e-8)


def test_clusters_move_estimates_together(poisson):
    y, codes = poisson
    fit = jaxglm.fit(X, y, "poisson")
    scores = X * (fit.working_weights * fit.residuals("working"))[:, None]
    sums = np.stack([scores[codes == code].sum(axis=0) for code in range(15)])
    moves = sums @ fit.covariance
    expected = (moves**3).sum(axis=0) / (6.0 * (moves**2).sum(axis=0) ** 1.5)
    np.testing.assert_allclose(bootstrap.acceleration(fit, [codes])[0], expected, rtol=1e-7)


def test_everything_downstream_uses_it(poisson, tmp_path):
    y, codes = poisson
    table = pd.DataFrame({"y": y, "x": DATA["x"], "group": np.arange(60) % 2, "shop": codes})
    fit = jaxglm.glm("y ~ x", table, "poisson", by="group")
    made = fit.bootstrap(199, clusters="shop", seed=0, intervals="bca")
    np.testing.assert_allclose(made.tidy()["conf_low"], made.conf_int()[..., 0].ravel())
    np.testing.assert_array_equal(made[1].conf_int(), made.conf_int()[1])
    assert "Covariance: bootstrap, statistics z" in made.summary()
    assert made.bootstrapped.coefficients.shape == (2, 199, 2)
    made.save(tmp_path / "fit")
    np.testing.assert_array_equal(jaxglm.load(tmp_path / "fit").conf_int(0.9), made.conf_int(0.9))
    normal = fit.bootstrap(199, clusters="shop", seed=0, intervals="normal")
    half = 1.959963984540054 * normal.standard_errors
    np.testing.assert_allclose(normal.conf_int()[..., 1], fit.coefficients + half, rtol=1e-12)
    assert made.robust("HC0").bootstrapped is None


def test_bad_groups_change_nothing_for_the_others():
    rng = np.random.default_rng(1)
    ids, y = np.repeat(np.arange(5), 40), rng.integers(0, 2, 200).astype(float)
    A = np.column_stack([np.ones(200), rng.normal(size=200)])
    good = jaxglm.fit(A, y, "binomial", groups=ids)
    y[ids == 1] = A[ids == 1, 1] > 0
    y[ids == 2] = np.nan
    with pytest.warns(StatusWarning):
        fit = jaxglm.fit(A, y, "binomial", groups=ids)
    clusters = np.where(ids == 3, 0, np.arange(200) % 20)
    assert fit.status.tolist() == [Status.CONVERGED, Status.SEPARATED, Status.INVALID_DATA, 0, 0]
    for labels, left in ((None, [0, 3, 4]), (clusters, [0, 4])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StatusWarning)
            made, other = fit.bootstrap(99, labels, seed=0), good.bootstrap(99, labels, seed=0)
        np.testing.assert_array_equal(made.covariance[left], other.covariance[left])
        np.testing.assert_array_equal(made.conf_int()[left], other.conf_int()[left])
        bad = np.setdiff1d(np.arange(5), left)
        assert np.isnan(made.covariance[bad]).all()
        assert np.isnan(made.conf_int()[bad]).all()


def test_replicates_without_estimates_are_left_out_and_counted():
    """Two failures among twelve: some draws have none."""
    y = np.array([0, 0] + [1] * 10, float)
    fit = jaxglm.fit(np.ones((12, 1)), y, "binomial")
    with pytest.warns(
        StatusWarning, match=r"in 1 of 1 fits replicates without finite estimates were left out, at most \d+ of 199"
    ):
        made = fit.bootstrap(199, seed=0)
    lost = np.isnan(made.bootstrapped.coefficients[0, :, 0])
    assert 5 < lost.sum() < 60
    np.testing.assert_allclose(made.covariance, np.var(made.bootstrapped.coefficients[0, ~lost, 0], ddof=1), rtol=1e-12)


def test_bad_requests(poisson):
    y, codes = poisson
    fit = jaxglm.fit(X, y, "poisson")
    with pytest.raises(ValueError, match=r"38 replicates are too few for bca intervals at level 0.95, which need at least 39"):
        fit.bootstrap(38, intervals="bca")
    with pytest.raises(ValueError, match=r"level 0.999, which need at least 1999"):
        fit.bootstrap(39, intervals="bca", seed=0).conf_int(0.999)
    with pytest.raises(ValueError, match=r"no 'percentil' intervals. Did you mean 'percentile'"):
        fit.bootstrap(99, intervals="percentil")
    with pytest.raises(ValueError, match="replicates must be a whole number of at least 2"):
        fit.bootstrap(1.5)
    with pytest.raises(ValueError, match="clusters of one kind"):
        fit.bootstrap(99, (codes, codes))
    with pytest.raises(ValueError, match="one cluster"):
        fit.bootstrap(99, codes * 0)
    with pytest.raises(ValueError, match=r"clusters must have shape \(60,\)"):
        fit.bootstrap(99, codes[1:])
