"""Matrix products x W^T: the weights as each device multiplies by them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dia_server.engine.dia import cpu_ops
from dia_server.engine.dia.products import gate, multiply, new_arrivals, plain_product

PACK_ROWS = 16
"""Batch size for which oneDNN chooses its blocked layout; other sizes run on that layout too."""
FBGEMM = "fbgemm" in torch.backends.quantized.supported_engines
"""Whether this CPU (x86 with AVX2) can multiply fp32 activations by weights stored in fp16."""
INT8_ROWS = 64
"""Maximum rows of an int8 product by oneDNN, and the batch size for which its weights are packed.

With more rows, as in a prefill, it is faster to dequantize the weights in each product.
"""
PART = 128.0
"""Weight of the high part of an activation in an int8 product by oneDNN; the low part has weight 1."""
LEVELS = 63.5 * PART
"""Largest activation in an int8 product by oneDNN. Both parts are then -64 to 64."""


class Linear:
    """Computes x W^T for a weight W [out, in], which `pack` or `pack_int8` has prepared."""

    __slots__ = ("_fuses", "_multiply", "_operands")

    def __init__(self, multiply: Callable[..., Tensor], *operands: Any, fuses: bool = False) -> None:
        """`multiply` is called with x and the `operands`; if it `fuses`, it takes `wide` and `gated` too."""
        self._multiply, self._operands, self._fuses = multiply, operands, fuses

    def __call__(self, x: Tensor) -> Tensor:
        return self._multiply(x, *self._operands)

    def wide(self, x: Tensor) -> Tensor:
        """Return the product in fp32; NVIDIA GPUs do not round it to 16 bits before."""
        if self._fuses:
            return self._multiply(x, *self._operands, wide=True)
        return self(x).float()

    def gated(self, x: Tensor) -> Tensor:
        """Return the product of `gate(x)`, for x [..., 2 * in]."""
        if self._fuses:
            return self._multiply(x, *self._operands, gated=True)
        return self(gate(x))


def pack(weight: Tensor, *, as_fp16: bool = False, loops: bool = False, kernels: bool = True) -> Linear:
    """Prepare `weight` for its device. `as_fp16` (CPUs only) stores an fp32 weight in fp16; x stays in fp32.

    On CPUs the weight is packed once: for oneDNN, as fp16 for FBGEMM, or for `loops` of our own. oneDNN would
    otherwise pack it in each call. FBGEMM reads half the bytes of fp32 and is faster for small batches. On
    GPUs it stays as it is. `kernels` tells whether CUDA devices can run Triton's kernels.
    """
    if loops:
        return Linear(cpu_ops.multiply_bf16, cpu_ops.pack_bf16(weight), len(weight))
    if as_fp16:
        packed = torch.ops.quantized.linear_prepack_fp16(weight, None)
        return Linear(torch.ops.quantized.linear_dynamic_fp16, packed)
    if _multiplied_by_onednn(weight):
        return Linear(_onednn, torch.ops.mkldnn._reorder_linear_weight(weight, PACK_ROWS))
    return _unpacked(weight, None, kernels=kernels)


def pack_int8(values: Tensor, scale: Tensor, *, kernels: bool = True) -> Linear:
    """Prepare a weight that `quantize` returned.

    The products' error is that of the weight's rounding, and on CPUs that of the activations' too: see
    `cpu_ops.multiply_bytes` and `_int8_onednn`.
    """
    if values.device.type == "cpu" and cpu_ops.multiplies_bytes():
        return Linear(cpu_ops.multiply_bytes, cpu_ops.pack_bytes(values), scale.numpy())
    if values.device.type == "cpu" and FBGEMM and torch._C._has_mkldnn:
        packed = torch.ops.onednn.qlinear_prepack(values, [INT8_ROWS, values.shape[1]])
        return Linear(_int8_onednn, packed, scale, torch.zeros(len(scale), dtype=torch.int32))
    return _unpacked(values, scale, kernels=kernels)


def _unpacked(weight: Tensor, scale: Tensor | None, *, kernels: bool) -> Linear:
    if kernels and weight.device.type == "cuda":
        return Linear(multiply, weight, scale, new_arrivals(weight), fuses=True)
    return Linear(plain_product, weight, scale, fuses=True)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values [out, in] and fp32 scales [out] for an fp32 weight [out, in].

    A scale is the largest magnitude of its row divided by 127. values * scale differs from the weight by at
    most half a scale.
    """
    scale = (weight.abs().amax(1) / 127).clamp_min_(torch.finfo(torch.float32).tiny)
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def _onednn(x: Tensor, packed: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    return product


def _multiplied_by_onednn(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    in_bf16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32 or in_bf16


def _int8_onednn(x: Tensor, packed: Tensor, scale: Tensor, zeros: Tensor) -> Tensor:
    """Return x W^T by oneDNN, for CPUs without VNNI.

    Activations are rounded to 14 bits. Their high and low 7 bits are two rows of one int8 product: such a CPU
    adds two products in 16 bits, where 7 bits times 8 cannot overflow.
    """
    rows = x.flatten(0, -2)
    if len(rows) > INT8_ROWS:
        return plain_product(x, packed.to_dense().t(), scale)
    rows = rows.float()
    step = (rows.abs().amax(-1, keepdim=True) / LEVELS).clamp_min_(torch.finfo(torch.float32).tiny)
    whole = rows / step
    high = (whole * (1 / PART)).round_()
    low = torch.add(whole, high, alpha=-PART)
    # unsigned, with the zero point 64; the half rounds `low`
    parts = torch.cat([high, low]).add_(64.5).to(torch.uint8)
    product = torch.ops.onednn.qlinear_pointwise(
        parts, 1.0, 64, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    high, low = product.chunk(2)
    return torch.add(low, high, alpha=PART).mul_(step).to(x.dtype).view(*x.shape[:-1], -1)
