"""Penalties in every shape of a call, in bad company, and in corners: dependent and constant columns, more columns than
rows; ridge penalties that are matrices; and how one fit of a path is chosen."""

import jax
import numpy as np
import pytest
from test_penalties import conditions

import jaxglm
from jaxglm import ElasticNet, Ridge, Status, families, irls
from jaxglm.paths import Losses

pytestmark = pytest.mark.long

G, N, P, L = 4, 40, 5, 6
RNG = np.random.default_rng(8)
X = np.column_stack([np.ones(N), RNG.normal(size=(N, P - 1)) * [1.0, 3.0, 0.5, 1.0] + [0.0, 2.0, 0.0, 50.0]])
XS = np.stack([np.column_stack([np.ones(N), RNG.normal(size=(N, P - 1))]) for _ in range(G)])
Y = RNG.poisson(np.exp(0.8 + 0.5 * X[:, 1] + 0.2 * np.arange(G)[:, None])).astype(float)
W = RNG.integers(1, 5, (G, N)) / 2.0
OFFSET = RNG.uniform(-0.3, 0.3, (G, N))
LAMBDAS = [1.0, 0.3, 0.1, 0.03, 0.01, 0.001]


def path_of(X, y, lambdas=LAMBDAS, **keywords):
    """A Poisson path with an offset, so that most tests share one program."""
    keywords.setdefault("offset", np.zeros(y.shape))
    return jaxglm.regularization_path(X, y, "poisson", lambdas=lambdas, **keywords)


def one_of(values, k, axes):
    return values[k] if np.ndim(values) > axes else values


SHAPES = {
    "responses": (X, Y, {"offset": OFFSET}),
    "own designs": (XS, Y, {"offset": OFFSET, "weights": W}),
    "weights": (X, Y[0], {"weights": W, "offset": OFFSET[0]}),
}


@pytest.mark.parametrize(("design", "y", "keywords"), SHAPES.values(), ids=SHAPES)
def test_each_path_of_many_is_a_path_of_its_own(design, y, keywords):
    paths = path_of(design, y, mixing=0.8, **keywords)
    assert (len(paths), paths.coefficients.shape, paths.lambdas.shape) == (G, (G, L, P), (G, L))
    for k in range(G):
        single = {name: one_of(values, k, 1) for name, values in keywords.items()}
        one = path_of(one_of(design, k, 2), one_of(y, k, 1), mixing=0.8, **single)
        for name in ("coefficients", "deviance", "null_deviance", "df", "log_likelihood", "aic", "bic", "explained"):
            np.testing.assert_allclose(getattr(paths, name)[k], getattr(one, name), rtol=1e-10, atol=1e-11, err_msg=name)
        assert conditions(one, one_of(design, k, 2), one_of(y, k, 1), one.family, mixing=0.8, **single) < 1e-8


# What stands beside two sound groups: name, how it is made from their kind, and what becomes of it.
COMPANY = {
    "separated by x": (lambda X, y: (X, np.where(X[:, 1] > 0.3, y + 1.0, 0.0)), Status.CONVERGED),
    "all zero": (lambda X, y: (X, 0.0 * y), Status.SEPARATED),
    "invalid": (lambda X, y: (X, np.where(np.arange(len(y)) == 3, -1.0, y)), Status.INVALID_DATA),
    "invalid column": (lambda X, y: (np.where(np.arange(X.size).reshape(X.shape) == 7, np.inf, X), y), Status.INVALID_DATA),
    "one row": (lambda X, y: (X[:1], y[:1] + 1.0), Status.CONVERGED),
    "no row": (lambda X, y: (np.where(np.isnan(X), X, np.nan), y), Status.NO_DATA),
    "constant column": (lambda X, y: (np.where(np.arange(P) == 2, 5.0, X), y), Status.CONVERGED),
    "twins": (lambda X, y: (np.where(np.arange(P) == 3, X[:, 1:2], X), y), Status.CONVERGED),
    "absurd": (lambda X, y: (X * np.where(np.arange(P) == 4, 1e150, 1.0), y * 1e3), None),
}


@pytest.fixture(scope="module")
def company():
    """All of them at once, and the same without those that are not sound."""
    parts = {"first": (XS[0], Y[0]), **{name: make(XS[1], Y[1]) for name, (make, _) in COMPANY.items()}, "last": (XS[2], Y[2])}
    rows, y = (np.concatenate([part[i] for part in parts.values()]) for i in (0, 1))
    groups = np.concatenate([[name] * len(part[1]) for name, part in parts.items()])
    with pytest.warns(jaxglm.StatusWarning, match="of 11 fits did not converge"):
        together = path_of(rows, y, groups=groups, missing="drop")
    inside = np.isin(groups, ["first", "last"])
    return together, path_of(rows[inside], y[inside], groups=groups[inside]), parts


def test_bad_groups_change_nothing_for_the_others(company):
    together, alone, _ = company
    for name in ("first", "last"):
        k, j = list(together.groups).index(name), list(alone.groups).index(name)
        np.testing.assert_allclose(together.coefficients[k], alone.coefficients[j], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(together.deviance[k], alone.deviance[j], rtol=1e-12)


@pytest.mark.parametrize("name", COMPANY)
def test_bad_groups_have_their_status(company, name):
    together, _, parts = company
    k, expected = list(together.groups).index(name), COMPANY[name][1]
    if expected is not None:
        assert together.status[k].tolist() == [expected] * L
    fit = together.at(L - 1)[name]
    if expected == Status.CONVERGED:
        assert np.isfinite(together.coefficients[k]).all()
        assert np.isfinite(fit.deviance)
    if name == "separated by x":
        design, y = parts[name]
        single = path_of(design, y)
        assert conditions(single, design, y, single.family) < 1e-8
        assert together.coefficients[k, -1, 1] > 1.0
    if name == "all zero":
        assert (fit.infinite.tolist(), fit.deviance) == ([-1, 0, 0, 0, 0], 0.0)
        assert (fit.coefficients[1:] == 0).all()
        assert (fit.fitted == 0).all()
    if name == "one row":
        assert (together.coefficients[k, :, 1:] == 0).all()
    if name == "constant column":
        assert (together.coefficients[k, :, 2] == 0).all()
    if name in ("invalid", "invalid column", "no row"):
        assert np.isnan(together.coefficients[k]).all()
        assert np.isnan([fit.deviance, fit.aic, fit.dispersion]).all()


def test_twins_share_what_one_of_them_would_have(company):
    together, _, parts = company
    design, y = parts["twins"]
    k = list(together.groups).index("twins")
    one = path_of(np.where(np.arange(P) == 3, 5.0, design), y)  # a constant column is as good as none
    np.testing.assert_allclose(together.deviance[k], one.deviance, rtol=1e-8)
    total = together.coefficients[k, :, 1] + together.coefficients[k, :, 3]
    np.testing.assert_allclose(total, one.coefficients[:, 1], atol=1e-7)
    both = path_of(design, y, mixing=0.5)
    np.testing.assert_allclose(both.coefficients[:, 1], both.coefficients[:, 3], rtol=1e-6, atol=1e-9)


def test_more_columns_than_rows_and_nearly_dependent_ones():
    design = RNG.normal(size=(12, 30))
    design[:, 10:20] = design[:, :10] + 1e-4 * design[:, 10:20]
    X, y = np.column_stack([np.ones(12), design]), design[:, 0] - design[:, 3] + 0.1 * RNG.normal(size=12)
    for mixing in (1.0, 0.5):
        path = jaxglm.regularization_path(X, y, mixing=mixing, lambdas=12)
        assert path.converged.all()
        assert path.lambdas[-1] == pytest.approx(0.01 * path.lambdas[0])
        assert conditions(path, X, y, path.family, mixing=mixing) < 1e-8
        assert ((path.coefficients != 0).sum(axis=1) <= (12 if mixing == 1.0 else 31)).all()


def test_aliased_free_columns_are_none():
    design = np.column_stack([X[:, :2], 2.0 * X[:, 1], X[:, 2], np.ones(N)])
    path = path_of(design, Y[0], factors=[0, 0, 0, 1, 0])
    assert np.isnan(path.coefficients[:, [2, 4]]).all()
    other = path_of(np.where(np.isin(np.arange(P), [2, 4]), 0.0, design), Y[0], factors=[0, 0, 0, 1, 0])
    used = [0, 1, 3]
    np.testing.assert_allclose(path.coefficients[:, used], other.coefficients[:, used], rtol=1e-7, atol=1e-10)
    estimates = np.where(np.isnan(path.coefficients[-1]), 0.0, path.coefficients[-1])
    np.testing.assert_allclose(path.at(-1).fitted, np.exp(design @ estimates), rtol=1e-12)


def test_a_strength_of_zero_is_no_penalty():
    lambdas = [*LAMBDAS[:-1], 0.0]
    paths = path_of(X, Y, lambdas=lambdas)
    plain = jaxglm.fit(X, Y, "poisson", offset=np.zeros(N))
    np.testing.assert_allclose(paths.coefficients[:, -1], plain.coefficients, rtol=1e-8)
    np.testing.assert_allclose(paths.aic[:, -1], plain.aic, rtol=1e-12)
    np.testing.assert_allclose(paths.at(L - 1).dispersion, 1.0)


def test_common_strengths_and_groups_of_any_size():
    sizes = [3, 200, 40, 7]
    rows = RNG.normal(size=(250, P))
    rows[:, 0] = 1.0
    y, groups = RNG.poisson(np.exp(0.5 + 0.4 * rows[:, 1])).astype(float) + 1.0, np.repeat(list("dbca"), sizes)
    order = RNG.permutation(250)
    own = path_of(rows[order], y[order], lambdas=L, groups=groups[order])
    common = path_of(rows, y, lambdas=L, groups=groups, common=True)
    assert own.groups.tolist() == list("abcd")
    assert (common.lambdas == common.lambdas[0]).all()
    assert common.lambdas[0, 0] == pytest.approx(own.lambdas[:, 0].max())
    np.testing.assert_allclose(own.lambdas[:, -1] / own.lambdas[:, 0], [1e-4, 1e-4, 1e-4, 1e-2], rtol=1e-10)
    for k, name in enumerate("abcd"):
        here = groups == name
        one = path_of(rows[here], y[here], lambdas=L)
        np.testing.assert_allclose(own.lambdas[k], one.lambdas, rtol=1e-12)
        np.testing.assert_allclose(own.coefficients[k], one.coefficients, rtol=1e-9, atol=1e-11)
        assert (one.coefficients[0, 1:] == 0).all()


# ---- choosing ----------------------------------------------------------------------------------------------------------


def test_criteria_choose_each_or_together():
    paths = path_of(X, Y, folds=4)
    size = np.log(N)
    bic = -2 * paths.log_likelihood + size * paths.df
    np.testing.assert_allclose(paths.bic, bic, rtol=1e-12)
    assert paths.choose("bic").tolist() == bic.argmin(axis=1).tolist()
    assert paths.choose("bic", together=True).tolist() == [bic.sum(axis=0).argmin()] * G
    assert paths.choose("aic").tolist() == paths.aic.argmin(axis=1).tolist()
    chosen = paths.select("bic")
    np.testing.assert_array_equal(chosen.coefficients, paths.coefficients[np.arange(G), bic.argmin(axis=1)])
    np.testing.assert_allclose(chosen.bic, bic.min(axis=1), rtol=1e-12)
    total = paths.folds.losses * paths.folds.weights[..., None]
    assert paths.choose("cv", together=True).tolist() == [total.sum(axis=(0, 1)).argmin()] * G
    assert (paths.choose("cv", "1se") <= paths.choose("cv")).all()
    tidy, glance = paths.tidy(), paths.glance()
    assert list(tidy.columns) == ["fit", "step", "lambda", "term", "estimate"]
    assert len(tidy) == np.sum(paths.coefficients != 0)
    assert len(paths.tidy(zeros=True)) == G * L * P
    np.testing.assert_array_equal(glance["loss"].to_numpy().reshape(G, L), paths.losses.mean)
    assert "4 models" in repr(paths)


def test_folds_that_could_not_be_fitted_are_left_out():
    losses = np.array([[3.0, 1.0, 2.0], [np.nan, np.nan, 2.0], [5.0, 3.0, 3.5]])
    found = Losses.of_folds(losses, np.array([1.0, 7.0, 3.0]))
    np.testing.assert_allclose(found.mean[:2], [4.5, 2.5])
    np.testing.assert_allclose(found.standard_error[0], np.sqrt(0.25 * 1.5**2 + 0.75 * 0.5**2))
    assert (found.place("min"), found.place("1se")) == (2, 1)


def test_folds_are_dealt_evenly_in_every_group():
    y = np.concatenate([Y[0], Y[1, :13]])
    rows, groups = np.concatenate([X, X[:13]]), np.repeat([1, 2], [N, 13])
    one, again, other = (path_of(rows, y, groups=groups, folds=5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.losses.mean, again.losses.mean)
    assert not np.array_equal(one.losses.mean, other.losses.mean)
    assert np.sort(one.folds.weights, axis=0).T.tolist() == [[8.0] * 5, [2.0, 2.0, 3.0, 3.0, 3.0]]


# ---- ridge penalties that are matrices ---------------------------------------------------------------------------------

D = np.diff(np.eye(P), axis=0)
SMOOTH = 3.0 * D.T @ D  # of rank P - 1


def test_a_matrix_is_a_penalty_of_every_shape():
    own = np.stack([SMOOTH * (k + 1.0) for k in range(G)])
    many = jaxglm.fit(X, Y, "poisson", penalty=Ridge(matrix=own))
    ragged = jaxglm.fit(np.tile(X, (G, 1)), Y.ravel(), "poisson", groups=np.repeat(np.arange(G), N), penalty=Ridge(matrix=own))
    for k in range(G):
        one = jaxglm.fit(X, Y[k], "poisson", penalty=Ridge(matrix=own[k]))
        mu = np.exp(X @ one.coefficients)
        np.testing.assert_allclose(X.T @ (Y[k] - mu), own[k] @ one.coefficients, atol=1e-6)
        np.testing.assert_allclose(one.covariance, np.linalg.inv((X.T * mu) @ X + own[k]), rtol=1e-7)
        for other in (many[k], ragged[k]):
            np.testing.assert_allclose(other.coefficients, one.coefficients, rtol=1e-9)
            np.testing.assert_allclose(other.covariance, one.covariance, rtol=1e-8)
    both = jaxglm.fit(X, Y, "poisson", penalty=Ridge([0.0, 1.0, 2.0, 0.5, 3.0], SMOOTH))
    whole = jaxglm.fit(X, Y, "poisson", penalty=Ridge(matrix=SMOOTH + np.diag([0.0, 1.0, 2.0, 0.5, 3.0])))
    np.testing.assert_allclose(both.coefficients, whole.coefficients, rtol=1e-10)
    plain = jaxglm.fit(X, Y, "poisson", penalty=Ridge([0.0, 1.0, 2.0, 0.5, 3.0]))
    diagonal = jaxglm.fit(X, Y, "poisson", penalty=Ridge(matrix=np.diag([0.0, 1.0, 2.0, 0.5, 3.0])))
    np.testing.assert_allclose(diagonal.coefficients, plain.coefficients, rtol=1e-10)


@pytest.mark.parametrize("factorization", ["cholesky", "orthogonal"])
def test_a_matrix_under_both_factorizations(x64, factorization):
    options = irls.IRLS(factorization=factorization)
    rows = np.vstack([X, np.sqrt(3.0) * D])
    expected = np.linalg.lstsq(rows, np.r_[Y[0], np.zeros(P - 1)], rcond=None)[0]
    fit = irls.solve(X, Y[0], families.Gaussian(), penalty=Ridge(matrix=SMOOTH), options=options)
    np.testing.assert_allclose(fit.coefficients, expected, rtol=1e-9)


def test_the_derivative_by_a_matrix(x64):
    def slope(strength):
        penalty, options = Ridge(matrix=strength * SMOOTH), irls.IRLS(factorization="cholesky")
        return irls.solve(X, Y[0], families.Gaussian(), penalty=penalty, options=options).coefficients[1]

    step = 1e-4
    numeric = (slope(1.0 + step) - slope(1.0 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(slope)(1.0), numeric, rtol=1e-5)


def test_what_a_matrix_does_not_resist_may_separate():
    """Along the differences of coefficients nothing diverges; where all of them rise together everything may."""
    y = np.where(XS[0].sum(axis=1) > 0, 1.0, 0.0)
    design = np.stack([XS[0]] * 2)
    held = jaxglm.fit(design[:, :, 1:], np.stack([np.where(XS[0][:, 1] > 0, 1.0, 0.0)] * 2), "binomial",
                      penalty=Ridge(matrix=np.diag([1.0, 0.0, 0.0, 0.0])))  # fmt: skip
    assert held.status.tolist() == [Status.CONVERGED] * 2
    with pytest.warns(jaxglm.StatusWarning, match="2 separated"):
        free = jaxglm.fit(design, np.stack([y] * 2), "binomial", penalty=Ridge(matrix=SMOOTH))
    assert free.infinite.tolist() == [[1] * P] * 2


def test_matrices_that_are_refused():
    for matrix, says in (
        (np.ones((2, 2)), r"matrix must have shape \(5, 5\) or \(1, 5, 5\), not \(2, 2\)"),
        (np.arange(25.0).reshape(5, 5), "must be finite and symmetric"),
        (-np.eye(5), "positive semidefinite; it has the eigenvalue -1"),
    ):
        with pytest.raises(ValueError, match=says):
            jaxglm.fit(X, Y[0], penalty=Ridge(matrix=matrix))
    with pytest.raises(ValueError, match="matrix must have shape"):
        irls.solve(X, Y[0], families.Gaussian(), penalty=Ridge(matrix=np.eye(3)))
    assert repr(Ridge(matrix=[[1.0]])) == "Ridge(matrix=[[1.0]])"
    assert repr(ElasticNet(0.1, 0.5)).startswith("ElasticNet(strength=0.1, mixing=0.5")
