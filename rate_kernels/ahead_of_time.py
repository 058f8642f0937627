"""Compiles Triton kernels for a GPU that need not be here, and reads off what they use."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

SHARED_MEMORY = {
    80: 163 * 1024,
    86: 99 * 1024,
    89: 99 * 1024,
    90: 227 * 1024,
    100: 227 * 1024,
    120: 99 * 1024,
}
"""Bytes of shared memory that one block may use (CUDA C++ Programming Guide, compute capabilities)."""

_POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int8: "*i8",
    torch.bool: "*i1",
}


class Compiled(NamedTuple):
    """What one kernel uses on one architecture; ``shared`` in bytes, ``spills`` in bytes of each thread's stack."""

    shared: int
    registers: int
    spills: int
    ptx: str
    sass: str

    @property
    def tensor_cores(self) -> set[str]:
        """Tensor-core instructions of the PTX: any of ``mma``, ``wgmma``, ``tcgen05``."""
        found = re.findall(r"^\s*(?:@\S+\s+)?(wgmma\.mma_async|tcgen05\.mma|mma)\.", self.ptx, re.MULTILINE)
        return {name.split(".")[0] for name in found}


def compile_kernel(
    kernel: Any,
    arguments: Mapping[str, Any],
    architecture: int,
    *,
    num_warps: int,
    num_stages: int,
    **options: Any,
) -> Compiled:
    """Compiles ``kernel`` as a launch with these arguments would.

    Args:
        kernel: a function under ``triton.jit``, in a process without ``TRITON_INTERPRET``.
        arguments: every argument by name; tensors may be on the meta device (their addresses count as aligned to 16
            bytes, as an allocator gives them).
        architecture: compute capability as one number, such as 90.
        num_warps: warps of a program.
        num_stages: depth of software pipelining.
        options: further launch options, such as ``maxnreg``.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, aligned = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[parameter.name] = _POINTERS[value.dtype]
            aligned[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            free = parameter.do_not_specialize
            if value == 1 and not free:
                signature[parameter.name], constants[parameter.name] = "constexpr", 1
                continue
            signature[parameter.name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0 and not free:
                aligned[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", architecture, 32)
    built = triton.compile(
        source, target=target, options={"num_warps": num_warps, "num_stages": num_stages, **options}
    )
    registers, spills, sass = _inspect(built.asm["cubin"])
    return Compiled(built.metadata.shared, registers, spills, built.asm["ptx"], sass)


def _inspect(binary: bytes) -> tuple[int, int, str]:
    """Registers per thread, bytes of stack that a thread reads or writes, and the machine code."""
    import triton.backends.nvidia

    tools = Path(triton.backends.nvidia.__file__).parent / "bin"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary)
        usage = _output(str(tools / "cuobjdump"), "-res-usage", str(path))
        sass = _output(str(tools / "nvdisasm"), "-c", str(path))
    registers = max(int(x) for x in re.findall(r"REG:(\d+)", usage))
    stack = max(int(x) for x in re.findall(r"STACK:(\d+)", usage))
    used = re.search(r"\b(LDL|STL)\b", sass) is not None  # a stack may be reserved and never touched
    return registers, stack if used else 0, sass


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
