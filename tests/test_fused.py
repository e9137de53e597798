"""Fused kernels: their special functions, programs and tiles everywhere; kernels in interpret mode, where JAX has it.

Interpreting is exact but slow to start, so every kernel here is small and few are made; each is held against `solve_many`.
"""

import logging
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from cases import CASES
from interpreting import interpreted, interpreter, problem, x64_everywhere

from jaxglm import IRLS, Status, families, irls
from jaxglm.irls import fused
from jaxglm.irls.fused import Given, guard, special
from jaxglm.irls.fused.programs import trace
from jaxglm.irls.fused.recipes import recipe
from jaxglm.irls.fused.tiles import LANES
from jaxglm.irls.working import working
from jaxglm.rows import Rows

__all__ = ["x64_everywhere"]  # a fixture

# Special functions

_RNG = np.random.default_rng(0)
_SPREAD = np.concatenate([10.0 ** _RNG.uniform(-12, 2.5, 300), -(10.0 ** _RNG.uniform(-12, 2.5, 300))])
_POSITIVE = 10.0 ** _RNG.uniform(-6, 6, 300)
FUNCTIONS = {
    "expm1": (special.expm1, np.expm1, _SPREAD),
    "log1p": (special.log1p, np.log1p, np.concatenate([_POSITIVE, -(10.0 ** _RNG.uniform(-12, -0.01, 300))])),
    "erfc": (special.erfc, np.vectorize(math.erfc), _RNG.uniform(-6.0, 26.0, 600)),
    "erf": (special.erf, np.vectorize(math.erf), _SPREAD),
    "logistic": (special.logistic, scipy.special.expit, _SPREAD),
    "arctan": (lambda x: special.arctan2(x, jnp.ones_like(x)), np.arctan, _SPREAD),
    "arctan2": (lambda x: special.arctan2(jnp.ones_like(x), x), lambda x: np.arctan2(1.0, x), _SPREAD),
    "square root": (lambda x: special.power(x, jnp.full_like(x, 0.5)), np.sqrt, _POSITIVE),
    "power": (lambda x: special.power(x, jnp.full_like(x, -1.5)), lambda x: x**-1.5, _POSITIVE),
    "cube": (lambda x: special.integer_power(x, 3), lambda x: x**3.0, _SPREAD),
    "inverse square": (lambda x: special.integer_power(x, -2), lambda x: x**-2.0, _SPREAD),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rewritten_functions_keep_all_digits(name):
    rewritten, exact, x = FUNCTIONS[name]
    np.testing.assert_allclose(rewritten(jnp.asarray(x)), exact(x), rtol=1e-14, atol=0)
    single = x[np.abs(x) < 5.0].astype(np.float32)
    found = np.asarray(rewritten(jnp.asarray(single)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact(single.astype(np.float64)), rtol=1e-5)


def test_rewritten_functions_at_the_ends():
    inf, nan = np.inf, np.nan
    np.testing.assert_array_equal(special.log1p(jnp.array([-1.0, inf, -2.0, nan, 0.0])), [-inf, inf, nan, nan, 0.0])
    np.testing.assert_array_equal(special.expm1(jnp.array([inf, -inf, nan])), [inf, -1.0, nan])
    np.testing.assert_array_equal(special.erfc(jnp.array([inf, -inf, nan, 0.0])), [0.0, 2.0, nan, 1.0])
    np.testing.assert_array_equal(special.sign(jnp.array([-3.0, 0.0, 2.0, nan])), [-1.0, 0.0, 1.0, nan])
    zero_to = special.power(jnp.zeros(3), jnp.array([0.0, 2.0, -1.0]))
    np.testing.assert_array_equal(zero_to, [1.0, 0.0, inf])
    angles = special.arctan2(jnp.array([0.0, 0.0, 1.0, -1.0, 1.0]), jnp.array([1.0, -1.0, -1.0, -1.0, 0.0]))
    np.testing.assert_allclose(angles, [0.0, np.pi, 0.75 * np.pi, -0.75 * np.pi, 0.5 * np.pi], rtol=1e-15)


# Programs


def test_a_program_computes_what_is_needed_once():
    def function(x, y):
        unused = jnp.sin(x) + y
        once, again = jnp.exp(x * y), jnp.exp(x * y)
        constant = jnp.log(jnp.asarray(2.0)) * jnp.ones_like(x)
        return jnp.where(x > 0, once + again, jnp.where(constant > 0, constant, unused))

    x, y = jnp.linspace(-1.0, 1.0, 8), jnp.linspace(2.0, 3.0, 8)
    program = trace(function, x, y)
    np.testing.assert_allclose(program(x, y), function(x, y), rtol=1e-15)
    names = [equation.primitive.name for equation in program.equations]
    assert names.count("exp") == 1
    assert not {"sin", "log"} & set(names)


@pytest.mark.parametrize("name", ["binomial-cloglog", "binomial-cauchit", "tweedie-log", "own-softplus", "gamma-inverse"])
def test_a_family_as_a_program_is_the_same_family(name):
    case = next(case for case in CASES if case.name == name)
    made = recipe(jax.tree.structure(case.family), IRLS(), Given(3, np.dtype(np.float64)))
    rng = np.random.default_rng(1)
    eta = jnp.asarray(case.coefficients[0] + 0.2 * rng.uniform(-1.0, 1.0, LANES))
    y = jnp.asarray(rng.choice([0.25, 1.0], LANES))
    own = [jnp.full(LANES, leaf) for leaf in jax.tree.leaves(case.family)]
    found = made.look(own, y, y, eta, jnp.full(LANES, 0.01))
    row = working(case.family, Rows(None, y, jnp.ones(LANES)), eta, jnp.asarray(0.01) if made.observed else None)
    for ours, theirs in zip(found, (row.weights, row.scores, row.loss), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


# Tiles


@pytest.mark.parametrize("parts", [1, 4])
def test_tiles_of_one_shape_hold_every_row_once(parts):
    g, n, p = 70, 6, 2
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(g, n, p)), rng.normal(size=(g, n))
    weights = rng.integers(0, 3, (g, n)).astype(float)
    X[weights == 0] = np.nan
    tiles = fused.pack(jnp.asarray(X), jnp.asarray(y), jnp.asarray(weights), jnp.asarray(y), parts=parts)
    tiles = jax.tree.map(np.asarray, tiles)
    width = LANES // parts
    assert tiles.X.shape == (-(-g // width) * -(-n // parts), p, LANES)
    for fit in (0, 1, 31, g - 1):
        tile, lane = divmod(int(tiles.place[fit]), LANES)
        for row in range(n):
            at = int(tiles.first[tile]) + row // parts, lane + row % parts * width
            assert int(tiles.count[tile, at[1]]) > row // parts
            assert tiles.weights[at] == weights[fit, row]
            expected = (X[fit, row], y[fit, row]) if weights[fit, row] else (np.zeros(p), 0.5)
            np.testing.assert_array_equal(tiles.X[at[0], :, at[1]], expected[0])
            assert tiles.y[at] == expected[1]
    assert tiles.weights.sum() == weights.sum()
    assert tiles.count.sum() == g * n


def test_tiles_of_ragged_rows_hold_every_row_once():
    rng = np.random.default_rng(3)
    sizes = rng.integers(0, 30, 150)
    order = rng.permutation(sizes.sum())
    X, y = rng.normal(size=(len(order), 2)), np.arange(len(order)) + 1.0
    plan = fused.plan(np.cumsum(sizes) - sizes, sizes, parts=2)
    tiles = fused.pack_rows(plan, jnp.asarray(X), jnp.asarray(y), order=jnp.asarray(order))
    tiles = jax.tree.map(np.asarray, tiles)
    assert int(tiles.count.sum()) == sizes.sum()
    for fit in (0, 7, 149):
        tile, lane = divmod(int(tiles.place[fit]), LANES)
        assert int(tiles.fit[tile, lane]) == fit
        rows = order[np.cumsum(sizes)[fit] - sizes[fit] :][: sizes[fit]]
        for at, row in enumerate(rows):
            place = int(tiles.first[tile]) + at // 2, lane + at % 2 * 64
            assert tiles.y[place] == y[row]
            np.testing.assert_array_equal(tiles.X[place[0], :, place[1]], X[row])
    assert len(tiles.X) == plan.rows >= int(tiles.first[-1])
    assert np.count_nonzero(tiles.X[:, 0]) == sizes.sum()


def test_few_shapes_and_enough_lanes():
    assert [fused.tiles.rounded(n) for n in (1, 7, 8, 9, 100, 1000)] == [1, 7, 8, 10, 112, 1024]
    assert [fused.parts_for(g, 200) for g in (100_000, 10_000, 1000, 1)] == [1, 8, 16, 16]
    assert fused.parts_for(1, 10) == 1


# Kernels


def run(tiles, family, options=IRLS()):  # noqa: B008
    with interpreter()():
        fits = jax.jit(lambda tiles: fused.solve(tiles, family, options))(tiles)
    return np.asarray(fits.coefficients), np.asarray(fits.n_iterations), np.asarray(fits.decided)


def assert_same(fits, reference, plain=True):
    """What is decided agrees with the reference, in iterations too, and what is plain is decided, but for a few."""
    coefficients, n_iterations, decided = fits
    converged = np.asarray(reference.status) == Status.CONVERGED
    assert not (decided & ~(converged & plain)).any()
    assert np.count_nonzero(decided) >= 0.97 * np.count_nonzero(converged & plain)
    np.testing.assert_allclose(coefficients[decided], reference.coefficients[decided], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(n_iterations[decided], reference.n_iterations[decided])


def general(X, y, family, **given):
    """The general path, compiled as a whole."""
    options = IRLS(factorization="cholesky")
    return jax.jit(lambda X, y, given: irls.solve_many(X, y, family, options=options, **given))(X, y, given)


@interpreted
def test_what_is_not_plain_is_left_undecided_and_harms_nobody():
    family = families.Binomial()
    X, eta, rng = problem(0, g=130, n=20, p=3, noise=0.5)
    y = (rng.random(eta.shape) < scipy.special.expit(eta)).astype(float)
    plain = np.ones(len(y), bool)
    y[0] = X[0, :, 1] > 0.0  # separated
    y[1] = 1.0  # separated by the constant
    y[2, X[2, :, 1] > 0.3] = 1.0  # some rows are
    X[2, :, 1] = X[2, :, 1] > 0.3
    X[3, :, 2] = 2.0 * X[3, :, 0]  # dependent columns
    X[4, :, 2] = X[4, :, 1] * (1.0 + 1e-7 * rng.normal(size=X.shape[1]))  # nearly so
    y[5, 3] = 2.0  # not a proportion
    y[6, 3] = np.nan
    X[7, 3, 1] = np.inf
    X[8, 3, 1] = np.nan
    plain[:9] = False
    fits = run(fused.pack(jnp.asarray(X), jnp.asarray(y)), family)
    assert_same(fits, general(X, y, family), plain)


@interpreted
def test_ragged_poisson_with_offset_in_shared_lanes():
    family, rng = families.Poisson(), np.random.default_rng(4)
    sizes = rng.integers(6, 18, 60)
    order, starts = rng.permutation(sizes.sum()), np.cumsum(sizes) - sizes
    X = np.column_stack([np.ones(len(order)), rng.uniform(-1.0, 1.0, len(order))])
    offset = rng.uniform(-1.0, 1.0, len(order))
    y = rng.poisson(np.exp(0.5 + 0.4 * X[:, 1] + offset)).astype(float)
    plan = fused.plan(starts, sizes, parts=2)
    X_, y_, offset_, order_ = (jnp.asarray(value) for value in (X, y, offset, order))
    fits = run(fused.pack_rows(plan, X_, y_, offset=offset_, order=order_), family)
    inside = np.arange(sizes.max()) < sizes[:, None]
    rows = order[np.where(inside, starts[:, None] + np.arange(sizes.max()), 0)]
    assert_same(fits, general(X[rows], y[rows], family, weights=inside.astype(float), offset=offset[rows]))


THETA = np.exp(np.random.default_rng(5).normal(size=(100, 1)))


def _probit(y, eta):
    phi, low, high = np.exp(-0.5 * eta**2) / np.sqrt(2 * np.pi), scipy.special.ndtr(eta), scipy.special.ndtr(-eta)
    return phi**2 / (low * high), (y - low) * phi / (low * high)


def _negative_binomial(y, eta):
    mu = np.exp(eta)
    return mu / (1.0 + mu / THETA), (y - mu) / (1.0 + mu / THETA)


# A family, how to draw responses, the Fisher weights and scores of a row, and whether there are prior weights.
OTHERS = {
    "gaussian": (
        families.Gaussian(),
        lambda eta, rng: eta + rng.normal(size=eta.shape),
        lambda y, eta: (np.ones_like(eta), y - eta),
        False,
    ),
    "gamma-log": (
        families.Gamma("log"),
        lambda eta, rng: rng.gamma(3.0, np.exp(eta) / 3.0),
        lambda y, eta: (np.ones_like(eta), y / np.exp(eta) - 1.0),
        True,
    ),
    "negative binomial, each fit with its theta": (
        families.NegativeBinomial(THETA[:, 0]),
        lambda eta, rng: rng.poisson(np.exp(eta) * rng.gamma(2.0, 0.5, eta.shape)).astype(float),
        _negative_binomial,
        True,
    ),
    "probit": (
        families.Binomial("probit"),
        lambda eta, rng: (eta + rng.normal(size=eta.shape) > 0).astype(float),
        _probit,
        False,
    ),
}


@interpreted
@pytest.mark.parametrize("name", OTHERS)
def test_other_families_end_at_their_optimum(name):
    family, draw, rows, weighted = OTHERS[name]
    X, eta, rng = problem(8)
    y = draw(eta, rng)
    prior = rng.integers(0, 3, y.shape).astype(float) if weighted else np.ones(y.shape)
    try:
        tiles = fused.pack(jnp.asarray(X), jnp.asarray(y), jnp.asarray(prior) if weighted else None)
        coefficients, _, decided = run(tiles, family)
    except ValueError as error:
        pytest.skip(f"in JAX {jax.__version__}: {error}")
    weights, scores = rows(y, np.einsum("gnp,gp->gn", X, coefficients))
    information = np.einsum("gni,gn,gnj->gij", X, prior * weights, X)
    rest = np.linalg.solve(information[decided], np.einsum("gni,gn->gi", X, prior * scores)[decided][..., None])
    assert decided.mean() > 0.9
    assert np.abs(rest).max() < 1e-9


# Whether there are kernels


class Device(NamedTuple):
    """As much of a device as is asked about."""

    platform: str
    compute_capability: str | None


@pytest.mark.parametrize(
    ("given", "on", "options", "why"),
    [
        (Given(3, np.float64), Device("cpu", None), IRLS(), "needs a GPU"),
        (Given(3, np.float64), Device("gpu", "8.0"), IRLS(), "compute capability 9.0, not 8.0"),
        (Given(3, np.float64), Device("gpu", "gfx942"), IRLS(), "compute capability 9.0, not gfx942"),
        (Given(11, np.float64), Device("gpu", "9.0"), IRLS(), ""),
        (Given(3, np.float16), Device("gpu", "10.0"), IRLS(), ""),
        (Given(3, np.float64), Device("gpu", "9.0"), IRLS(factorization="orthogonal"), ""),
        (Given(3, np.float64), Device("gpu", "9.0"), IRLS(), ""),
    ],
)
def test_there_is_a_reason_where_there_are_no_kernels(caplog, given, on, options, why):
    with caplog.at_level(logging.DEBUG, logger="jaxglm"):
        reason = fused.available(families.Poisson(), given, on, options)
    assert reason
    assert why in reason
    assert reason in caplog.text


def test_families_are_judged_by_their_primitives():
    if guard._unfit_compiler() is not None:
        pytest.skip(guard._unfit_compiler())

    def unfit(family):
        return guard._unfit_family(recipe(jax.tree.structure(family), IRLS(), Given(3, np.dtype(np.float64))))

    own = families.Family("own", link=families.Poisson().link, variance=lambda mu: jax.scipy.special.digamma(mu + 2.0),
                          unit_deviance=lambda y, mean: (y - mean.mu) ** 2)  # fmt: skip
    assert unfit(own) == "the compiler does not know digamma, polygamma"
    unfit_ones = {case.name: unfit(case.family) for case in CASES[::4]}
    assert {name: reason for name, reason in unfit_ones.items() if reason and "probit" not in name} == {}


@interpreted
def test_the_self_test_passes():
    with interpreter()():
        assert guard.self_test(jax.devices()[0], np.dtype(np.float32)) is None
