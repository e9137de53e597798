"""The command line, in process: what it writes, where, and how it ends."""

import csv
import gzip
import io
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet
import pytest

import jaxglm
from jaxglm import cli, files

CONTRACEPTION = str(Path(jaxglm.datasets.__file__).parent / "contraception.csv")
FORMULA = "use ~ age + I(age^2) + urban + livch"
ESTIMATES = ["-0.949952124", "0.004583726", "-0.004286455", "0.768097459", "0.783112821", "0.854904050", "0.806025052"]
TERMS = ["Intercept", "age", "I(age^2)", "urban[T.Y]", "livch[T.1]", "livch[T.2]", "livch[T.3+]"]
CACHE = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Compiled programs are kept under a temporary folder, and JAX's configuration comes back afterwards."""
    before = {name: getattr(jax.config, name) for name in CACHE}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """A table of 3 shops and 2 years with everything that arguments can name, as CSV; and its columns."""
    rng = np.random.default_rng(0)
    n = 96
    table = {
        "shop": np.array(["a", "b", "c"])[np.arange(n) % 3],
        "year": 2020 + np.arange(n) // 3 % 2,
        "x": rng.normal(size=n),
        "w": rng.integers(1, 4, n).astype(float),
        "days": rng.uniform(1.0, 30.0, n),
        "theta": np.array([0.5, 2.0, 9.0])[np.arange(n) % 3],
    }
    table["log_days"] = np.log(table["days"])
    table["y"] = rng.poisson(table["days"] * np.exp(0.3 * table["x"] - 1.0)).astype(float)
    table["zero"] = np.where(table["shop"] == "b", 0.0, table["y"])
    path = tmp_path_factory.mktemp("data") / "counts.csv"
    files.write(table, path)
    return str(path), table


def run(capfdbinary, *arguments):
    """The exit code, standard output and standard error of a command."""
    code = cli.main([str(a) for a in arguments])
    sys.stdout.flush()
    out, err = capfdbinary.readouterr()
    return code, out.decode(), err.decode()


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def column(text, name="estimate"):
    return np.array([float(row[name] or "nan") for row in rows(text)])


def test_worked_example_to_standard_output_at_full_precision(capfdbinary):
    code, out, err = run(capfdbinary, "fit", CONTRACEPTION, FORMULA, "--family", "binomial")
    assert (code, err) == (0, "")
    assert [row["term"] for row in rows(out)] == TERMS
    assert [f"{value:.9f}" for value in column(out)] == ESTIMATES
    data = jaxglm.datasets.load("contraception")
    fit = jaxglm.glm(FORMULA, data, family="binomial")
    np.testing.assert_array_equal(column(out), fit.coefficients)  # every digit
    np.testing.assert_array_equal(column(out, "std_error"), fit.standard_errors)


@pytest.mark.parametrize("form", ["parquet", "csv.gz", "arrow"])
def test_worked_example_through_files(capfdbinary, tmp_path, form):
    source = tmp_path / f"women.{form}"
    files.write(jaxglm.datasets.load("contraception"), source)
    code, out, err = run(capfdbinary, "fit", source, FORMULA, "--family", "binomial", "--out", tmp_path / "new" / "deep")
    assert (code, out) == (0, "")
    assert err.count("jaxglm: wrote ") == 2
    tidy, glance = (files.read(tmp_path / "new" / "deep" / f"{name}.{form}") for name in ("tidy", "glance"))
    assert [f"{value:.9f}" for value in tidy["estimate"].to_pylist()] == ESTIMATES
    assert glance["n_obs"].to_pylist() == [1934]
    assert glance["status"].to_pylist() == ["converged"]
    assert sorted(path.name for path in (tmp_path / "new" / "deep").iterdir()) == [f"glance.{form}", f"tidy.{form}"]


def test_format_other_than_that_of_the_data(capfdbinary, tmp_path, counts):
    for form in ("parquet", "csv.gz"):
        arguments = ("y ~ x", "--family", "poisson", "--out", tmp_path, "--format", form, "--quiet")
        assert run(capfdbinary, "fit", counts[0], *arguments) == (0, "", "")
    assert pyarrow.parquet.read_table(tmp_path / "tidy.parquet")["term"].to_pylist() == ["Intercept", "x"]
    assert gzip.decompress((tmp_path / "tidy.csv.gz").read_bytes()).startswith(b'"term"')


@pytest.mark.parametrize("by", [["shop"], ["shop,year"], ["shop", "year"]])
def test_by_columns(capfdbinary, counts, by):
    arguments = [part for name in by for part in ("--by", name)]
    code, out, _ = run(capfdbinary, "fit", counts[0], "y ~ x", "--family", "poisson", *arguments)
    keys = ["shop"] if by == ["shop"] else ["shop", "year"]
    fit = jaxglm.glm("y ~ x", counts[1], family="poisson", by=keys)
    assert code == 0
    assert list(rows(out)[0])[: len(keys) + 1] == [*keys, "term"]
    np.testing.assert_array_equal(column(out), fit.coefficients.reshape(-1))
    found = [tuple(row[key] for key in keys) for row in rows(out)[::2]]
    assert found == [tuple(map(str, key)) if len(keys) > 1 else (key,) for key in fit.groups]


ARGUMENTS = {
    "weights": (["--family", "poisson", "--weights", "w"], {"family": "poisson", "weights": "w"}),
    "weights_kind": (
        ["--family", "poisson", "--weights", "w", "--weights-kind", "sampling"],
        {"family": "poisson", "weights": jaxglm.Weights("w", "sampling")},
    ),
    "offset": (["--family", "poisson", "--offset", "log_days"], {"family": "poisson", "offset": "log_days"}),
    "exposure": (["--family", "poisson", "--exposure", "days"], {"family": "poisson", "exposure": "days"}),
    "link": (["--family", "poisson", "--link", "sqrt"], {"family": jaxglm.families.Poisson("sqrt")}),
    "power link": (
        ["--family", "poisson", "--link", "power(0.5)"],
        {"family": jaxglm.families.Poisson(jaxglm.links.Power(0.5))},
    ),
    "theta": (["--family", "negative_binomial", "--theta", "2"], {"family": jaxglm.families.NegativeBinomial(2.0)}),
    "theta of a column": (
        ["--family", "negative_binomial", "--theta", "theta", "--by", "shop"],
        {"family": jaxglm.families.NegativeBinomial("theta"), "by": "shop"},
    ),
    "power": (["--family", "tweedie", "--power", "1.4"], {"family": jaxglm.families.Tweedie(1.4)}),
    "power, estimated": (["--family", "tweedie"], {"family": jaxglm.families.Tweedie()}),
    "precision": (["--family", "poisson", "--precision", "float32"], {"family": "poisson", "precision": "float32"}),
    "device": (["--family", "poisson", "--device", "cpu"], {"family": "poisson", "device": "cpu"}),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_reach_the_fit(capfdbinary, counts, case):
    arguments, keywords = ARGUMENTS[case]
    code, out, err = run(capfdbinary, "fit", counts[0], "y ~ x", *arguments)
    assert (code, err) == (0, "")
    fit = jaxglm.glm("y ~ x", counts[1], **keywords)
    np.testing.assert_array_equal(column(out), fit.coefficients.reshape(-1))
    np.testing.assert_array_equal(column(out, "std_error"), fit.standard_errors.reshape(-1))


def test_failed_groups_are_a_warning_and_with_strict_an_exit_code(capfdbinary, counts):
    arguments = ("fit", counts[0], "zero ~ x", "--family", "poisson", "--by", "shop")
    code, out, err = run(capfdbinary, *arguments)
    assert code == 0
    assert err.startswith("jaxglm: warning: ")
    assert "separated" in err.lower()
    assert "b" in err
    assert [row["status"] for row in rows(out)] == ["converged"] * 2 + ["separated"] * 2 + ["converged"] * 2
    assert run(capfdbinary, *arguments, "--strict")[0] == 3
    code, strict, err = run(capfdbinary, *arguments, "--strict", "--quiet")
    assert (code, strict, err) == (3, out, "")
    assert run(capfdbinary, "fit", counts[0], "y ~ x", "--family", "poisson", "--strict", "--quiet")[0] == 0


def test_rows_left_out_are_counted(capfdbinary, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("g,y,x\n" + "".join(f"{'ab'[i % 2]},{i % 5},{i % 3}\n" for i in range(40)) + "a,NA,1\n,1,2\n")
    code, _, err = run(capfdbinary, "fit", path, "y ~ x", "--family", "poisson", "--by", "g")
    assert code == 0
    assert "left out 1 rows with missing values, 1 without a group" in err


def test_progress_only_on_a_terminal(capfdbinary, counts, monkeypatch):
    arguments = ("fit", counts[0], "y ~ x", "--family", "poisson", "--by", "shop")
    assert run(capfdbinary, *arguments)[2] == ""
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True, raising=False)
    assert "3 of 3 fits" in run(capfdbinary, *arguments)[2]
    assert run(capfdbinary, *arguments, "--quiet")[2] == ""


def test_usage(capsys):
    for arguments in ([], ["fit"], ["fit", "a.csv"], ["unknown"], ["fit", "a.csv", "y ~ x", "--precision", "half"]):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 2
        assert "usage: jaxglm" in capsys.readouterr().err
    for arguments in (["--help"], ["fit", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0
        assert "jaxglm" in capsys.readouterr().out


def test_errors(capfdbinary, counts):
    code, out, err = run(capfdbinary, "fit", counts[0], "y ~ z", "--family", "poisson")
    assert (code, out) == (1, "")
    assert err.startswith("jaxglm: error: ")
    assert "'z'" in err
    assert err.count("\n") == 1


def test_interrupted(capfdbinary, monkeypatch):
    def stop(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_info", stop)
    code, out, err = run(capfdbinary, "info")
    assert (code, out) == (130, "")
    assert "interrupted" in err


def test_what_nobody_expected_has_no_traceback(capfdbinary, monkeypatch):
    def fail(arguments):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(cli, "run_info", fail)
    code, _, err = run(capfdbinary, "info")
    assert (code, err) == (1, "jaxglm: error: unexpected ZeroDivisionError: oh\n")


def test_info(capfdbinary, tmp_path):
    code, out, err = run(capfdbinary, "info")
    assert (code, err) == (0, "")
    for word in (jaxglm.__version__, jax.__version__, "python", "devices", "cpu"):
        assert word in out


def test_demo(capfdbinary):
    code, out, err = run(capfdbinary, "demo")
    assert (code, err) == (0, "")
    assert "1,934 women" in out
    assert "-0.949952" in out
    assert "separated" in out


def test_as_a_module(tmp_path):
    (tmp_path / "a.csv").write_text("y,x\n1,0\n2,1\n3,2\n9,3\n")
    command = [sys.executable, "-m", "jaxglm", "fit", str(tmp_path / "a.csv"), "y ~ x", "--family", "poisson"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_allclose(column(done.stdout), [-0.185125, 0.773620], atol=1e-6)
    ends = subprocess.run(f"{' '.join(command[:3])} info | head -1", shell=True, capture_output=True, text=True, check=False)
    assert ends.stderr == ""
