"""Products x W^T of up to 16 rows on CUDA: one Triton kernel whose results do not depend on the batch.

cuBLAS chooses another kernel, and with it another order of summation, for another number of rows. Here the
order depends on the weight's shape only, so a row has the same product alone and among 15 others.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia import cpu_ops

ROWS = 16
"""Maximum rows of the kernel: those of 8 slots. More rows are multiplied by cuBLAS."""
BLOCK_OUT, BLOCK_IN = 64, 128
"""Outputs of a kernel program, and inputs that it reads at once."""
PROGRAMS = 512
"""Target number of programs per launch: a few for each of a large GPU's 132 to 192 multiprocessors."""
MAX_SPLITS = 16
"""Maximum splits. A split is one program's share of the inputs."""
LEAST_INPUTS = 2 * BLOCK_IN
"""Minimum inputs of a split."""
BLOCK_GATE = 1024
"""Elements of a row that one program gates."""


def split_count(outputs: int, inputs: int) -> int:
    """Return the number of splits for a weight [outputs, inputs], a power of two."""
    wanted = min(PROGRAMS // block_count(outputs), inputs // LEAST_INPUTS, MAX_SPLITS)
    return 1 << max(0, wanted.bit_length() - 1)


def block_count(outputs: int) -> int:
    return -(-outputs // BLOCK_OUT)


def new_arrivals(weight: Tensor) -> Tensor:
    """Return the counters that products with `weight` need; 0 between launches."""
    return torch.zeros(block_count(len(weight)), dtype=torch.int32, device=weight.device)


def fused_product(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    arrivals: Tensor,
    *,
    wide: bool = False,
    gated: bool = False,
) -> Tensor:
    """Return x W^T for x [1 to 16, in] in 16 bits; in one kernel, which sums in fp32.

    The weight [out, in] is in x's dtype, or in int8 with a `scale` [out]. The result is fp32 if `wide`. If
    `gated`, x [1 to 16, 2 * in] is gated in the same kernel.
    """
    from dia_server.engine.dia.kernels import product_kernel

    outputs, inputs = weight.shape
    assert len(x) <= ROWS
    assert x.shape[1] == inputs * (1 + gated)
    assert x.is_contiguous()
    assert weight.is_contiguous()
    splits = split_count(outputs, inputs)
    out = x.new_empty(len(x), outputs, dtype=torch.float32 if wide else x.dtype)
    partial = out if splits == 1 else x.new_empty(splits, ROWS, outputs, dtype=torch.float32)
    product_kernel[(block_count(outputs), splits)](
        x,
        weight,
        x if scale is None else scale,
        partial,
        out,
        arrivals,
        len(x),
        outputs,
        inputs,
        GATED=gated,
        INT8=scale is not None,
        SPLITS=splits,
        BLOCK_OUT=BLOCK_OUT,
        BLOCK_IN=BLOCK_IN,
        num_warps=4,
        num_stages=3,
    )
    return out


def gate(x: Tensor) -> Tensor:
    """Return silu(a) * b [..., n] for x [..., 2n]: a is its first half, b its second (SwiGLU)."""
    if cpu_ops.suits(x):
        return cpu_ops.gate(x)
    first, second = x.chunk(2, -1)
    return F.silu(first) * second


def fused_gate(x: Tensor) -> Tensor:
    """Compute `gate` in one kernel, which rounds once."""
    from dia_server.engine.dia.kernels import gate_kernel

    rows, width = x.shape[:-1].numel(), x.shape[-1] // 2
    out = x.new_empty(*x.shape[:-1], width)
    gate_kernel[(rows, -(-width // BLOCK_GATE))](x.contiguous(), out, width, BLOCK=BLOCK_GATE)
    return out


def plain_product(
    x: Tensor, weight: Tensor, scale: Tensor | None, *, wide: bool = False, gated: bool = False
) -> Tensor:
    """Compute `fused_product` by plain PyTorch operations, for any x [..., in]."""
    if gated:
        x = gate(x)
    if scale is not None:
        weight = dequantize(weight, scale, x.dtype)
    if wide and x.is_cuda and x.dtype != torch.float32 and torch.version.hip is None:
        return torch.mm(x, weight.t(), out_dtype=torch.float32)
    product = F.linear(x, weight)
    return product.float() if wide else product


def dequantize(values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight [out, in] of int8 `values` and their scales [out]."""
    return (values * scale[:, None]).to(dtype)


def multiply(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    arrivals: Tensor,
    *,
    wide: bool = False,
    gated: bool = False,
) -> Tensor:
    """Return x W^T for x [..., in]: by the kernel for up to 16 rows in 16 bits, else by cuBLAS.

    If `gated`, x is [..., 2 * in].
    """
    if not torch.compiler.is_compiling() and not _is_fused(x):
        return _unfused_product(x, weight, scale, wide=wide, gated=gated)
    made: Tensor = product(x, weight, scale, arrivals, wide, gated)
    return made


def _is_fused(x: Tensor) -> bool:
    return x.is_cuda and x.dtype != torch.float32 and x.shape[:-1].numel() <= ROWS


def _unfused_product(x: Tensor, weight: Tensor, scale: Tensor | None, *, wide: bool, gated: bool) -> Tensor:
    if gated and x.is_cuda:
        return plain_product(fused_gate(x), weight, scale, wide=wide)
    return plain_product(x, weight, scale, wide=wide, gated=gated)


# opaque to the compiler, which compiles a step once for all batches above 1
@torch.library.custom_op("dia_server::product", mutates_args=())
def product(
    x: Tensor, weight: Tensor, scale: Tensor | None, arrivals: Tensor, wide: bool, gated: bool
) -> Tensor:
    """Compute `multiply` as one operation of a compiled step."""
    if not _is_fused(x):
        return _unfused_product(x, weight, scale, wide=wide, gated=gated)
    made = fused_product(x.flatten(0, -2).contiguous(), weight, scale, arrivals, wide=wide, gated=gated)
    return made.view(*x.shape[:-1], -1)


@product.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor | None, arrivals: Tensor, wide: bool, gated: bool) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight), dtype=torch.float32 if wide else x.dtype)
