"""Machine code that outlives a process, in the folder where JAX keeps its own (`jax_compilation_cache_dir`).

A file is named after all that its code depends on: the program, the compiler and the processor. It begins with a checksum,
since code that came to harm would not fail but do something else. JAX's settings hold: no folder, nothing kept; and only
what took `jax_persistent_cache_min_compile_time_secs` is worth a file. A folder that cannot be used is no error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import jax

log = logging.getLogger(__name__)
CHECK = 32  # bytes of a checksum


def kept(what: tuple[str, ...], make: Callable[[], bytes]) -> bytes:
    """The code that depends on `what`: from the folder, or made."""
    folder = _folder()
    if folder is None:
        return make()
    name = hashlib.sha256("\0".join(what).encode()).hexdigest()
    file = folder / f"jaxglm-{name}"
    code = _read(file)
    if code is None:
        begin = perf_counter()
        code = make()
        if perf_counter() - begin >= jax.config.values["jax_persistent_cache_min_compile_time_secs"]:
            _write(file, code)
    return code


def _folder() -> Path | None:
    """Where code is kept, if it is and that is a folder of this machine."""
    values = jax.config.values
    named = values["jax_compilation_cache_dir"] if values["jax_enable_compilation_cache"] else None
    return Path(named) if named and "://" not in str(named) else None


def _read(file: Path) -> bytes | None:
    try:
        whole = file.read_bytes()
    except OSError:
        return None
    check, code = whole[:CHECK], whole[CHECK:]
    return code if hashlib.sha256(code).digest() == check else None


def _write(file: Path, code: bytes) -> None:
    """The whole file or none, whoever else writes it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f"{file.name}-", delete=False) as part:
            part.write(hashlib.sha256(code).digest() + code)
        os.replace(part.name, file)
    except OSError as error:
        log.debug("compiled code is not kept: %s", error)
