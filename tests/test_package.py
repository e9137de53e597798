"""The package as a whole: what importing it does, which module may import which, and that its examples are right."""

import ast
import doctest
import importlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxglm

ROOT = Path(jaxglm.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

# A module imports only from its own layer or from those above it here, and modules never import each other in a circle.
LAYERS = [
    "errors status threads aligned devices links logarithms deviances family log_likelihoods count_overdispersion "
    "tweedie_density families",
    "designs linalg penalty rows",
    "irls irls.options irls.carry irls.seldom irls.working irls.problem irls.normal irls.loop irls.solution irls.adjusted "
    "irls.lasso irls.path irls.plain irls.careful irls.data irls.at_hand irls.solve irls.alike irls.blocks irls.many "
    "irls.ragged irls.joint "
    "irls.edge irls.starts irls.damped irls.boundary irls.descent irls.fused "
    "irls.fused.special irls.fused.programs irls.fused.tiles irls.fused.recipes irls.fused.unrolled irls.fused.kernel "
    "irls.fused.launch irls.fused.guard irls.lanes irls.lanes.code irls.lanes.functions irls.lanes.entries irls.lanes.flow "
    "irls.lanes.folding irls.lanes.sums irls.lanes.parts irls.lanes.translate irls.lanes.program irls.lanes.lookup "
    "irls.lanes.kernel irls.lanes.kept irls.lanes.machine irls.lanes.run irls.lanes.guard "
    "irls.borrowed irls.borrowed.instructions irls.borrowed.calls irls.borrowed.design",
    "check recession separation crossings sorting packing task calls kernels large ends limits separated elastic_net boundary "
    "interior ladder fitting theta passes power",
    "groups observations tails discovery missing wald profile residuals leverage cluster_sums sandwich bootstrap robust "
    "weights influence log_tails distributions quantile_residuals portions overdispersion zero_inflation verdict columns "
    "frames terms formula_parsing formula formula_variation prediction tables diagnostics summary storage hypotheses "
    "conclusions contrasts reduced nesting score_tests comparisons changes effect_sums averages effects pictures "
    "pictures.canvas pictures.terms pictures.states pictures.rows diagnosed pictured inference shapes results paths",
    "arrays score_scans",
    "regularization",
    "datasets files model",
    "demo cli jaxglm __main__",
]
LAYER = {name: depth for depth, names in enumerate(LAYERS) for name in names.split()}

PLACES = {  # where an outside library may be imported, at the top of the module or inside functions
    "narwhals": {"frames"},
    "formulaic": {"formula", "formula_parsing"},
    "pyarrow": {"columns", "files", "frames"},
    "pandas": {"columns", "datasets", "formula", "formula_variation", "frames"},
    "polars": {"columns"},
    "llvmlite": {"irls.lanes.machine"},
    "optax": {"irls.descent"},
    "scipy": {
        "bootstrap",
        "boundary",
        "distributions",
        "influence",
        "interior",
        "linalg",
        "log_tails",
        "model",
        "overdispersion",
        "quantile_residuals",
        "sandwich",
        "separation",
        "sorting",
        "tails",
        "wald",
    },
    "matplotlib": {"pictures.canvas"},
    "duckdb": set(),
}
HEAVY = ("pandas", "formulaic", "narwhals", "pyarrow", "matplotlib", "scipy.optimize", "polars", "duckdb", "optax")

LOOK = f"""
import json, sys
import jax
before = {{name: str(value) for name, value in jax.config.values.items()}}
import jaxglm
after = {{name: str(value) for name, value in jax.config.values.items()}}
from jax._src import xla_bridge
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps([before == after, list(xla_bridge._backends), heavy]))
"""


def short(name):
    return name.removeprefix("jaxglm.")


def imports(name, top_only):
    """The modules that a module imports, as full names; those under `if TYPE_CHECKING` are no imports."""
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    guarded = [
        node for test in ast.walk(tree) if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
        for node in ast.walk(test)
    ]  # fmt: skip
    inside = [] if not top_only else [
        node for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in ast.walk(f)
    ]  # fmt: skip
    skipped = {id(node) for node in [*guarded, *inside]}
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in FILES else node.module for one in full}
    return found


def test_importing_starts_no_device_changes_no_configuration_and_is_light():
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout.splitlines()[-1]) == [True, [], []]


def test_fitting_leaves_the_configuration_alone():
    before = dict(jax.config.values)
    X = np.column_stack([np.ones(6), np.arange(6.0)])
    fit = jaxglm.fit(X, np.arange(6.0) ** 2, family="gaussian")
    assert fit.coefficients.dtype == np.float64
    np.testing.assert_allclose(fit.coefficients, np.linalg.lstsq(X, np.arange(6.0) ** 2)[0], rtol=1e-13)
    assert dict(jax.config.values) == before
    assert not jax.config.jax_enable_x64
    assert jax.numpy.ones(2).dtype == np.float32


def test_every_module_has_a_layer():
    assert {short(name) for name in FILES} - set(LAYER) == set()


@pytest.mark.parametrize("name", FILES)
def test_imports_point_to_lower_layers(name):
    used = {short(one) for one in imports(name, top_only=False) if one.split(".")[0] == "jaxglm"}
    if name == "jaxglm.irls":
        return
    upward = {one for one in used if LAYER[one] > LAYER[short(name)] and one != "jaxglm"}
    assert upward == set()


def test_no_module_imports_itself_in_a_circle():
    """Depth first over what is imported when a module is; a package's own modules import it before they run."""
    inside = {name: {one for one in imports(name, top_only=True) if one in FILES} for name in FILES}
    inside = {name: used - {"jaxglm"} - {name.rpartition(".")[0]} for name, used in inside.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            path.append(name)
            for one in sorted(inside[name]):
                visit(one)
            path.pop()
            done.add(name)

    for name in FILES:
        visit(name)


@pytest.mark.parametrize("library", PLACES)
def test_outside_libraries_are_imported_in_one_place(library):
    where = {short(name) for name in FILES if any(one.split(".")[0] == library for one in imports(name, top_only=False))}
    assert where <= PLACES[library]


@pytest.mark.parametrize("folder", [ROOT, Path(__file__).parent], ids=["jaxglm", "tests"])
def test_files_have_at_most_400_lines(folder):
    long = {path.name: n for path in folder.rglob("*.py") if (n := len(path.read_text(encoding="utf-8").splitlines())) > 400}
    assert long == {}


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("__main__")])
def test_every_module_and_what_it_exports_has_a_docstring(name):
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    public = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")]
    assert [n.name for n in public if not ast.get_docstring(n)] == []


@pytest.mark.parametrize("name", [name for name in FILES if ">>>" in FILES[name].read_text(encoding="utf-8")])
def test_examples(name):
    module = importlib.import_module(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = []
        runner = doctest.DocTestRunner(verbose=False)
        for test in doctest.DocTestFinder().find(module):
            runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)
