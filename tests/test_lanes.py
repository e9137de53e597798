"""Lanes of a CPU: the arithmetic, the translation, and fits of every layout, against the general path."""

import importlib.util
import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from through_lanes import through_lanes

import jaxglm
from jaxglm import IRLS, Ridge, Status, ends, families, fitting, irls, links
from jaxglm.family import Family
from jaxglm.irls import lanes
from jaxglm.irls.lanes.entries import Untranslatable
from jaxglm.irls.solution import nothing
from jaxglm.packing import Stacked

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed")

RNG = np.random.default_rng(11)
WIDE = RNG.normal(size=4000) * 10.0 ** RNG.uniform(-8.0, 2.0, 4000)
FIELDS = (
    "coefficients", "covariance", "deviance", "null_deviance", "log_likelihood", "dispersion", "rank", "n_obs", "status",
    "infinite", "aliased", "spans_constant",
)  # fmt: skip


def units(found, expected):
    """The largest error in units of the last place."""
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(found - expected) / (np.abs(expected) * np.finfo(found.dtype).eps)
    return np.max(np.where(found == expected, 0.0, error))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_exponential_and_logarithm(dtype):
    top, bottom = (709.78, -708.39) if dtype == np.float64 else (88.7, -87.3)
    x = np.concatenate([np.linspace(bottom, top, 50_001), RNG.normal(size=10_000)]).astype(dtype)
    precise = np.longdouble if dtype == np.float64 else np.float64
    assert units(through_lanes(jnp.exp, x), np.exp(x.astype(precise))) < 1.0
    y = np.concatenate([np.exp(np.linspace(bottom, top, 50_001)), 1.0 + 1e-3 * RNG.normal(size=10_000)]).astype(dtype)
    assert units(through_lanes(jnp.log, y), np.log(y.astype(precise))) < 1.0
    edges = np.array([0.0, np.inf, -np.inf, np.nan, 1000.0, -1000.0], dtype)
    np.testing.assert_array_equal(through_lanes(jnp.exp, edges), [1.0, np.inf, 0.0, np.nan, np.inf, 0.0])
    edges = np.array([0.0, -1.0, np.inf, np.nan, 1.0], dtype)
    np.testing.assert_array_equal(through_lanes(jnp.log, edges), [-np.inf, np.nan, np.inf, np.nan, 0.0])


@pytest.mark.parametrize(
    ("function", "reference", "x"),
    [
        (jnp.log1p, np.log1p, np.abs(WIDE)),
        (jnp.expm1, np.expm1, WIDE),
        (jax.lax.erf, special.erf, WIDE),
        (jnp.tanh, np.tanh, WIDE),
        (jnp.arctan, np.arctan, WIDE),
        (jax.nn.sigmoid, special.expit, WIDE),
        (jnp.tan, np.tan, np.clip(WIDE, -1.5, 1.5)),
        (jnp.floor, np.floor, WIDE),
        (jnp.sign, np.sign, WIDE),
        (jax.scipy.special.ndtri, special.ndtri, 1.0 / (1.0 + np.abs(WIDE))),
    ],
)
def test_other_functions(function, reference, x):
    np.testing.assert_allclose(through_lanes(function, x), reference(x), rtol=2e-15, atol=1e-300)


def test_comparisons_choices_and_loops_differ_by_lane():
    def collatz(x):
        def turn(state):
            n, count = state
            half = jnp.floor(n / 2.0)
            return jnp.where(n == 2.0 * half, half, 3.0 * n + 1.0), count + 1.0

        return jax.lax.while_loop(lambda state: state[0] > 1.0, turn, (x, jnp.zeros_like(x)))[1]

    def steps(n):
        count = 0
        while n > 1:
            n, count = (n // 2 if n % 2 == 0 else 3 * n + 1), count + 1
        return count

    x = np.arange(1.0, 60.0)
    np.testing.assert_array_equal(through_lanes(collatz, x), [steps(int(n)) for n in x])
    branch = through_lanes(lambda v: jax.lax.cond(v > 0.0, lambda: jnp.exp(v), lambda: v - 1.0), WIDE[:50])
    np.testing.assert_allclose(branch, np.where(WIDE[:50] > 0, np.exp(WIDE[:50]), WIDE[:50] - 1.0), rtol=1e-15)


def test_what_is_not_known_is_said():
    with pytest.raises(Untranslatable, match="digamma"):
        through_lanes(jax.lax.digamma, WIDE[:8])


def simulated(layout):
    """Arguments of `fit` or `scan`: separated, deficient and empty fits among good ones, weights of zero, an offset."""
    g, n = 21, 40
    X = np.concatenate([np.ones((g, n, 1)), RNG.normal(size=(g, n, 2))], axis=2)
    X[3, :, 2] = 2.0 * X[3, :, 1] - 1.0
    y = (RNG.uniform(size=(g, n)) < 0.5) * 1.0
    y[5] = X[5, :, 1] > 0.0
    weights = RNG.integers(0, 3, (g, n)) * 1.0
    weights[7] = 0.0
    offset = 0.3 * RNG.normal(size=(g, n))
    if layout == "own":
        return {"X": X, "y": y, "weights": weights, "offset": offset}
    if layout == "shared":
        return {"X": X[0], "y": y, "offset": offset[0]}
    if layout == "replicates":
        return {"X": X[0], "y": y[0], "weights": weights}
    keep = RNG.uniform(size=g * n) < 0.8
    ids = np.repeat(np.arange(g), n)[keep]
    order = RNG.permutation(len(ids))
    flat = {"X": X.reshape(-1, 3), "y": y.reshape(-1), "weights": weights.reshape(-1), "offset": offset.reshape(-1)}
    return {"groups": ids[order], **{name: values[keep][order] for name, values in flat.items()}}


def both(monkeypatch, call):
    """By lanes, and by the general path."""
    quick = call()
    monkeypatch.setattr(lanes, "available", lambda job, device: "not wanted")
    return quick.solution, call().solution


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian"])
@pytest.mark.parametrize("layout", ["own", "shared", "replicates", "ragged"])
def test_fits_are_those_of_the_general_path(monkeypatch, layout, family):
    given = simulated(layout)
    quick, general = both(monkeypatch, lambda: jaxglm.fit(family=family, **given))
    for name in FIELDS:
        found, expected = getattr(quick, name), getattr(general, name)
        sure = np.ones(np.shape(found), bool)
        if name == "coefficients":  # of an infinite term the number means nothing
            sure = general.infinite == 0
        np.testing.assert_allclose(found[sure], expected[sure], rtol=1e-9, atol=1e-11, err_msg=name)
    if family == "binomial" and layout in ("own", "ragged"):
        assert quick.status[5] == Status.SEPARATED
        assert quick.rank[3] == 2
        assert quick.status[7] == Status.NO_DATA


@pytest.mark.parametrize(
    "model",
    [
        families.Binomial("cauchit"),
        families.Binomial("cloglog"),
        families.Poisson("sqrt"),
        families.Gamma("log"),
        families.NegativeBinomial(theta=np.linspace(1.0, 5.0, 21)),
        families.Tweedie(power=1.5),
    ],
    ids=repr,
)
def test_families_and_links(monkeypatch, model):
    given = simulated("own")
    y = given["y"] if model.name == "binomial" else given["y"] + 0.5
    quick, general = both(monkeypatch, lambda: jaxglm.fit(given["X"][8:], y[8:], model.of(np.arange(8, 21))))
    for name in FIELDS:
        np.testing.assert_allclose(getattr(quick, name), getattr(general, name), rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
@pytest.mark.parametrize(("layout", "model", "kind"), [("own", "binomial", "mean"), ("ragged", "gamma", "median")])
def test_adjusted_scores(monkeypatch, layout, model, kind):
    """Of separated, deficient and empty fits too; and some with a coefficient that is held at zero, another one in each fit."""
    given = simulated(layout)
    given["y"] = given["y"] + 0.5 * (model == "gamma")
    family = families.Gamma("log") if model == "gamma" else model
    held = np.arange(3) == np.arange(21)[:, None] % 3

    def call():
        fit = jaxglm.fit(family=family, bias_reduction=kind, **given)
        return fit.solution if layout == "ragged" else fitting.fit(replace(fit.task, held=held))

    jobs, solve = [], lanes.solve
    monkeypatch.setattr(lanes, "solve", lambda job, *more: (jobs.append(job), solve(job, *more)))
    quick = call()
    assert {job.bias_reduction for job in jobs} == {kind}
    monkeypatch.setattr(lanes, "available", lambda job, device: "not wanted")
    general = call()
    for name in FIELDS:
        np.testing.assert_allclose(getattr(quick, name), getattr(general, name), rtol=1e-9, atol=1e-11, err_msg=name)
    if layout == "own":
        np.testing.assert_array_equal(np.diag(quick.coefficients[[12, 13, 14]]), 0.0)


@pytest.mark.parametrize("dtype", [np.int8, np.float32, np.float64])
def test_scans_read_features_as_they_are(monkeypatch, dtype):
    n, m = 60, 19
    X, y = np.column_stack([np.ones(n), RNG.normal(size=n)]), (RNG.uniform(size=n) < 0.5) * 1.0
    features = RNG.integers(0, 3, (n, m)).astype(dtype)
    features[RNG.uniform(size=(n, m)) < 0.1] = -9
    quick, general = both(monkeypatch, lambda: jaxglm.scan(X, y, features, family="binomial", missing="drop", missing_code=-9))
    for name in FIELDS:
        np.testing.assert_allclose(getattr(quick, name), getattr(general, name), rtol=1e-9, atol=1e-11, err_msg=name)


def test_penalty_start_and_single_precision(monkeypatch):
    given = simulated("own")
    some = {name: values[8:] for name, values in given.items()}
    strength = np.linspace(0.1, 2.0, 39).reshape(13, 3)
    quick, general = both(
        monkeypatch, lambda: jaxglm.fit(family="binomial", penalty=Ridge(strength), start=np.full(3, 0.1), **some)
    )
    for name in FIELDS:
        np.testing.assert_allclose(getattr(quick, name), getattr(general, name), rtol=1e-9, atol=1e-11, err_msg=name)
    single = jaxglm.fit(family="binomial", penalty=Ridge(strength), precision="float32", **some)
    np.testing.assert_allclose(single.coefficients, general.coefficients, rtol=1e-3, atol=1e-4)


def test_a_fit_does_not_depend_on_its_neighbours():
    given = simulated("own")
    with pytest.warns(jaxglm.StatusWarning):
        whole = jaxglm.fit(family="binomial", **given).solution
    some = np.array([12, 0, 9])
    alone = jaxglm.fit(family="binomial", **{name: values[some] for name, values in given.items()}).solution
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(alone, name), getattr(whole, name)[some], err_msg=name)


def test_one_kernel_serves_all_sizes():
    given = simulated("own")
    X, y = given["X"], given["y"]
    jaxglm.fit(X[8:], y[8:], "binomial")
    before = lanes.run._kernel.cache_info().misses
    for size in (30, 33, 40):
        jaxglm.fit(X[8:, :size], y[8:, :size], "binomial")
    assert lanes.run._kernel.cache_info().misses == before


def test_solve_many_takes_lanes_only_outside_of_programs(x64):
    given = simulated("own")
    X, y = jnp.asarray(given["X"][8:]), jnp.asarray(given["y"][8:])
    before = lanes.run._kernel.cache_info()
    eager = irls.solve_many(X, y, families.Binomial())
    after = lanes.run._kernel.cache_info()
    assert after.hits + after.misses > before.hits + before.misses
    traced = jax.jit(lambda X, y: irls.solve_many(X, y, families.Binomial()))(X, y)
    assert jax.tree.map(lambda leaf: leaf.dtype, eager) == jax.tree.map(lambda leaf: leaf.dtype, traced)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(eager, name), getattr(traced, name), rtol=1e-9, atol=1e-11, err_msg=name)


def job(model, p=3, options=IRLS(), penalty=None):  # noqa: B008
    rows = lanes.Rows(np.ones((2, 5, p)), np.ones((2, 5)), None, None, np.zeros(2, np.int64), np.full(2, 5))
    return lanes.Job(rows, model, penalty, None, options, np.dtype(np.float64))


def test_what_lanes_cannot_do_is_left_to_the_general_path():
    device = jax.devices("cpu")[0]
    strange = Family("strange", links.identity, variance=jnp.ones_like, unit_deviance=lambda y, mean: jax.lax.digamma(y))
    assert lanes.available(job(families.Binomial()), device) is None
    assert "digamma" in lanes.available(job(strange), device)
    assert "at most" in lanes.available(job(families.Poisson(), p=30), device)
    assert "plain pass" in lanes.available(job(families.Poisson(), options=IRLS(factorization="orthogonal")), device)
    assert "single coefficients" in lanes.available(job(families.Poisson(), penalty=np.ones((2, 3, 3))), device)


def test_empty_input():
    found = nothing(0, 3)
    rows = lanes.Rows(np.ones((0, 5, 3)), np.ones((0, 5)), None, None, np.zeros(0, np.int64), np.zeros(0, np.int64))
    lanes.solve(lanes.Job(rows, families.Binomial(), None, None, IRLS(), np.dtype(np.float64)), found, np.zeros(0, np.int64))
    assert found.coefficients.shape == (0, 3)


@pytest.mark.parametrize("lanes_run", [True, False])
@pytest.mark.parametrize("shape", ["own", "shared", "ragged", "one large"])
def test_columns_that_are_gone_are_read_as_zeros(shape, lanes_run, monkeypatch):
    """Whatever goes over the rows: a fit without them is the fit with zeros in their place."""
    from jaxglm import large

    if not lanes_run:
        monkeypatch.setattr(lanes, "available", lambda job, device: "not wanted")
    rng = np.random.default_rng(3)
    g, n, p = 9, 40, 4
    X = rng.standard_normal((g, n, p))
    X[..., 0] = 1.0
    X[2, :, 3] = X[2, :, 1]  # aliased, unless the other is gone
    y = (rng.random((g, n)) < 0.5) * 1.0
    y[4] = X[4, :, 2] > 0  # separated by a column that stays
    given = {
        "own": (X, y, {}),
        "shared": (X[0], y, {}),
        "ragged": (X.reshape(-1, p), y.reshape(-1), {"groups": rng.permutation(np.repeat(np.arange(g), n))}),
        "one large": (X.reshape(-1, p), y.reshape(-1), {}),
    }[shape]
    if shape == "one large":
        monkeypatch.setattr(large, "LEAST", 1000)
        monkeypatch.setattr(large, "cores", lambda: 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = jaxglm.fit(*given[:2], "binomial", **given[2]).task
    gone = np.array([False, True, False, False])
    zeros = np.where(gone, 0.0, task.source.X)
    wanted = fitting.fit(replace(task, source=replace(task.source, X=zeros)))
    found = fitting.fit(replace(task, source=replace(task.source, gone=gone)))
    for name in ("coefficients", "deviance", "status", "aliased", "infinite", "log_likelihood"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "family", [families.Binomial(), families.Binomial("cauchit"), families.Poisson(), families.Gaussian("log")], ids=repr
)
def test_rows_at_their_ends(request, monkeypatch, x64, family):
    """What a row of a separated fit is and adds, through lanes and by programs of XLA."""
    rng = np.random.default_rng(12)
    y = np.concatenate([rng.integers(0, 2, 30), [0.0, 1.0, -1.5 if family.name == "gaussian" else 0.5]])
    weights = rng.integers(1, 4, 33) * 1.0
    rows = Stacked(np.ones((33, 1)), y, weights, None, None, np.array([0, 12]), np.array([12, 21]))

    def all_of_them():
        side = ends.sides(family, rows)
        eta = np.where(side == 0, 0.3, np.copysign(np.inf, side))
        at_ends = ends.ends(family, rows, y != 0.5)
        likelihoods = ends.log_likelihoods(family, rows, np.arange(33) % 3 > 0, eta, np.array([0.5, 2.0]))
        return {"sides": side, "deviance": at_ends.deviance, "chi": at_ends.chi_square, "l": likelihoods}

    asked, ask = [], lanes.ask
    monkeypatch.setattr(lanes, "ask", lambda job, groups: asked.append(job) or ask(job, groups))
    quick = all_of_them()
    assert len(asked) == 3
    request.getfixturevalue("without_lanes")
    general = all_of_them()
    assert np.any(quick["sides"] != 0)
    for name, values in quick.items():
        np.testing.assert_allclose(values, general[name], rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
def test_kernels_of_both_careful_ways_are_made_side_by_side(monkeypatch):
    """Where some groups are separated and others deficient; where one way will do, there is nothing to make beside it."""
    rng = np.random.default_rng(4)
    X, y = rng.normal(size=(12, 40, 3)), (rng.random((12, 40)) < 0.5) * 1.0
    X[3, :, 0], X[7, :, 2] = 2.0 * y[3] - 1.0, X[7, :, 1]
    prepared, prepare = [], fitting._prepare_lanes
    monkeypatch.setattr(
        fitting, "_prepare_lanes", lambda task, groups, ways: prepared.append(ways) or prepare(task, groups, ways)
    )
    both = jaxglm.fit(X, y, "binomial")
    assert prepared == [("cholesky", "orthogonal")]
    alone = [jaxglm.fit(X[k], y[k], "binomial") for k in (3, 7)]
    assert len(prepared) == 1
    assert [int(status) for status in both.status[[3, 7]]] == [Status.SEPARATED, Status.CONVERGED]
    for k, one in zip((3, 7), alone, strict=True):
        np.testing.assert_allclose(both.coefficients[k], one.coefficients, rtol=1e-9, atol=1e-9)
        assert both.deviance[k] == pytest.approx(float(one.deviance), rel=1e-9, abs=1e-9)
