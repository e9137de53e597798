"""`solve` under JAX's transformations: jit, vmap, and derivatives of any order, by the implicit function theorem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BY_NAME, simulate

from jaxglm import families, irls, links
from jaxglm.irls import IRLS
from jaxglm.penalty import Ridge
from jaxglm.status import Status

OPTIONS = IRLS(factorization="cholesky")
OUTPUTS = ("coefficients", "covariance", "deviance", "null_deviance", "log_likelihood", "dispersion")
N = 14

# name of the case, how the family is made from its shape parameter, that parameter, and the ridge
DIFFERENTIATED = {
    "negative_binomial-log": (families.NegativeBinomial, 1.7, 0.4),
    "tweedie-log": (families.Tweedie, 1.4, None),
}


def arguments(name, with_offset):
    """N rows of a case, as a dictionary of arrays that can be differentiated."""
    _, shape, ridge = DIFFERENTIATED.get(name, (None, 0.0, None))
    data = simulate(BY_NAME[name])
    rows = {"X": data.X[:N], "y": data.y[:N], "weights": data.weights[:N], "shape": np.asarray(shape)}
    rows["y"] = rows["y"] + 0.5  # so that responses can be moved both ways
    if with_offset:
        rows["offset"] = data.offset[:N]
    return rows if ridge is None else {**rows, "ridge": np.full(3, ridge)}


def solution(name, options=OPTIONS):
    make = DIFFERENTIATED[name][0] if name in DIFFERENTIATED else lambda shape: BY_NAME[name].family

    def solve(a):
        penalty = Ridge(a["ridge"]) if "ridge" in a else None
        family = make(a["shape"])
        offset = a.get("offset")
        return irls.solve(a["X"], a["y"], family, weights=a["weights"], offset=offset, penalty=penalty, options=options)

    return solve


def outputs(found):
    return {name: getattr(found, name) for name in OUTPUTS}


def directions(a, seed=0):
    """One random direction for each argument; the constant column stays constant, so that the null model stays the same."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, value in a.items():
        way = rng.normal(size=value.shape) if name != "X" else np.c_[np.zeros(N), rng.normal(size=(N, 2))]
        size = 0.02 if name == "y" else 1.0
        found[name] = {other: size * way if other == name else np.zeros_like(a[other]) for other in a}
    return found


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf, jnp.float64) for leaf in leaves]), *trees)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_derivatives_by_every_argument(x64, name):
    a = arguments(name, with_offset=name == "negative_binomial-log")
    ways = directions(a)
    solve = solution(name)
    tangents = stacked(list(ways.values()))
    forward = jax.jit(jax.vmap(lambda t: jax.jvp(lambda v: outputs(solve(v)), (jax.tree.map(jnp.asarray, a),), (t,))[1]))
    found = forward(tangents)
    h = 1e-3
    points = [jax.tree.map(lambda v, d, k=k: v + k * h * d, a, way) for way in ways.values() for k in (-2, -1, 1, 2)]
    values = jax.jit(jax.vmap(lambda v: solve(v)))(stacked(points))
    assert (np.asarray(values.status) == Status.CONVERGED).all()
    for output in OUTPUTS:
        value = np.asarray(getattr(values, output))
        value = value.reshape(len(ways), 4, *value.shape[1:])
        difference = (8 * (value[:, 2] - value[:, 1]) - (value[:, 3] - value[:, 0])) / (12 * h)
        if output == "log_likelihood" and BY_NAME[name].family.log_likelihood is None:
            assert np.isnan(value).all()
            continue
        for i, argument in enumerate(ways):
            size = np.abs(difference[i]).max()
            np.testing.assert_allclose(
                found[output][i], difference[i], rtol=1e-5, atol=1e-6 * size + 1e-9, err_msg=f"{output} by {argument}"
            )


def poisson(y, weights=None, X=None):
    X = jnp.asarray(simulate(BY_NAME["poisson-log"]).X[:N, :2]) if X is None else X
    return irls.solve(X, y, families.Poisson("sqrt"), weights=jnp.ones(N) if weights is None else weights, options=OPTIONS)


def counts():
    return jnp.asarray(simulate(BY_NAME["poisson-log"]).y[:N] + 1.0)


def test_forward_and_reverse_agree(x64):
    y = counts()

    def both(v):
        found = poisson(v)
        return found.coefficients, found.deviance, found.log_likelihood, found.covariance

    forward, backward = jax.jit(lambda v: (jax.jacfwd(both)(v), jax.jacrev(both)(v)))(y)
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13)


def test_vmap_of_grad_is_grad_of_vmap(x64):
    batch = counts() * jnp.asarray([[1.0], [1.5], [2.0]])

    def objective(y):
        found = poisson(y)
        return found.deviance + jnp.sum(found.coefficients**2)

    one = jax.jit(jax.vmap(jax.grad(objective)))(batch)
    other = jax.jit(jax.grad(lambda ys: jnp.sum(jax.vmap(objective)(ys))))(batch)
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_second_derivatives(x64):
    y, way = counts(), jnp.linspace(-0.5, 1.0, N)

    def along(t):
        found = poisson(y + t * way)
        return jnp.concatenate([found.coefficients, found.deviance[None]])

    first = jax.jacfwd(along)
    derivatives = jax.jit(lambda t: (first(t), jax.jacfwd(first)(t), jax.jacfwd(jax.jacrev(along))(t)))
    h = 1e-4
    difference = (np.asarray(derivatives(h)[0]) - np.asarray(derivatives(-h)[0])) / (2 * h)
    for second in derivatives(0.0)[1:]:
        np.testing.assert_allclose(second, difference, rtol=1e-6)


def test_vmap_of_vmap_is_a_loop(x64):
    y = counts()
    weights = jnp.stack([jnp.ones(N), jnp.linspace(0.5, 2.0, N).at[3].set(0.0)])
    batch = jnp.stack([y, y + 1.0, y[::-1]])
    grid = jax.jit(jax.vmap(jax.vmap(poisson, (None, 0)), (0, None)))(batch, weights)
    assert grid.coefficients.shape == (3, 2, 2)
    alone = jax.jit(poisson)
    for i in range(3):
        for j in range(2):
            single = alone(batch[i], weights[j])
            np.testing.assert_allclose(grid.coefficients[i, j], single.coefficients, rtol=1e-9)
            np.testing.assert_allclose(grid.covariance[i, j], single.covariance, rtol=1e-9)
            np.testing.assert_allclose(grid.deviance[i, j], single.deviance, rtol=1e-11)
            assert int(grid.n_iterations[i, j]) == int(single.n_iterations)


def test_a_bad_fit_changes_no_other(x64):
    y = counts()
    batch = jnp.stack([y, y * jnp.nan, jnp.where(jnp.arange(N) % 2 == 1, 0.0, y), y])
    weights = jnp.ones((4, N)).at[3].set(0.0)
    fits = jax.jit(jax.vmap(poisson))
    found, plain = fits(batch, weights), fits(jnp.stack([y] * 4), jnp.ones((4, N)))
    assert [int(s) for s in found.status[jnp.asarray([0, 1, 3])]] == [Status.CONVERGED, Status.INVALID_DATA, Status.NO_DATA]
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_parameters_map_over_fits(x64):
    data = simulate(BY_NAME["negative_binomial-log"])
    thetas = jnp.asarray([0.5, 2.0, jnp.inf])

    def solve(theta):
        return irls.solve(data.X[:N], data.y[:N], families.NegativeBinomial(theta), options=OPTIONS)

    found = jax.jit(jax.vmap(solve))(thetas)
    assert (np.asarray(found.status) == Status.CONVERGED).all()
    limit = irls.solve(data.X[:N], data.y[:N], families.Poisson(), options=OPTIONS)
    np.testing.assert_allclose(found.coefficients[2], limit.coefficients, rtol=1e-9)
    np.testing.assert_allclose(found.log_likelihood[2], limit.log_likelihood, rtol=1e-12)
    assert np.all(np.diff(found.deviance) > 0)


def test_a_second_call_does_not_trace_again(x64):
    traced = []

    def inverse(eta):
        traced.append(eta.shape)
        return jnp.exp(eta)

    family = families.Poisson(links.Link("counted", forward=jnp.log, inverse=inverse, means=links.POSITIVE, infinite_at=(0.0,)))
    data = simulate(BY_NAME["poisson-log"])
    irls.solve(data.X[:N], data.y[:N], family, options=OPTIONS)
    first = len(traced)
    assert 0 < first < 60
    other = irls.solve(data.X[N : 2 * N], data.y[N : 2 * N], family, options=OPTIONS)
    assert len(traced) == first
    assert int(other.status) == Status.CONVERGED
    irls.solve(data.X[: N + 1], data.y[: N + 1], family, options=OPTIONS)
    assert len(traced) > first


def test_absent_rows_do_not_poison_derivatives(x64):
    a = arguments("gamma-log", with_offset=True)
    absent = np.arange(N) >= N - 4
    a["weights"] = np.where(absent, 0.0, a["weights"])
    clean = jax.tree.map(jnp.asarray, a)
    a["X"], a["y"], a["offset"] = a["X"].copy(), a["y"].copy(), a["offset"].copy()
    a["X"][N - 1], a["y"][N - 2], a["offset"][N - 3], a["y"][N - 4] = np.nan, np.inf, np.nan, -1.0
    solve = solution("gamma-log")

    def objective(v):
        found = solve(v)
        return jnp.sum(found.coefficients) + found.deviance + found.log_likelihood + jnp.sum(found.covariance)

    gradient = jax.jit(jax.grad(objective))
    found, expected = gradient(jax.tree.map(jnp.asarray, a)), gradient(clean)
    for name in ("X", "y", "offset", "weights"):
        value = np.asarray(found[name])
        assert np.isfinite(value).all(), name
        np.testing.assert_allclose(value[~absent], np.asarray(expected[name])[~absent], rtol=1e-9)
        if name != "weights":
            assert (value[absent] == 0).all()


def test_aliased_coefficients_leave_the_others_differentiable(x64):
    data = simulate(BY_NAME["poisson-log"])
    X = np.column_stack([data.X[:N, :2], 2.0 * data.X[:N, 1] - 1.0])

    def kept(y, design):
        found = irls.solve(design, y, families.Poisson("sqrt"), options=IRLS(factorization="orthogonal"))
        return found.coefficients[:2]

    full = jax.jit(jax.jacfwd(lambda y: kept(y, X)))(counts())
    expected = jax.jit(jax.jacfwd(lambda y: poisson(y).coefficients))(counts())
    np.testing.assert_allclose(full, expected, rtol=1e-9)


@pytest.mark.parametrize("link", ["cloglog", "loglog"])
def test_derivatives_of_binomial_fits_with_distant_rows(link):
    """A row far out, where its mean is as good as certain and agrees with its response, has no weight in a derivative."""
    data = simulate(BY_NAME["poisson-log"])
    X = np.column_stack([np.ones(N), data.X[:N, 1]]).astype(np.float32)
    X[0, 1], X[1, 1] = 40.0, -40.0
    y = np.asarray([1.0, 0.0] + [0.0, 1.0] * (N // 2 - 1), np.float32)
    y[4:8] = X[4:8, 1] > 0

    def slope(v):
        return irls.solve(X, v, families.Binomial(link), options=OPTIONS).coefficients[1]

    value, gradient = jax.jit(jax.value_and_grad(slope))(jnp.asarray(y))
    assert np.isfinite(float(value))
    assert np.isfinite(gradient).all(), np.asarray(gradient)


def test_fits_spread_over_devices(x64):
    """Under shard_map every device fits its own share; here there is one."""
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((len(jax.devices()),), ("fits",), axis_types=auto)
    spec = jax.sharding.PartitionSpec("fits")
    Y = jnp.stack([jnp.roll(counts(), k) for k in range(len(jax.devices()) * 2)])

    def share(responses):
        return jax.vmap(lambda y: poisson(y).coefficients)(responses)

    spread = jax.shard_map(share, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    np.testing.assert_allclose(jax.jit(spread)(Y), jax.jit(share)(Y), rtol=1e-12)
