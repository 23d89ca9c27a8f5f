"""The Triton kernels compile for each generation of NVIDIA's GPUs and fit it. They are compiled, not run."""

import pytest

pytest.importorskip("triton", reason="Triton has no wheel for this platform")

from tests.engine.dia import aot

SHARED = 99 << 10
"""Bytes of shared memory that a program can have on the GPUs with the least, RTX 30, 40 and 50."""


@pytest.mark.parametrize("capability", aot.CAPABILITIES)
@pytest.mark.parametrize(
    "kernel",
    [
        aot.attention("bf16", to_itself=True, splits=4),
        aot.commit(),
        aot.product("bf16", int8=True, splits=16, gated=True),
    ],
    ids=("self-attention", "commit", "gated int8 product"),
)
def test_the_kernels_of_a_step_compile_without_spills(kernel: aot.Kernel, capability: int) -> None:
    check(kernel, capability)


@pytest.mark.full
@pytest.mark.parametrize("capability", aot.CAPABILITIES)
def test_every_kernel_compiles(capability: int) -> None:
    for kernel in aot.every_kernel():
        check(kernel, capability)


def check(kernel: aot.Kernel, capability: int) -> None:
    usage = kernel.compile(capability)
    assert usage.shared <= SHARED
    # no register is spilled; CUDA's sine has an array of its own, for large angles
    assert usage.stack == (32 if kernel.name.startswith("Snake") else 0)
    assert 16 <= usage.registers < 255
