"""The command line: `jaxglm fit`, `jaxglm info`, `jaxglm demo`.

Tables go to files or to standard output, everything else to standard error. Exit codes: 0 done; 1 error; 2 usage; 3 with
--strict, when a group failed; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxglm.errors import listed
from jaxglm.status import Status, StatusWarning
from jaxglm.weights import KINDS, Weights

FORMATS = {"csv": ".csv", "csv.gz": ".csv.gz", "parquet": ".parquet", "arrow": ".arrow"}


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    from jaxglm import __version__

    top = argparse.ArgumentParser(prog="jaxglm", description="Generalized linear models, one for each group, in one call.")
    top.add_argument("--version", action="version", version=f"jaxglm {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="{fit,info,demo}")
    fit = commands.add_parser(
        "fit",
        help="fit a formula to a table",
        description="Fit a formula to a table in a CSV (also .gz), Parquet or Arrow file. Formulas may contain Python.",
    )
    fit.add_argument("data", metavar="DATA", help="the file with the table")
    fit.add_argument("formula", metavar="FORMULA", help='such as "use ~ age + I(age^2) + urban"')
    fit.add_argument("--family", default="gaussian", help="gaussian (default), binomial, poisson, gamma, ...")
    fit.add_argument("--link", help="instead of the family's default; also power(0.5)")
    fit.add_argument("--by", action="append", default=[], metavar="COLUMN", help="a key column; repeat, or separate by commas")
    fit.add_argument("--theta", help="of negative_binomial: a number or a column; else estimated")
    fit.add_argument("--adjusted", action="store_true", help="estimate theta by Cox and Reid's adjusted likelihood")
    fit.add_argument("--power", help="of tweedie: a number or a column; else estimated")
    fit.add_argument("--weights", metavar="COLUMN", help="of rows; prior weights unless --weights-kind is given")
    fit.add_argument("--weights-kind", default="prior", choices=KINDS, help="what weights mean")
    fit.add_argument("--offset", metavar="COLUMN", help="added to eta")
    fit.add_argument("--exposure", metavar="COLUMN", help="its logarithm is added to eta")
    fit.add_argument("--precision", default="float64", choices=["float64", "float32"])
    fit.add_argument("--device", metavar="PLATFORM", help="cpu or gpu; JAX's default if not given")
    fit.add_argument("--out", metavar="DIRECTORY", help="write tidy and glance tables there; else tidy goes to standard output")
    fit.add_argument("--format", choices=list(FORMATS), help="of the tables written; that of DATA if not given")
    fit.add_argument("--quiet", action="store_true", help="no progress and no warnings")
    fit.add_argument("--strict", action="store_true", help="exit with 3 if a group did not converge")
    commands.add_parser("info", help="versions and devices")
    commands.add_parser("demo", help="a worked example with the data that ship with jaxglm")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = parser().parse_args(argv)
    run = {"fit": run_fit, "info": run_info, "demo": run_demo}[arguments.command]
    try:
        _keep_compiled()
        code = run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\njaxglm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that closing it says nothing
        return 1
    except Exception as error:  # a user of the command line gets a sentence, never a traceback
        kind = (
            ""
            if isinstance(error, (ValueError, TypeError, KeyError, OSError, ImportError, NotImplementedError))
            else (f"unexpected {type(error).__name__}: ")
        )
        print(f"jaxglm: error: {kind}{error}", file=sys.stderr)
        return 1


def _keep_compiled() -> None:
    """Keep compiled programs between runs, in the user's cache folder, unless the user has said where."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "jaxglm"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


class Progress:
    """A line on standard error that is written over as fits are done."""

    def __init__(self) -> None:
        self.written = False

    def __call__(self, done: int, total: int) -> None:
        print(f"\rjaxglm: {done:,} of {total:,} fits", end="", file=sys.stderr, flush=True)
        self.written = True

    def close(self) -> None:
        """Leave the line."""
        if self.written:
            print(file=sys.stderr)


def run_fit(arguments: argparse.Namespace) -> int:
    """`jaxglm fit`."""
    from jaxglm import files
    from jaxglm.model import glm

    if arguments.out is None and arguments.format not in (None, "csv"):
        raise ValueError(f"standard output takes csv only; give --out to write {arguments.format}")
    family = _family(arguments)
    by = [name.strip() for given in arguments.by for name in given.split(",")]
    shapes = [value for value in family.parameters.values() if isinstance(value, str)]
    given = [arguments.weights, arguments.offset, arguments.exposure, *shapes]
    columns = [*by, *(name for name in given if name)]
    data = files.read(arguments.data, columns=_needed(arguments.data, arguments.formula, columns))
    progress = Progress() if sys.stderr.isatty() and not arguments.quiet else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StatusWarning)
        result = glm(
            arguments.formula,
            data,
            family,
            by=by or None,
            weights=None if arguments.weights is None else Weights(arguments.weights, arguments.weights_kind),
            offset=arguments.offset,
            exposure=arguments.exposure,
            precision=arguments.precision,
            device=arguments.device,
            progress=progress,
        )
    if progress:
        progress.close()
    if not arguments.quiet:
        for warning in caught:
            print(f"jaxglm: warning: {warning.message}", file=sys.stderr)
        lost = int(result.dropped.sum())
        if lost or result.n_unassigned:
            print(f"jaxglm: left out {lost} rows with missing values, {result.n_unassigned} without a group", file=sys.stderr)
    _write(result, arguments)
    failed = bool((result.solution.status != Status.CONVERGED).any())
    return 3 if arguments.strict and failed else 0


def _needed(path: str, formula: str, others: list[str]) -> list[str]:
    """The columns to read."""
    from jaxglm import files
    from jaxglm.errors import did_you_mean
    from jaxglm.formula import parse

    known = files.schema(path)
    wanted = [*parse(formula, columns=known, exclude=others).variables, *others]
    for name in wanted:
        if known.count(name) > 1:
            raise ValueError(f"{path} has {known.count(name)} columns called {name!r}; rename all but one")
        if name not in known:
            raise ValueError(f"{path} has no column {name!r}.{did_you_mean(name, known)} Its columns: {listed(known, 20)}")
    return list(dict.fromkeys(wanted))


def _family(arguments: argparse.Namespace) -> Any:
    """The family, its link and its shape from the arguments."""
    from jaxglm import families, links

    shapes = {}
    for name in ("theta", "power"):
        value = getattr(arguments, name)
        if value is not None:
            try:
                shapes[name] = float(value)
            except ValueError:
                shapes[name] = value
    if arguments.adjusted:
        shapes["adjusted"] = True
    link: Any = arguments.link
    if link is not None and link.replace(" ", "").lower().startswith("power("):
        try:
            link = links.Power(float(link[link.index("(") + 1 : link.rindex(")")]))
        except ValueError:
            raise ValueError(f"the link {arguments.link!r} must be power(k) with a number k") from None
    return families.named(arguments.family, link, **shapes)


def _write(result: Any, arguments: argparse.Namespace) -> None:
    """Write the tables to files, or tidy to standard output."""
    from jaxglm import files

    if arguments.out is None:
        files.write_csv(result.tidy(), sys.stdout.buffer)
        return
    ending = FORMATS[arguments.format or files.format_of(arguments.data)]
    directory = Path(arguments.out)
    for name, table in (("tidy", result.tidy()), ("glance", result.glance())):
        files.write(table, directory / f"{name}{ending}")
        if not arguments.quiet:
            print(f"jaxglm: wrote {directory / f'{name}{ending}'}", file=sys.stderr)


def run_info(arguments: argparse.Namespace) -> int:
    """`jaxglm info`."""
    import importlib.metadata
    import platform

    import jax

    from jaxglm import __version__

    print(f"jaxglm      {__version__}")
    print(f"python      {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    for name in ("jax", "jaxlib", "numpy", "scipy", "formulaic", "narwhals", "pandas", "polars", "pyarrow", "matplotlib"):
        try:
            print(f"{name:11} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name:11} not installed")
    print(f"devices     {', '.join(f'{device.device_kind} ({device.platform})' for device in jax.devices())}")
    print(f"compiled    kept in {jax.config.values['jax_compilation_cache_dir']}")
    return 0


def run_demo(arguments: argparse.Namespace) -> int:
    """`jaxglm demo`."""
    from jaxglm import demo

    demo.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
