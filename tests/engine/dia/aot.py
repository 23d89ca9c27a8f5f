"""Compiles the engine's Triton kernels for GPUs that are not there, by Triton and the ptxas of its wheel.

python -m tests.engine.dia.aot      prints registers, stack and shared memory as a table
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton  # type: ignore[import-untyped]
from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped]
from triton.compiler import ASTSource  # type: ignore[import-untyped]

from dia_server.engine.dia.attention import BLOCK
from dia_server.engine.dia.kernels import (
    attend_kernel,
    commit_kernel,
    gate_kernel,
    product_kernel,
    snake_kernel,
)
from dia_server.engine.dia.products import BLOCK_GATE, BLOCK_IN, BLOCK_OUT
from dia_server.engine.dia.step_ops import COMMIT_BLOCK

CAPABILITIES = (80, 86, 89, 90, 100, 120)
"""Compute capabilities: A100, RTX 30, RTX 40, H100 and H200, B200, RTX 50."""
COUNTS = ("batch", "rows")
"""Integers that can be any number; others, and all pointers, are multiples of 16, as at the real sizes."""
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


@dataclass(frozen=True)
class Usage:
    """What a program of a compiled kernel takes."""

    registers: int
    stack: int
    """Bytes of stack per thread: spilled registers and arrays."""
    shared: int
    """Bytes of shared memory."""


@dataclass(frozen=True)
class Kernel:
    """A kernel with the types of its arguments; those not in `types` are constants."""

    name: str
    function: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    options: Mapping[str, int]

    def compile(self, capability: int) -> Usage:
        """Compile for a GPU."""
        names: list[str] = self.function.arg_names
        source = ASTSource(
            fn=self.function,
            signature={name: self.types.get(name, "constexpr") for name in names},
            constexprs={(names.index(name),): value for name, value in self.constants.items()},
            attrs={
                (names.index(name),): [["tt.divisibility", 16]] for name in self.types if name not in COUNTS
            },
        )
        target = GPUTarget("cuda", capability, 32)
        return usage(triton.compile(source, target=target, options=dict(self.options)))


def usage(compiled: Any) -> Usage:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(TOOLS / "cuobjdump"), "-res-usage", file.name]
        shown = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", shown.stdout + shown.stderr)
    assert found is not None
    registers, stack, local = map(int, found.groups())
    return Usage(registers, stack + local, compiled.metadata.shared)


def attention(dtype: str, *, to_itself: bool, splits: int) -> Kernel:
    """Return the attention kernel as it is launched for the real model."""
    types = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), f"*{dtype}")
    types |= dict.fromkeys(("cos_ptr", "sin_ptr"), "*fp32" if to_itself else f"*{dtype}")
    types |= dict.fromkeys(("slots_ptr", "lengths_ptr"), "*i64")
    types |= {"partial_ptr": "*fp32", "scale_ptr": "*fp32"} if splits > 1 else unused(dtype)
    types |= {"arrivals_ptr": "*i32"}
    types |= dict.fromkeys(("batch", "columns", "q_stride", "row_stride", "head_stride"), "i32")
    block, stages = (BLOCK // 2, 2) if dtype == "fp32" else (BLOCK, 3)
    constants = {
        "SELF": to_itself,
        "GROUP": 4 if to_itself else 1,
        "DIM": 128,
        "SPLITS": splits,
        "BLOCK": block,
    }
    name = f"{'self' if to_itself else 'cross'}-attention, {dtype}, splits: {splits}"
    return Kernel(name, attend_kernel, types, constants, {"num_warps": 4, "num_stages": stages})


def unused(dtype: str) -> dict[str, str]:
    """Return the types of what is passed for a row that is not split: its result, and the counters."""
    return {"partial_ptr": f"*{dtype}", "scale_ptr": "*i32"}


def commit() -> Kernel:
    types = dict.fromkeys(("grid_ptr", "position_ptr", "end_ptr", "eos_at_ptr", "delay_ptr"), "*i64")
    types |= dict.fromkeys(("slots_ptr", "tokens_ptr"), "*i64") | {"logits_ptr": "*fp32"}
    types |= dict.fromkeys(("live_ptr", "broken_ptr"), "*i1") | dict.fromkeys(("batch", "columns"), "i32")
    constants = {
        "EOS": 1024,
        "PAD": 1025,
        "TAIL": 15,
        "CHANNELS": 9,
        "WIDTH": 9 * 1028,
        "BLOCK": COMMIT_BLOCK,
    }
    return Kernel("commit", commit_kernel, types, constants, {"num_warps": 8})


def product(dtype: str, *, int8: bool, splits: int, wide: bool = False, gated: bool = False) -> Kernel:
    """Return the product's kernel as it is launched for the real model; the logits are `wide`."""
    out = "*fp32" if wide else f"*{dtype}"
    types = {"x_ptr": f"*{dtype}", "weight_ptr": "*i8" if int8 else f"*{dtype}"}
    types |= {"scale_ptr": "*fp32" if int8 else f"*{dtype}", "partial_ptr": "*fp32" if splits > 1 else out}
    types |= {"out_ptr": out, "arrivals_ptr": "*i32"} | dict.fromkeys(("rows", "outputs", "inputs"), "i32")
    constants = {"GATED": gated, "INT8": int8, "SPLITS": splits, "BLOCK_OUT": BLOCK_OUT, "BLOCK_IN": BLOCK_IN}
    weight = "int8" if int8 else dtype
    kind = "gated product" if gated else "product"
    name = f"{kind}, {dtype} by {weight}{', to fp32' if wide else ''}, splits: {splits}"
    return Kernel(name, product_kernel, types, constants, {"num_warps": 4, "num_stages": 3})


def gate() -> Kernel:
    types = {"x_ptr": "*bf16", "out_ptr": "*bf16", "width": "i32"}
    return Kernel("gate, bf16", gate_kernel, types, {"BLOCK": BLOCK_GATE}, {})


def snake(dtype: str) -> Kernel:
    """Return the codec's activation as it is launched in `dtype`: in fp16 the channels are last."""
    types = dict.fromkeys(("x_ptr", "out_ptr"), f"*{dtype}")
    types |= dict.fromkeys(("alpha_ptr", "inverse_ptr"), "*fp32") | {"frames_ptr": "*i64"}
    types |= dict.fromkeys(("channels", "time", "scale"), "i32")
    constants = {"CHANNELS_LAST": dtype == "fp16", "PADDED": True, "BLOCK": 1024}
    return Kernel(f"Snake, {dtype}", snake_kernel, types, constants, {})


def every_kernel() -> list[Kernel]:
    return [
        *(
            attention(dtype, to_itself=to_itself, splits=splits)
            for dtype in ("bf16", "fp16", "fp32")
            for to_itself in (True, False)
            for splits in (1, 4, 32)
        ),
        *(
            product(dtype, int8=int8, splits=splits)
            for dtype in ("bf16", "fp16")
            for int8 in (False, True)
            for splits in (2, 16)
        ),
        product("bf16", int8=False, splits=1),
        product("bf16", int8=False, splits=2, wide=True),
        *(
            product(dtype, int8=int8, splits=16, gated=True)
            for dtype in ("bf16", "fp16")
            for int8 in (False, True)
        ),
        gate(),
        commit(),
        snake("fp32"),
        snake("fp16"),
    ]


def main() -> None:
    print("| kernel |", " | ".join(f"sm_{capability}" for capability in CAPABILITIES), "|")
    print("|---" * (len(CAPABILITIES) + 1) + "|")
    for kernel in every_kernel():
        found = [kernel.compile(capability) for capability in CAPABILITIES]
        cells = (f"{one.registers}, {one.stack}, {one.shared}" for one in found)
        print(f"| {kernel.name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
