"""Results in files: everything but the rows.

One NumPy archive of arrays, with the names in JSON. A formula's design holds functions of the formula, which Python can
only pickle, so load only files that you trust; a formula runs Python code in any case.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxglm import families, links
from jaxglm.bootstrap import Bootstrap
from jaxglm.family import Family
from jaxglm.groups import Groups
from jaxglm.irls.solution import Solution

FORMAT = 1


def save(result: Any, path: Any) -> None:
    """Write a result, atomically. Raises OSError where the path cannot be written."""
    path = Path(path)
    family = result.family
    meta = {
        "format": FORMAT,
        "names": list(result.names),
        "family": _arguments(family),
        "keys": None if result.keys is None else list(result.keys.names),
        "positional": result.keys is not None and result.keys.positional,
        "n_unassigned": int(result.n_unassigned),
        "has_offset": bool(result.has_offset),
        "covariance_type": result.covariance_type,
        "weights_kind": result.weights_kind,
    }
    arrays = {f"solution_{f.name}": getattr(result.solution, f.name) for f in dataclasses.fields(Solution)}
    arrays["dropped"] = result.dropped
    if result.degrees is not None:
        arrays["degrees"] = result.degrees
    if result.bootstrapped is not None:
        meta["intervals"] = result.bootstrapped.intervals
        arrays["replicates"] = result.bootstrapped.coefficients
        if result.bootstrapped.acceleration is not None:
            arrays["acceleration"] = result.bootstrapped.acceleration
    if result.shape_errors is not None:
        arrays["shape_errors"] = result.shape_errors
    arrays |= {f"family_{name}": np.asarray(value) for name, value in family.parameters.items()}
    if result.keys is not None:
        for i, key in enumerate(result.keys.keys):
            arrays[f"key_{i}"], meta[f"key_{i}"] = _plain(key)
    table = result.table
    if table is not None:
        meta["table"] = {"by": list(table.by), "offset": table.offset, "exposure": table.exposure, "kind": str(table.kind)}
        meta["levels"] = None if table.levels is None else [str(level) for level in table.levels]
        if table.design is not None:
            arrays["design"] = np.frombuffer(table.design.to_bytes(), np.uint8)
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    draft = path.with_name(path.name + ".part")
    try:
        with open(draft, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def load(path: Any, family: Family | None = None) -> Any:
    """Read a result that `GLMResults.save` wrote. A formula in it is a pickle: load only files that you trust.

    family: needed where it was one of your own, which a file cannot hold. The rows are not in the file: what is computed
    row by row raises ValueError; `predict` works. Raises FileNotFoundError, and ValueError for other files.
    """
    from jaxglm.results import GLMResults
    from jaxglm.tables import Table

    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(arrays["meta"].tobytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {str(path)!r}") from None
    except Exception as error:
        raise ValueError(f"{str(path)!r} is not a result that jaxglm saved, or it is damaged ({error})") from None
    if meta["format"] != FORMAT:
        raise ValueError(f"{str(path)!r} was written by another version of jaxglm (format {meta['format']}); fit again")
    keys = None
    if meta["keys"] is not None:
        columns = tuple(_restored(arrays[f"key_{i}"], meta[f"key_{i}"]) for i in range(len(meta["keys"])))
        keys = Groups(tuple(meta["keys"]), columns, np.zeros(0, np.int64), meta["positional"])
    table = None
    if "table" in meta:
        from jaxglm import formula, frames

        design = formula.Spec.from_bytes(arrays["design"].tobytes()) if "design" in arrays else None
        about = meta["table"]
        table = Table(
            kind=frames.Kind(about["kind"]),
            data=None,
            design=design,
            by=tuple(about["by"]),
            offset=about["offset"],
            exposure=about["exposure"],
            levels=None if meta["levels"] is None else (meta["levels"][0], meta["levels"][1]),
        )
    return GLMResults(
        solution=Solution(**{f.name: arrays[f"solution_{f.name}"] for f in dataclasses.fields(Solution)}),
        family=_family(meta, arrays) if family is None else family,
        names=meta["names"],
        keys=keys,
        dropped=arrays["dropped"],
        observations=None,
        table=table,
        n_unassigned=meta["n_unassigned"],
        has_offset=meta["has_offset"],
        covariance_type=meta.get("covariance_type", "model"),
        degrees=arrays.get("degrees"),
        weights_kind=meta.get("weights_kind", "prior"),
        bootstrapped=_bootstrap(meta, arrays),
        shape_errors=arrays.get("shape_errors"),
    )


def _bootstrap(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> Bootstrap | None:
    if "intervals" not in meta:
        return None
    return Bootstrap(arrays["replicates"], arrays.get("acceleration"), meta["intervals"])


def _family(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> Family:
    about = meta["family"]
    if about is None:
        raise ValueError("the result was made with a family of your own; give it: jaxglm.load(path, family=...)")
    parameters = {name: _number(arrays[f"family_{name}"]) for name in about["parameters"]}
    link = links.Power(about["exponent"]) if about["exponent"] is not None else links.named(about["link"])
    made = families.named(about["family"], link, **parameters, **about["fixed"])
    return dataclasses.replace(made, estimator=about.get("estimator"))


def _number(values: np.ndarray) -> Any:
    return values.item() if values.ndim == 0 else values


def _plain(key: np.ndarray) -> tuple[np.ndarray, str]:
    """A key column as an array that needs no pickle, and what it was. Raises TypeError for keys that cannot be kept."""
    if key.dtype.kind not in "OT":
        return key, "array"
    values = [value.item() if isinstance(value, np.generic) and value.dtype.kind in "Ubiuf" else value for value in key]
    kinds = {type(value) for value in values}
    if kinds <= {str}:
        return np.asarray(values, dtype=np.str_), "objects"
    if kinds <= {datetime.date}:
        return np.asarray(values, dtype="datetime64[D]"), "objects"
    if kinds <= {int, float, bool, str}:
        return np.frombuffer(json.dumps(values).encode(), np.uint8), "json"
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise TypeError(f"group keys of type {names} cannot be saved; make them text or numbers before fitting")


def _restored(values: np.ndarray, kind: str) -> np.ndarray:
    if kind == "array":
        return values
    items = values.tolist() if kind == "objects" else json.loads(values.tobytes())
    out = np.empty(len(items), object)
    out[:] = items
    return out


def _arguments(family: Family) -> dict[str, Any] | None:
    """How to make one of jaxglm's families again: `families.named(family, link, **parameters, **fixed)`, in which `exponent` is
    that of a `links.Power`, and `parameters` are only named. None for a family or a link of one's own."""
    variances = {functions["variance"]: variance for variance, functions in families.QUASI.items()}
    fixed, parameters = {}, sorted(family.parameters)
    if family.name == "quasi":
        fixed, parameters = {"variance": variances.get(family.variance) or f"mu^{family.parameters.get('power')}"}, []
    exponent = family.link.parameters.get("exponent")
    try:
        link = family.link if exponent is None else links.Power(exponent)
        again = families.named(
            family.name,
            links.named(link.name) if exponent is None else link,
            **fixed,
            **dict(family.parameters if parameters else {}),
        )
        again = dataclasses.replace(again, estimator=family.estimator)
    except (ValueError, TypeError):
        return None
    if str(jax.tree.structure(again)) != str(jax.tree.structure(family)):
        return None
    exponent = None if exponent is None else float(exponent)
    about = {"family": family.name, "link": family.link.name, "exponent": exponent, "estimator": family.estimator}
    return {**about, "parameters": parameters, "fixed": fixed}
