"""The compiler behind the lanes: LLVM, by way of llvmlite, for the CPU that this runs on."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jaxglm.irls.lanes.kept import MachineCode, keep, looked_up

# Programs are written as they should run. All of LLVM's improvements together make some kernels faster by a tenth and others
# slower, and take as long as the rest of compiling.
PASSES = ("instruction_combine", "loop_rotate")
LEVEL = 1  # of code generation


@dataclass(frozen=True)
class Compiled:
    """Machine code. address: of its function; owner: what keeps it in memory."""

    address: int
    owner: Any


def target() -> Any:
    """The machine to compile for, a new one each time: it belongs to what is compiled."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features()
    made = binding.Target.from_default_triple()
    return made.create_target_machine(cpu=binding.get_host_cpu_name(), features=features.flatten(), opt=LEVEL, jit=True)


@cache
def vector_bytes() -> int:
    """The width of a vector register."""
    from llvmlite import binding

    return 64 if binding.get_host_cpu_features().get("avx512f") else 32


def compiled(text: str) -> MachineCode:
    """The machine code of a program, or of a part of one, whose functions may call those of other parts. Raises RuntimeError
    for what is not a program."""
    return looked_up((text, *PASSES, str(LEVEL), *_processor()), lambda: _object(text, target()))


def linked(parts: Sequence[MachineCode], name: str) -> Compiled:
    """A program's function, from all of its parts."""
    from llvmlite import binding

    keep(parts)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target())
    for part in parts:
        engine.add_object_file(binding.ObjectFileRef.from_data(part.code))
    engine.finalize_object()
    return Compiled(engine.get_function_address(name), engine)


def _processor() -> tuple[str, ...]:
    """The compiler and what it compiles for."""
    import llvmlite
    from llvmlite import binding

    version = ".".join(map(str, binding.llvm_version_info))
    return llvmlite.__version__, version, binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


def _object(text: str, machine: Any) -> bytes:
    """A program as an object file."""
    from llvmlite import binding

    module = binding.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    passes = binding.create_new_module_pass_manager()
    for each in PASSES:
        getattr(passes, f"add_{each}_pass")()
    passes.run(module, binding.create_pass_builder(machine, binding.create_pipeline_tuning_options()))
    return machine.emit_object(module)


def called(code: Compiled, begin: int, end: int, table: int) -> None:
    """Call the function of a range and of the address of a table; other threads run while it does."""
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(code.address)(begin, end, table)
