"""`irls.solve` and `solve_many` of arrays that are at hand: the same as in a program, whichever way they go."""

import logging
import sys

import jax
import numpy as np
import pytest

from jaxglm import IRLS, Ridge, Status, families, irls
from jaxglm.irls import at_hand, data

MODULE = sys.modules["jaxglm.irls.solve"]  # its name is that of its function
NUMBERS = ("coefficients", "covariance", "deviance", "null_deviance", "log_likelihood", "dispersion")
BY_A_PROGRAM = ("a matrix", "orthogonal", "many columns")  # whether lanes are there or not
EXACT = ("spans_constant", "status", "rank", "n_obs", "aliased", "infinite", "undecided", "method")


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def refused(*arguments):
    raise AssertionError("this is not to be called")


def rows(n=40, seed=0):
    """A design of an intercept and two numbers, and counts."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    return X, rng.poisson(np.exp(0.3 * X[:, 1] + 0.5)) * 1.0


def cases():
    X, counts = rows()
    binary = (counts > 1) * 1.0
    weights, offset = np.arange(40) % 4 * 1.0, np.linspace(-1, 1, 40)
    poisson, binomial = families.Poisson(), families.Binomial()
    deficient = np.column_stack([X, X[:, 1] - 2 * X[:, 0]])
    absent = np.arange(40) % 5 > 0
    hidden = {"X": np.where(absent[:, None], X, np.nan), "y": np.where(absent, counts, np.inf), "weights": absent * 1.0}
    many = np.column_stack([X, np.cos(np.arange(1, 8) * np.arange(40)[:, None]), X[:, 1] + X[:, 2]])
    return {
        "poisson": (X, counts, poisson, {}),
        "weights and offset": (X, counts, poisson, {"weights": weights, "offset": offset}),
        "gamma": (X, counts + 0.5, families.Gamma("log"), {}),
        "theta": (X, counts, families.NegativeBinomial(1.5), {"offset": offset}),
        "ridge": (X, binary, binomial, {"penalty": Ridge([0.0, 1.0, 2.0])}),
        "a matrix": (X, binary, binomial, {"penalty": Ridge(0.0, matrix=np.diag([0.0, 1.0, 2.0]))}),
        "start": (X, binary, binomial, {"start": np.array([0.1, 0.2, 0.0])}),
        "hidden": (hidden["X"], hidden["y"], poisson, {"weights": hidden["weights"]}),
        "infinite": (np.where(np.arange(120).reshape(40, 3) == 70, np.inf, X), counts, poisson, {}),
        "no rows": (X[:0], counts[:0], poisson, {}),
        "rows of Fortran": (np.asfortranarray(X), counts, poisson, {"offset": np.linspace(-1, 1, 80)[::2]}),
        "many columns": (many, counts, poisson, {}),
        "deficient": (deficient, binary, binomial, {}),
        "separated": (X, (X[:, 1] > 0.2) * 1.0, binomial, {}),
        "nobody": (X, binary, binomial, {"weights": np.zeros(40)}),
        "invalid": (X, counts - 5.0, poisson, {}),
        "orthogonal": (X, counts, poisson, {"options": IRLS(factorization="orthogonal")}),
        "expected": (X, counts + 0.5, families.Gamma("log"), {"options": IRLS(information="expected")}),
    }


@pytest.mark.parametrize("name", cases())
def test_arrays_at_hand_and_traced_ones_give_the_same(name):
    X, y, family, given = cases()[name]
    static = {key: given[key] for key in given if key in ("options", "penalty")}
    arrays = {key: given[key] for key in given if key not in static}
    direct = irls.solve(X, y, family, **given)
    traced = jax.jit(lambda X, y, arrays: irls.solve(X, y, family, **arrays, **static))(X, y, arrays)
    expected = {"separated": Status.SEPARATED, "nobody": Status.NO_DATA, "no rows": Status.NO_DATA}
    expected |= dict.fromkeys(("invalid", "infinite"), Status.INVALID_DATA)
    assert direct.status == expected.get(name, Status.CONVERGED)
    unsaid = ["spans_constant"] if direct.status == Status.INVALID_DATA else []
    for field in sorted({*EXACT} - {*unsaid}):
        np.testing.assert_array_equal(getattr(direct, field), getattr(traced, field), err_msg=field)
    for field in NUMBERS:
        np.testing.assert_allclose(
            getattr(direct, field), getattr(traced, field), rtol=1e-7, atol=1e-9, err_msg=f"{field} of {name}"
        )
    assert abs(int(direct.n_iterations) - int(traced.n_iterations)) <= 1 or name == "separated"
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), direct) == jax.tree.map(lambda a: (a.shape, a.dtype), traced)


@pytest.mark.parametrize("weighted", [False, True])
def test_arrays_at_hand_in_a_program_that_traces_others(weighted):
    """Constants of a program are at hand, but what is done with them may be traced."""
    X, y = (jax.numpy.asarray(values) for values in rows())
    given = {"weights": jax.numpy.asarray(np.arange(40) % 3 * 1.0)} if weighted else {}
    family, penalty = families.Poisson(), Ridge(0.1)

    def deviance():
        return irls.solve(X, y, family, penalty=penalty, **given).deviance

    direct = float(deviance())
    np.testing.assert_allclose(jax.jit(lambda more: deviance() + more)(1.0), direct + 1.0, rtol=1e-9)
    np.testing.assert_allclose(jax.lax.map(lambda k: deviance() * k, jax.numpy.arange(2.0)), [0.0, direct], rtol=1e-9)
    assert jax.eval_shape(deviance).shape == ()


@pytest.mark.parametrize("name", [name for name in cases() if name not in BY_A_PROGRAM])
def test_small_fits_at_hand_need_no_program(name, monkeypatch):
    pytest.importorskip("llvmlite")

    monkeypatch.setattr(MODULE, "solve_data", refused)
    X, y, family, given = cases()[name]
    irls.solve(X, y, family, **given)


def test_another_number_of_rows_needs_nothing_new():
    pytest.importorskip("llvmlite")
    compiled, handler = [], logging.Handler()
    handler.emit = lambda record: compiled.append(record.getMessage())
    logging.getLogger("jax").addHandler(handler)
    given = {n: [jax.numpy.asarray(values) for values in (*rows(n), np.ones(n))] for n in (80, 90)}
    try:
        for n in given:
            compiled.clear()
            X, y, weights = given[n]
            with jax.log_compiles():
                irls.solve(X, y, families.Poisson(), weights=weights)
    finally:
        logging.getLogger("jax").removeHandler(handler)
    assert not [line for line in compiled if "Compiling" in line]


@pytest.mark.parametrize("why", [*BY_A_PROGRAM, "large"])
def test_what_is_not_for_lanes_goes_to_a_program(why, monkeypatch):
    pytest.importorskip("llvmlite")
    asked = []
    program = MODULE.solve_data
    monkeypatch.setattr(MODULE, "solve_data", lambda *arguments: (asked.append(1), program(*arguments))[1])
    X, y, family, given = cases()["poisson" if why == "large" else why]
    if why == "large":
        irls.solve(X, y, family)
        assert not asked
        monkeypatch.setattr(at_hand, "MOST", X.size - 1)
    assert irls.solve(X, y, family, **given).status == Status.CONVERGED
    assert len(asked) == 1


def test_nothing_is_compiled_where_JAX_is_told_not_to(monkeypatch):
    X, y = rows()
    expected = irls.solve(X, y, families.Poisson()).coefficients
    monkeypatch.setattr(at_hand.lanes, "solve", refused)
    # Without jit, JAX's operators take an enumeration's number for an array, which strict promotion does not let pass.
    with jax.disable_jit(), jax.numpy_dtype_promotion("standard"):
        debugged = irls.solve(X, y, families.Poisson())
    assert isinstance(debugged.coefficients, jax.Array)
    np.testing.assert_allclose(debugged.coefficients, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"family": families.NegativeBinomial(np.ones(3))},
        {"family": families.NegativeBinomial(np.ones((5, 40)))},
        {"start": np.zeros(2)},
        {"start": np.zeros((2, 3))},
    ],
    ids=["three thetas", "thetas of rows", "a short start", "two starts"],
)
@pytest.mark.parametrize("traced", [False, True])
def test_many_fits_want_parameters_and_starts_of_their_number(wrong, traced):
    """Lanes read memory as they are told: shapes that do not fit together must not reach them."""
    X, y = rows()
    given = {"family": families.Poisson(), "start": None} | wrong

    def solved(y):
        return irls.solve_many(X, y, given["family"], start=given["start"])

    with pytest.raises(ValueError, match=r"must (be a number or )?have shape"):
        (jax.jit(solved) if traced else solved)(np.stack([y] * 5))


def test_a_parameter_of_one_fit_is_one_number():
    X, y = rows()
    for thetas in (np.ones(40), np.ones(1)):
        with pytest.raises(ValueError, match="a parameter of negative_binomial must be a number"):
            irls.solve(X, y, families.NegativeBinomial(thetas))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("name", ["canonical", "a link of its own", "a penalty"])
def test_one_program_goes_both_careful_ways(name, chunked, monkeypatch):
    """Fits that need orthogonal factorization and fits that do not, side by side, are what each is by itself."""
    axes, in_chunks = set(), data.Data.in_chunks
    monkeypatch.setattr(data, "LARGE", 1 if chunked else 10**9)
    monkeypatch.setattr(data, "CHUNK", 30)
    monkeypatch.setattr(data.Data, "in_chunks", lambda self: (made := in_chunks(self), axes.add(made.X.ndim))[0])
    jax.clear_caches()  # programs do not know of these constants
    X, counts = rows()
    designs = np.stack([np.column_stack([X, X[:, 1] ** 2]), np.column_stack([X, X[:, 1] + X[:, 2]])] * 2)
    y = np.stack([counts, counts, counts[::-1], counts[::-1]])
    family = families.Gamma("log") if name == "a link of its own" else families.Poisson()
    y, penalty = y + 0.5 * (family.name == "gamma"), Ridge([0.0, 0.0, 0.5, 0.0]) if name == "a penalty" else None

    def solved(X, y, factorization):
        return irls.solve(X, y, family, penalty=penalty, options=IRLS(factorization=factorization))

    both = jax.jit(jax.vmap(lambda X, y: solved(X, y, "auto")))(designs, y)
    np.testing.assert_array_equal(both.status, Status.CONVERGED)
    np.testing.assert_array_equal(both.rank, [4, 4, 4, 4] if penalty else [4, 3, 4, 3])
    assert axes == {3 if chunked else 2}
    for k, way in enumerate(["cholesky", "orthogonal"] * 2):
        alone = solved(designs[k], y[k], way)
        for field in NUMBERS:
            np.testing.assert_allclose(getattr(both, field)[k], getattr(alone, field), rtol=1e-8, atol=1e-10, err_msg=field)
    jax.clear_caches()


def test_single_precision_stays_single():
    X, y = (values.astype(np.float32) for values in rows())
    fit = irls.solve(X, y, families.Poisson())
    assert fit.coefficients.dtype == np.float32
    np.testing.assert_allclose(fit.coefficients, irls.solve(*rows(), families.Poisson()).coefficients, rtol=2e-5)
