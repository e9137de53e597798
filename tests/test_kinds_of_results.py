"""Results of every kind meet every conclusion: what holds for one kind must not be said of another."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxglm
from jaxglm import ElasticNet, Ridge, Weights, families, links
from jaxglm.errors import UnknownGroupError
from jaxglm.groups import combine, factorize
from jaxglm.sorting import sort_within

RNG = np.random.default_rng(12)
N = 60
X = np.column_stack([np.ones(N), RNG.normal(size=(N, 2))])
Y = X @ [1.0, 0.5, 0.2] + RNG.normal(size=N)
COUNTS = RNG.poisson(np.exp(X @ [1.0, 0.4, -0.2])) * 1.0
FREQUENCIES = RNG.integers(1, 4, N)
FLAGS = (RNG.random(N) < 0.5) * 1.0


def repeated(values):
    return np.repeat(values, FREQUENCIES, axis=0)


@pytest.mark.parametrize("family", ["gaussian", families.Gamma("log"), "binomial"], ids=str)
def test_frequencies_are_repeated_rows_in_tests_and_effects(family):
    y = {"gaussian": Y, "binomial": FLAGS}.get(family if isinstance(family, str) else "", np.exp(Y))
    short = jaxglm.fit(X, y, family=family, weights=Weights(FREQUENCIES, "frequency"))
    long = jaxglm.fit(repeated(X), repeated(y), family=family)
    for name in ("statistic", "p_value", "aic", "deviance"):
        found, wanted = (getattr(fit.drop1(), name) for fit in (short, long))
        np.testing.assert_allclose(found, wanted, rtol=1e-8, err_msg=name)
        found, wanted = (getattr(jaxglm.anova(fit), name) for fit in (short, long))
        np.testing.assert_allclose(found, wanted, rtol=1e-8, err_msg=name)
    for name in ("estimate", "standard_error"):
        np.testing.assert_allclose(getattr(short.effects(), name), getattr(long.effects(), name), rtol=1e-8, err_msg=name)


def test_sampling_weights_have_no_likelihood():
    fit = jaxglm.fit(X, COUNTS, family="poisson", weights=Weights(RNG.uniform(1, 5, N), "sampling"))
    assert fit.drop1().kind == "wald"
    assert np.isnan(fit.drop1().aic).all()
    for asked in (lambda: fit.drop1(test="lr"), lambda: fit.conf_int(method="profile"), lambda: fit.drop1(test="score")):
        with pytest.raises(ValueError, match="no likelihood"):
            asked()


def test_wald_tests_use_one_dispersion_and_the_covariance_that_was_asked_for():
    fit = jaxglm.fit(X, Y)
    small = jaxglm.fit(X[:, :2], Y)
    sequence = jaxglm.anova(fit, test="wald")
    by_hand = (small.coefficients[1] / small.standard_errors[1]) ** 2 * small.dispersion / fit.dispersion
    np.testing.assert_allclose(sequence.statistic, [by_hand, fit.statistics[2] ** 2], rtol=1e-8)
    robust = fit.robust("HC3")
    np.testing.assert_allclose(robust.drop1(test="wald").statistic, robust.statistics[1:] ** 2, rtol=1e-8)
    with pytest.raises(ValueError, match="drop1"):
        jaxglm.anova(robust, test="wald")
    with pytest.raises(ValueError, match="degrees="):
        robust.test("x2", form="f")


def test_a_robust_covariance_does_not_change_profiles():
    fit = jaxglm.fit(X, Y)
    np.testing.assert_allclose(fit.robust("HC0").conf_int(method="profile"), fit.conf_int(method="profile"), rtol=1e-12)


def test_what_cannot_be_said_of_an_elastic_net():
    fit = jaxglm.fit(X, Y, penalty=ElasticNet(0.1))
    with pytest.raises(ValueError, match="bootstrap"):
        fit.robust("HC0")
    with pytest.raises(ValueError, match="penalized"):
        fit.drop1()
    with pytest.raises(ValueError, match="give it"):
        jaxglm.fit(X, COUNTS, family="negative_binomial", penalty=ElasticNet(0.1))
    with pytest.raises(ValueError, match="give it"):
        jaxglm.fit(X, COUNTS, family="negative_binomial", bias_reduction="mean")
    for one in (fit, jaxglm.fit(X, Y, penalty=ElasticNet(0.1), groups=np.arange(N) % 2)):
        low, high = np.moveaxis(one.bootstrap(50, seed=1).conf_int(0.9), -1, 0)
        assert ((low <= one.coefficients + 0.2) & (high >= one.coefficients - 0.2)).all()


def test_a_fit_chosen_from_a_path_says_what_it_does_not_know():
    fit = jaxglm.regularization_path(X, Y).at(3)
    for asked in (fit.influence, fit.diagnostics, lambda: fit.robust("HC0"), lambda: fit.bootstrap(10), fit.drop1):
        with pytest.raises(ValueError, match="chosen from a path"):
            asked()


def test_a_matrix_penalty_reaches_the_diagnostics():
    strengths = np.array([0.0, 2.0, 3.0])
    by_matrix = jaxglm.fit(X, COUNTS, family="poisson", penalty=Ridge(matrix=np.diag(strengths)))
    by_column = jaxglm.fit(X, COUNTS, family="poisson", penalty=Ridge(strengths))
    np.testing.assert_allclose(by_matrix.influence().hat, by_column.influence().hat, rtol=1e-8)
    np.testing.assert_allclose(by_matrix.robust("HC3").covariance, by_column.robust("HC3").covariance, rtol=1e-8)
    assert by_matrix.diagnostics()["verdict"].tolist() == by_column.diagnostics()["verdict"].tolist()
    with pytest.raises(ValueError, match="give theta"):
        jaxglm.fit(X, COUNTS, family="negative_binomial", penalty=Ridge(matrix=np.diag(strengths)))


def test_a_known_dispersion_that_is_not_one():
    y = X @ [1.0, 0.5, 0.2] + 2.0 * RNG.normal(size=N)

    def square(y, mean):
        return (y - mean.mu) ** 2

    own = families.Family("own", links.identity, variance=jnp.ones_like, unit_deviance=square, dispersion=4.0)
    fit = jaxglm.fit(X, y, family=own)
    assert "overdispersed" not in fit.verdict
    table = fit.diagnostics()
    assert 0.5 < table["pearson_ratio"][0] < 1.6
    assert 0.7 < np.std(fit.influence().residual_studentized) < 1.3


def test_labels_of_small_types_and_keys_of_many_levels():
    assert factorize(np.array([100, -100, 3, 100], np.int8)).labels.tolist() == [-100, 3, 100]
    assert factorize(np.array([100, -100, 3, 100], np.int8)).codes.tolist() == [2, 0, 1, 2]
    levels = [np.arange(2**13)] * 5
    codes = [np.random.default_rng(seed).permutation(2**13) for seed in range(5)]
    made = combine([f"k{i}" for i in range(5)], levels, codes)
    assert len(made) == 2**13
    rows = sorted(zip(*(code.tolist() for code in codes), strict=True))
    assert list(zip(*(key.tolist() for key in made.keys), strict=True)) == rows
    for key, code in zip(made.keys, codes, strict=True):
        np.testing.assert_array_equal(key[made.codes], code)


@pytest.mark.parametrize("n_labels", [1, 7, 3000, 10**6])
@pytest.mark.parametrize("ascending", [True, False], ids=["ascending", "shuffled"])
def test_rows_sorted_by_group_and_label(n_labels, ascending):
    rng = np.random.default_rng(n_labels)
    codes, labels = rng.integers(-1, 40, 5000), rng.integers(0, n_labels, 5000)
    codes = np.sort(np.maximum(codes, 0)) if ascending else codes
    found = sort_within(codes, 41, labels)
    wanted = np.lexsort((np.arange(5000), labels, codes))
    np.testing.assert_array_equal(found.index, wanted[codes[wanted] >= 0])
    np.testing.assert_array_equal(found.sizes, np.bincount(codes[codes >= 0], minlength=41))


def test_no_groups_at_all():
    with pytest.raises(UnknownGroupError, match="no groups"):
        factorize(np.array([], object)).position("a")


def test_effects_beside_columns_that_are_nearly_the_same():
    table = pd.DataFrame({"y": COUNTS, "a": X[:, 1], "b": X[:, 1] + 1e-9 * X[:, 2], "c": X[:, 1]})
    fit = jaxglm.glm("y ~ a + b + c", table, family="poisson")
    assert len(fit.effects().estimate) == 3


def test_a_perfect_fit_is_compared_in_silence():
    fit = jaxglm.fit(X, X @ [1.0, 0.5, 0.2])
    assert fit.drop1().statistic.shape == (2,)
