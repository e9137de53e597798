"""Wrong input: one clear error that says what is wrong, where, and what to do; wrong values: a status.

Each case names words that the message must hold: the offending name or shape, and a hint. At the command line the same
is one line on standard error, without a traceback, and an exit code of 1 or 2.
"""

import sys

import numpy as np
import pytest

import jaxglm
from jaxglm import Ridge, Status, cli, families, files

N = 12
rng = np.random.default_rng(0)
X = np.column_stack([np.ones(N), rng.normal(size=N)])
y = rng.poisson(3.0, N).astype(float)
Y = rng.poisson(3.0, (5, N)).astype(float)
TABLE = {
    "y": y,
    "x": X[:, 1],
    "age": np.arange(N) % 5 + 0.5,
    "g": np.array(list("abc"))[np.arange(N) % 3],
    "text": np.array([f"t{k}" for k in range(N)]),
    "yes": np.array(["no", "yes"])[np.arange(N) % 2],
    "three": np.array(["l", "m", "h"])[np.arange(N) % 3],
    "theta": np.arange(N) + 1.0,
    "gone": np.full(N, np.nan),
    "n": np.full(N, 9.0),
}


def fit(*arguments, **keywords):
    return jaxglm.fit(*arguments, **{"family": "poisson", **keywords})


def glm(formula="y ~ x", data=TABLE, **keywords):
    return jaxglm.glm(formula, data, **{"family": "poisson", **keywords})


ARRAYS = {  # a call, the words of its message
    "X of one axis": (lambda: fit(y, y), ["X", "(n, p)", "(12,)"]),
    "X of four axes": (lambda: fit(X[None, None], y), ["X", "(g, n, p)"]),
    "X without columns": (lambda: fit(X[:, :0], y), ["X", "no columns"]),
    "X and y of other lengths": (lambda: fit(X, y[:-1]), ["y", "(12,)", "(11,)"]),
    "Y transposed": (lambda: fit(X, Y.T), ["y", "transposed", ".T"]),
    "weights transposed": (lambda: fit(X, Y, weights=Y.T), ["weights", "transposed", "weights.T"]),
    "Y of three axes": (lambda: fit(X, Y[None]), ["y", "(12,)", "(1, 5, 12)"]),
    "g of Y and weights": (lambda: fit(X, Y, weights=np.ones((4, N))), ["disagree", "y has 5", "weights has 4"]),
    "g of X and Y": (lambda: fit(np.stack([X] * 3), Y), ["disagree", "X has 3", "y has 5"]),
    "X ragged": (lambda: fit([[1.0, 2.0], [1.0]], [1.0, 2.0]), ["X", "rectangular"]),
    "X of text": (lambda: fit([["a", "b"], ["c", "d"]], [1, 2]), ["X", "numbers", "jaxglm.glm"]),
    "X of objects": (lambda: fit(np.array([[1, {}], [1, []]], object), [1, 2]), ["X", "numbers"]),
    "weights of text": (lambda: fit(X, y, weights=["heavy"] * N), ["weights", "numbers"]),
    "complex X": (lambda: fit(X + 0j, y), ["X", "complex"]),
    "weights of another length": (lambda: fit(X, y, weights=y[:3]), ["weights", "(12,)", "(3,)"]),
    "offset of another length": (lambda: fit(X, y, offset=y[:3]), ["offset", "(12,)", "(3,)"]),
    "exposure of another length": (lambda: fit(X, y, exposure=y[:3]), ["exposure", "(12,)", "(3,)"]),
    "groups of another length": (lambda: fit(X, y, groups=y[:3]), ["groups", "12", "3"]),
    "groups with Y": (lambda: fit(X, Y, groups=y), ["groups", "y", "(12,)", "(5, 12)"]),
    "groups of mixed kinds": (lambda: fit(X, y, groups=[1, "a"] * 6), ["group", "one kind", "int", "str"]),
    "names of another length": (lambda: fit(X, y, names=["a"]), ["names", "2"]),
    "names twice": (lambda: fit(X, y, names=["a", "a"]), ["names", "different"]),
    "start of another length": (lambda: fit(X, y, start=[0.0]), ["start", "(2,)", "(1,)"]),
    "penalty of another length": (lambda: fit(X, y, penalty=Ridge(np.ones(3))), ["penalty", "(2,)", "(3,)"]),
    "penalty below zero": (lambda: fit(X, y, penalty=Ridge(-1.0)), ["strength", "nonnegative"]),
    "penalty that is a number": (lambda: fit(X, y, penalty=1.0), ["penalty", "Ridge", "ElasticNet"]),
    "family unknown": (lambda: fit(X, y, family="possion"), ["'possion'", "Did you mean 'poisson'"]),
    "family of another type": (lambda: fit(X, y, family=3), ["family", "3"]),
    "link of another family": (lambda: families.named("poisson", "logit"), ["poisson", "logit", "log"]),
    "link unknown": (lambda: families.named("poisson", "lgo"), ["'lgo'", "log"]),
    "theta of the wrong number of fits": (
        lambda: fit(X, Y, family=families.NegativeBinomial(np.ones(3))),
        ["parameter", "(5,)", "(3,)"],
    ),
    "theta a column's name": (
        lambda: fit(X, y, family=families.NegativeBinomial("theta")),
        ["'theta'", "jaxglm.glm"],
    ),
    "three labels": (lambda: fit(X, list("abcabcabcabc"), family="binomial"), ["two", "3", "a, b, c"]),
    "labels in poisson": (lambda: fit(X, ["no", "yes"] * 6), ["no, yes", "poisson", "binomial"]),
    "precision": (lambda: fit(X, y, precision="half"), ["precision", "'half'", "float64"]),
    "missing": (lambda: fit(X, y, missing="keep"), ["missing", "'keep'", "drop"]),
    "device": (lambda: fit(X, y, device="abacus"), ["device", "'abacus'", "cpu"]),
    "options": (lambda: fit(X, y, options={"tol": 1e-3}), ["options", "IRLS"]),
    "features transposed": (
        lambda: jaxglm.scan(X, y, np.ones((3, N)), family="poisson"),
        ["features", "transposed", "features.T"],
    ),
    "scan of many responses": (lambda: jaxglm.scan(X, Y, np.ones((N, 3)), family="poisson"), ["y", "(12,)"]),
    "new rows of each fit, and groups": (
        lambda: fit(X, Y).predict(np.stack([X] * 5), groups=range(5)),
        ["groups=", "(m, 2)", "(5, 12, 2)"],
    ),
    "new rows of each fit for one": (lambda: fit(X, y).predict(X[None]), ["one fit", "(m, 2)", "(1, 12, 2)"]),
    "new rows and groups for one": (lambda: fit(X, y).predict(X, groups=y), ["groups=", "one fit"]),
    "new rows of text": (lambda: fit(X, y).predict([["a", "b"]]), ["new", "numbers"]),
    "new rows ragged": (lambda: fit(X, Y).predict([[1.0, 2.0], [1.0]]), ["new", "rectangular"]),
    "new offset a column's name": (lambda: fit(X, y).predict(X, offset="a"), ["offset='a'", "column", "not a table"]),
    "new exposure a column's name": (lambda: fit(X, Y).prediction(X, exposure="a"), ["exposure='a'", "not a table"]),
    "new offset of text": (lambda: fit(X, y).predict(X, offset=["a"] * N), ["offset", "numbers"]),
    "an array in place of a fit": (lambda: fit(X, Y)[np.arange(2)], ["no fit array([0, 1])", "5, from 0 on"]),
}
TABLES = {
    "column unknown": (lambda: glm("y ~ ages"), ["'ages'", "Did you mean 'age'"]),
    "response unknown": (lambda: glm("yy ~ x"), ["'yy'", "y"]),
    "by unknown": (lambda: glm(by="gg"), ["'gg'", "by"]),
    "weights unknown": (lambda: glm(weights="ww"), ["'ww'", "weights"]),
    "offset unknown": (lambda: glm(offset="oo"), ["'oo'", "offset"]),
    "exposure unknown": (lambda: glm(exposure="ee"), ["'ee'", "exposure"]),
    "weights of text": (lambda: glm(weights="text"), ["'text'", "weights", "number"]),
    "weights of another length": (lambda: glm(weights=np.ones(3)), ["weights", "(12,)", "(3,)"]),
    "by and responses": (lambda: glm("~ x", by="g", responses=Y.T), ["by", "responses"]),
    "responses transposed": (lambda: glm("~ x", responses=Y), ["responses", "transposed", "responses.T"]),
    "responses without columns": (lambda: glm("~ x", responses=Y.T[:, :0]), ["responses", "no columns"]),
    "responses and a response": (lambda: glm("y ~ x", responses=Y.T), ["y ~ x", "responses"]),
    "no response": (lambda: glm("~ x"), ["~ x", "response"]),
    "syntax": (lambda: glm("y ~ x + (age"), ["y ~ x + (age"]),
    "two tildes": (lambda: glm("y ~ x ~ age"), ["y ~ x ~ age"]),
    "empty formula": (lambda: glm(""), ["formula"]),
    "formula of another type": (lambda: glm(3), ["formula"]),
    "family unknown": (lambda: glm(family="binomal"), ["'binomal'", "'binomial'"]),
    "three levels": (lambda: glm("three ~ x", family="binomial"), ["three", "two", "3"]),
    "one level": (lambda: glm("yes ~ x", {**TABLE, "yes": ["no"] * N}, family="binomial"), ["yes", "two", "one level"]),
    "text in poisson": (lambda: glm("yes ~ x"), ["yes", "no", "binomial", "poisson"]),
    "much text in poisson": (lambda: glm("text ~ x"), ["text", "poisson"]),
    "cbind in gaussian": (lambda: glm("cbind(y, n) ~ x", family="gaussian"), ["cbind", "binomial", "gaussian"]),
    "theta not constant": (
        lambda: glm(family=families.NegativeBinomial("theta"), by="g"),
        ["'theta'", "not constant", "'a'"],
    ),
    "theta unknown": (lambda: glm(family=families.NegativeBinomial("teta")), ["'teta'", "'theta'"]),
    "empty table": (lambda: glm(data={"y": [], "x": []}), ["row"]),
    "all rows missing": (lambda: glm("y ~ gone"), ["no rows", "gone"]),
    "all groups missing": (lambda: glm(by="g", data={**TABLE, "g": [None] * N}), ["g", "group"]),
    "lengths differ": (lambda: glm(data={"y": y, "x": y[:3]}), ["x", "3", "12"]),
    "names": (lambda: glm(names=["a"]), ["names", "2", "Intercept"]),
    "missing": (lambda: glm(missing="keep"), ["missing", "'keep'"]),
    "precision": (lambda: glm(precision="half"), ["'half'", "float64"]),
    "device": (lambda: glm(device="abacus"), ["'abacus'"]),
    "data of another type": (lambda: glm(data=3), ["data", "pandas"]),
    "object column": (lambda: glm("y ~ o", {**TABLE, "o": [{}] * N}), ["o"]),
    "start": (lambda: glm(start=[0.0]), ["start", "(2,)"]),
    "an array without the exposure": (lambda: glm(exposure="age").predict(X), ["give offset= or exposure=", "offset=0"]),
    "an array without the offset": (lambda: glm("y ~ x + offset(age)").predict(X), ["give offset= or exposure=", "offset=0"]),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_array_door(case):
    check(*ARRAYS[case])


@pytest.mark.parametrize("case", TABLES)
def test_table_door(case):
    check(*TABLES[case])


def check(call, words):
    with pytest.raises((ValueError, TypeError, KeyError)) as error:
        call()
    text = str(error.value)
    assert [word for word in words if word not in text] == [], text
    assert len(text) < 500


def test_duplicate_column_names():
    import pandas

    doubled = pandas.DataFrame(np.ones((4, 3)), columns=["y", "x", "x"])
    check(lambda: jaxglm.glm("y ~ x", doubled), ["x"])


def test_arrays_without_rows_have_no_data_and_no_groups():
    with pytest.warns(jaxglm.StatusWarning):
        assert fit(X[:0], y[:0]).status == Status.NO_DATA
    assert len(fit(X[:0], y[:0], groups=[])) == 0


@pytest.mark.filterwarnings("ignore::jaxglm.StatusWarning")
@pytest.mark.parametrize("where", ["y", "weights", "offset"])
def test_wrong_values_are_a_status(where):
    rows = {"y": Y.copy(), "weights": np.ones((5, N)), "offset": np.zeros((5, N))}
    rows[where][1, 3], rows[where][2, 4] = (np.nan, np.inf)
    if where != "offset":
        rows[where][3, 5] = -1.0
    found = fit(X, rows["y"], weights=rows["weights"], offset=rows["offset"])
    bad = [1, 2] if where == "offset" else [1, 2, 3]
    assert np.flatnonzero(found.status == Status.INVALID_DATA).tolist() == bad
    assert found.converged.sum() == 5 - len(bad)


def test_warnings_count_and_name_the_groups():
    table = {**TABLE, "y": np.where(TABLE["g"] == "b", -1.0, y)}
    with pytest.warns(jaxglm.StatusWarning, match=r"1 of 3 .*invalid_data.*b") as caught:
        glm(data=table, by="g")
    assert len(caught) == 1


def command_line(tmp_path):
    """Arguments, and words of the message."""
    files.write(TABLE, tmp_path / "a.csv")
    files.write(TABLE, tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("y,x\n")
    (tmp_path / "twice.csv").write_text("y,x,x\n1,2,3\n2,3,4\n")
    (tmp_path / "a.xyz").write_text("y,x\n1,2\n")
    (tmp_path / "file").write_text("")
    a = str(tmp_path / "a.csv")
    yield [a, "y ~ ages"], ["'ages'", "'age'"]
    yield [a, "y ~ x + (age"], ["y ~ x + (age"]
    yield [a, "y ~ x", "--family", "possion"], ["'possion'", "'poisson'"]
    yield [a, "y ~ x", "--family", "poisson", "--link", "logit"], ["logit", "poisson"]
    yield [a, "y ~ x", "--family", "poisson", "--link", "power(a)"], ["power(a)", "number"]
    yield [a, "y ~ x", "--by", "gg"], ["'gg'"]
    yield [a, "y ~ x", "--weights", "ww"], ["'ww'"]
    yield [a, "y ~ x", "--weights", "text"], ["'text'", "number"]
    yield [a, "three ~ x", "--family", "binomial"], ["three", "two"]
    yield [a, "yes ~ x", "--family", "poisson"], ["yes", "poisson"]
    yield [a, "cbind(y, n) ~ x"], ["cbind", "binomial"]
    yield [a, "y ~ x", "--family", "negative_binomial", "--theta", "theta", "--by", "g"], ["'theta'", "not constant"]
    yield [a, "y ~ x", "--theta", "2"], ["theta", "gaussian"]
    yield [a, "y ~ gone"], ["no rows", "gone"]
    yield [a, "y ~ x", "--device", "abacus"], ["'abacus'"]
    yield [a, "y ~ x", "--precision", "half"], ["half", "float64"]
    yield [a, "y ~ x", "--format", "xlsx", "--out", str(tmp_path)], ["xlsx", "csv"]
    yield [a, "y ~ x", "--format", "parquet"], ["--out", "parquet"]
    yield [a, "y ~ x", "--out", str(tmp_path / "file" / "below")], ["cannot write", "below"]
    yield [str(tmp_path / "none.csv"), "y ~ x"], ["none.csv"]
    yield [str(tmp_path / "cut.parquet"), "y ~ x"], ["cut.parquet", "whole"]
    yield [str(tmp_path / "empty.csv"), "y ~ x"], ["empty.csv"]
    yield [str(tmp_path / "head.csv"), "y ~ x"], ["row"]
    yield [str(tmp_path / "twice.csv"), "y ~ x"], ["x", "twice"]
    yield [str(tmp_path / "a.xyz"), "y ~ x"], [".xyz", ".csv"]
    yield [str(tmp_path), "y ~ x"], [tmp_path.name]


def test_command_line(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(cli, "_keep_compiled", lambda: None)
    wrong = {}
    for arguments, words in command_line(tmp_path):
        try:
            code = cli.main(["fit", *arguments])
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        out, err = capfd.readouterr()
        message = err.strip().split("\n")
        lines = message if code == 1 else message[-1:]  # after a usage error comes the usage, then one line
        if code not in (1, 2) or out or len(lines) != 1 or "Traceback" in err or any(word not in err for word in words):
            wrong[" ".join(arguments)] = (code, out[:80], err[:300])
    assert wrong == {}
