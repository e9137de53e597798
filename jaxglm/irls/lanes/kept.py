"""Machine code that outlives a process, in the folder where JAX keeps its own (`jax_compilation_cache_dir`).

A file holds one part of a program and is named after all that its code depends on: the text, the compiler and the processor.
It begins with a checksum, since code that came to harm would not fail but do something else. JAX's settings hold: no folder,
nothing kept; and only programs that took `jax_persistent_cache_min_compile_time_secs` are worth files. A folder that cannot be
used is no error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import jax

log = logging.getLogger(__name__)
CHECK = 32  # bytes of a checksum


@dataclass(frozen=True)
class MachineCode:
    """What was compiled. code: in bytes; file: where it is or would be kept, None if nowhere; seconds: until it was made,
    zero if it was there."""

    code: bytes
    file: Path | None
    seconds: float


def looked_up(what: tuple[str, ...], make: Callable[[], bytes]) -> MachineCode:
    """The code that depends on `what`: from the folder, or made."""
    folder = _folder()
    name = hashlib.sha256("\0".join(what).encode()).hexdigest()
    file = None if folder is None else folder / f"jaxglm-{name}"
    code, begin = None if file is None else _read(file), perf_counter()
    return MachineCode(make(), file, perf_counter() - begin) if code is None else MachineCode(code, file, 0.0)


def keep(codes: Sequence[MachineCode]) -> None:
    """Keep what is used together, if making it took long enough together."""
    if sum(code.seconds for code in codes) >= jax.config.values["jax_persistent_cache_min_compile_time_secs"]:
        for code in codes:
            if code.file is not None and code.seconds > 0.0:
                _write(code.file, code.code)


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
