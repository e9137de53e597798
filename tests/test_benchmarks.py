"""The benchmark suite on tiny problems: that data, adapters, checks and reports are right. Nothing here takes a time."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # `benchmarks` is beside the package, not in it

from benchmarks import adapters, cli, inference, plots, precision, report, runner, scaling, targets, theta, workloads
from benchmarks.adapters import plink2
from benchmarks.adapters.interface import CannotRun, Job, Library, Setting
from benchmarks.checks import Found, References, faults, largest_error, reference
from benchmarks.environment import Environment
from benchmarks.problems import DEFICIENT, GOOD, MISSING, SEPARATED, Problem
from benchmarks.results import Measurement, NotRun, Results

LIBRARIES = {library.name: library for library in adapters.LIBRARIES}
TINY = 1e-9  # every workload stops at its smallest size
HERE = Environment("a processor", "AVX-512", 2, 2**34, "Linux", "cpu", 2e10, 0.1, {"python": "3.11"}, "abc1234")


@pytest.fixture(scope="module")
def problems():
    return {workload.name: workload.problem(TINY) for workload in workloads.WORKLOADS}


def every_fit(problem):
    return np.arange(problem.fits)


@pytest.mark.parametrize("name", [workload.name for workload in workloads.WORKLOADS])
def test_a_problem_is_what_it_says(problems, name):
    """The seed decides the data; some of the fits are the same fits; all good ones have a finite optimum."""
    problem = problems[name]
    again = workloads.named([name])[0].problem(TINY)
    np.testing.assert_array_equal(problem.X, again.X)
    np.testing.assert_array_equal(problem.y, again.y)
    places = problem.some(5, 10**9)
    some = problem.take(places)
    assert some.fits == len(places)
    assert some.p == problem.p
    for position, place in enumerate(places):
        a, b = some.one(position), problem.one(place)
        for part in ("X", "y", "weights", "offset", "theta"):
            np.testing.assert_array_equal(getattr(a, part), getattr(b, part), err_msg=part)
    assert problem.rows == sum(len(problem.one(i).y) for i in every_fit(problem)) or name == "scan"  # which leaves some out
    assert all(np.all(problem.one(i).X[:, 0] == 1.0) for i in places)
    for i in problem.good[:20]:
        assert np.max(np.abs(reference(problem.one(i), problem.family).coefficients)) < 1e4


def test_ragged_groups_are_flawed_on_purpose_only(problems):
    flawed, clean = problems["ragged_logistic"], problems["ragged_logistic_clean"]
    assert sorted(np.unique(flawed.flaws)) == [GOOD, SEPARATED, DEFICIENT]
    assert np.all(clean.flaws == GOOD)
    for place in flawed.good:
        np.testing.assert_array_equal(flawed.one(place).y, clean.one(place).y)
    for place in np.flatnonzero(flawed.flaws == DEFICIENT):
        assert np.linalg.matrix_rank(flawed.one(place).X) == flawed.p - 1
    for place in clean.good:  # a finite optimum for every group, however small
        reference(clean.one(place), "binomial")
    for place in np.flatnonzero(flawed.flaws == SEPARATED):
        fit = flawed.one(place)
        assert np.all(fit.y[fit.X[:, -1] == 1.0] == 1.0)


def test_the_device_decides_the_size():
    sizes = {workload.name: (workload.size, workload.gpu_size) for workload in workloads.WORKLOADS}
    assert sizes["scan"] == (20_000, 500_000)
    assert sizes["shared_nb"] == (20_000, 1_000_000)
    assert [workload.name for workload in workloads.named(["million"])] == ["million_gaussian", "million_logistic"]
    assert len({workload.name for workload in scaling.workloads()}) == sum(len(shapes) for shapes in scaling.AXES.values())


@pytest.mark.parametrize("name", ["null", "jaxglm_fit", "naive_jax"])
def test_libraries_agree_with_the_reference(problems, name, tmp_path):
    problem, library = problems["grouped_logistic"], LIBRARIES[name]
    job = library.prepare(problem, Setting("cpu", 1, tmp_path))
    found = job.found(job.once())
    if library.solves:
        error = runner.judge(problem, References(problem), library, job, found)
        assert isinstance(error, float), error
        assert found.iterations is not None
    else:
        assert len(found.coefficients) == 0


def test_what_flawed_fits_cost_is_told_by_leaving_them_out(problems, tmp_path):
    problem, library = problems["ragged_logistic"], LIBRARIES["jaxglm_good"]
    job = library.prepare(problem, Setting("cpu", 1, tmp_path))
    found = job.found(job.once())
    assert isinstance(runner.judge(problem, References(problem), library, job, found), float)
    np.testing.assert_array_equal(job.places, problem.good)
    assert 0 < len(found.coefficients) == len(problem.good) < problem.fits
    with pytest.raises(CannotRun, match="none"):
        library.prepare(problems["ragged_logistic_clean"], Setting("cpu", 1, tmp_path))


@pytest.mark.parametrize("name", ["shared_nb", "scan", "ragged_logistic_clean", "wide"])
def test_naive_jax_takes_every_layout(problems, name, tmp_path):
    problem, library = problems[name], LIBRARIES["naive_jax"]
    job = library.prepare(problem, Setting("cpu", 1, tmp_path))
    assert isinstance(runner.judge(problem, References(problem), library, job, job.found(job.once())), float)


def test_what_cannot_be_run_is_a_reason(problems, tmp_path):
    setting = Setting("cpu", 1, tmp_path)
    problem = problems["grouped_logistic"]
    references = References(problem)

    def outcome(**changes):
        return runner.check(problem, references, dataclasses.replace(LIBRARIES["null"], solves=True, **changes), setting)

    def refuse(problem, setting):
        raise CannotRun("does counts only")

    def fail(problem, setting):
        raise OSError("no such file: /somewhere/of/mine/data.bin")

    def zeros(problem, setting):
        return Job(lambda _: np.zeros((problem.fits, problem.p)), every_fit(problem), Found)

    assert outcome(module="no_such_module", distribution="no-such-library") == "no-such-library is not installed"
    assert outcome(program="no-such-program") == "no-such-program is not installed"
    assert outcome(prepare=refuse) == "does counts only"
    assert outcome(prepare=fail) == "OSError: no such file: data.bin"
    assert outcome(prepare=zeros).startswith("wrong: error")
    assert LIBRARIES["glum"].missing("gpu") == "does not run on a GPU"
    assert runner.check(problem, references, LIBRARIES["plink2"], setting)


def test_wrong_answers_are_found(problems):
    problem = problems["ragged_logistic"]
    references, places = References(problem), every_fit(problem)
    b = np.full((problem.fits, problem.p), np.nan)
    for place in problem.good:
        b[place] = references[int(place)].coefficients
    assert largest_error(problem, references, places, b) == 0.0
    assert largest_error(problem, references, places, b[:, -1:]) == 0.0  # the last coefficient alone
    assert largest_error(problem, references, places, b + 0.1) > 1e-3
    status, rank = np.where(problem.flaws == SEPARATED, 1, 0), np.where(problem.flaws == DEFICIENT, 5, 6)
    assert faults(problem, places, Found(b, status, rank)) == []
    assert faults(problem, places, Found(b, np.zeros_like(status), rank)) == ["1 separated fits were not found"]


def test_genotypes_as_plink_packs_them(tmp_path):
    features = np.array([[0, 1, 2, MISSING, 2]], np.int8)
    problem = Problem("tiny", "", "scan", "binomial", np.ones((5, 2)), np.array([0.0, 1.0, 1.0, 0.0, 1.0]), features=features)
    plink2.write(problem, tmp_path / "tiny")
    assert (tmp_path / "tiny.bed").read_bytes() == bytes([0x6C, 0x1B, 0x01, 0b01_00_10_11, 0])
    (tmp_path / "table").write_text("#CHROM ID BETA SE\n1 v0 0.25 0.1\n1 v1 NA NA\n")
    np.testing.assert_array_equal(plink2.found(tmp_path / "table").coefficients, [[0.25], [np.nan]])


def made(problem, library, runs, **changes):
    """A measurement of 100 fits."""
    given = {"fits_run": 100, "compiles": True, "transfer": 0.01, "error": 1e-12, "iterations": 5.0, "peak_bytes": None}
    sizes = {"fits": 100, "rows": 20_000, "p": 8, "pass_bytes": 10**6, "input_bytes": 10**6}
    fixed = {"what": "logistic", "timed": "all of it", "runs": tuple(runs), "first": 2.0, "allowed": 1e-9}
    return Measurement(problem=problem, library=library, **{**fixed, **sizes, **given, **changes})


@pytest.fixture
def results():
    measured = (
        made("grouped_logistic", "jaxglm_solver", [0.1, 0.2, 0.1], peak_bytes=2 * 10**6),
        made("grouped_logistic", "naive_jax", [1.0, 1.8, 1.1]),
        made("grouped_logistic", "statsmodels", [1.0, 1.0, 1.0], fits_run=10, compiles=False, transfer=None),
        made("grouped_logistic", "null", [0.001], error=None, iterations=None, compiles=False, transfer=None),
    )
    skipped = (NotRun("grouped_logistic", "glum", "glum is not installed"), NotRun("scan", "glum", "glum is not installed"))
    return Results(HERE, "python -m benchmarks", 1.0, "cpu", measured, skipped)


def test_ratios_are_taken_round_by_round(results):
    solver, naive, loop = (results.find("grouped_logistic", name) for name in ("jaxglm_solver", "naive_jax", "statsmodels"))
    assert solver.times_faster_than(naive) == pytest.approx(10.0)
    assert loop.seconds == pytest.approx(10.0)
    assert loop.extrapolated
    assert solver.compile_seconds == pytest.approx(1.9)
    assert solver.roofline(2e10) == pytest.approx(5 * 10**6 / 2e10 / 0.1)
    verdict = targets.verdicts(results)[0]
    assert (verdict.what, verdict.met) == ("grouped_logistic: solver against naive JAX", True)


def test_the_report(results, tmp_path):
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
    page = report.render(results)
    assert "| **grouped_logistic**: 100 x logistic | null |" in page
    assert "|  | jaxglm_solver | 0.1 | 1,000 | 10 | 1e-12 | 1.9 | 0.01 | 2.0 | all |" in page
    assert "|  | statsmodels | ~10 | ~10 | 0.11 |" in page
    assert "- glum (grouped_logistic, scan): glum is not installed" in page
    assert "| grouped_logistic: solver against naive JAX | 10 | at least 8 | yes |" in page
    assert plots.draw(results, tmp_path) == ["fits.png", "roofline.png"]


def test_the_command_line(results, tmp_path, capsys):
    results.save(tmp_path / "results.json")
    assert cli.main(["--render", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "results.md").read_text() == report.render(results)
    assert cli.main(["--problem", "nothing"]) == 2
    assert "there is no problem 'nothing'" in capsys.readouterr().err
    assert cli.main(["--list", "--library", "null"]) == 0
    assert cli.without_folder(["--scale", "1", "--out", "/mine", "--isolate"]) == ["--scale", "1", "--isolate"]


def test_libraries_are_named_once():
    assert len(LIBRARIES) == len(adapters.LIBRARIES)
    assert all(isinstance(library, Library) and library.timed for library in adapters.LIBRARIES)
    with pytest.raises(ValueError, match="there is no library 'nothing'"):
        adapters.named(["nothing"])


def test_costs_of_conclusions():
    """Every conclusion is drawn from a fit of its own kind, and timed beside it."""
    problem = workloads.named(["grouped_poisson"])[0].problem(0.001)
    found = inference.measure(problem, 1)
    assert [one.what for one in found] == [what for what, *_ in inference.conclusions(problem)]
    assert all(one.seconds > 0 and one.fits > 0 for one in found)


@pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="llvmlite is not installed")
def test_ways_to_use_single_precision_arrive_at_the_same_estimates():
    problem = workloads.named(["wide"])[0].problem(0.0)
    problem = dataclasses.replace(problem, X=problem.X[:, :300, :4], y=problem.y[:, :300])
    ways = precision.Ways.of(problem)
    whole, early = ways.whole(), ways.early()
    assert not whole.undecided.any()
    np.testing.assert_allclose(early.coefficients, whole.coefficients, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(ways.steps(40, "float64", "float32"), whole.coefficients, rtol=1e-9, atol=1e-10)
    assert np.abs(ways.steps(40, "float32", "float32") / whole.coefficients - 1.0).max() > 1e-8
    assert np.isfinite(dataclasses.astuple(precision.measure(problem, 1))[1:]).all()


def test_thetas_are_checked():
    """An independent likelihood has score zero at our thetas, and not beside them; glmGamPoi's are near, if it is there."""
    problem = theta.problem_of(60)
    found = theta.by_jaxglm(problem)()[0]
    score, error = theta.check(problem, found)
    assert score < 1e-6
    assert error < 1e-11
    beside = dataclasses.replace(found, theta=found.theta * 1.01)
    assert theta.check(problem, beside)[0] > 1e-3
    measured = theta.measure(60, 1)
    assert measured.score == score
    if "glmgampoi" in measured.times:
        assert measured.apart < theta.APART


def test_promises_about_thetas():
    times = {"jaxglm": theta.Times((1.0, 2.0, 1.0), (1.0, 1.0, 1.0)), "glmgampoi": theta.Times((8.0, 14.0, 9.0), (7.0,) * 3)}
    kept = theta.Report(
        100, times, theta.median_ratio(times["glmgampoi"].wall, times["jaxglm"].wall), 7.0, 1e-9, 0.0, 0.001, 99
    )
    assert kept.ratio == 8.0
    assert kept.missed == []
    assert "| times faster | 8.0 | 7.0 |" in theta.lines(kept)
    broken = dataclasses.replace(kept, ratio=4.0, apart=0.02, score=1e-3)
    assert len(broken.missed) == 3
    assert theta.lines(broken)[-1] == "Not kept: 4.0 times glmGamPoi's speed."
