"""Dia's weights as the decode step reads them: fused, on the device and, for CPUs, packed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia.model_config import ModelConfig

PACK_ROWS = 16
"""Batch size for which oneDNN chooses its blocked layout; other sizes run on that layout too."""
FBGEMM = "fbgemm" in torch.backends.quantized.supported_engines
"""Whether this CPU (x86 with AVX2) can multiply fp32 activations by weights stored in fp16."""

Rotation = tuple[Tensor, Tensor]
"""RoPE's cosines and signed sines [positions, head_dim], in fp32."""


def compute_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype of activations and the self-attention KV cache for weights in `dtype`.

    It is `dtype`, except fp32 for fp16 weights on CPUs with FBGEMM.
    """
    return torch.float32 if device.type == "cpu" and dtype == torch.float16 and FBGEMM else dtype


class Linear:
    """Computes x W^T for a weight W [out, in].

    On CPUs W is packed once, for oneDNN or as fp16 for FBGEMM. oneDNN would otherwise pack W in each call.
    FBGEMM reads half the bytes of fp32 and is faster for small batches. On GPUs W stays as it is.
    """

    __slots__ = ("_multiply", "_weight")

    def __init__(self, weight: Tensor, *, as_fp16: bool = False) -> None:
        """Pack `weight`. `as_fp16` (CPUs only) stores an fp32 weight in fp16; x stays in fp32."""
        self._multiply: Callable[[Tensor, Tensor], Tensor] = F.linear
        self._weight = weight
        if as_fp16:
            self._multiply = torch.ops.quantized.linear_dynamic_fp16
            self._weight = torch.ops.quantized.linear_prepack_fp16(weight, None)
        elif _multiplied_by_onednn(weight):
            self._multiply = _onednn
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACK_ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        return self._multiply(x, self._weight)

    def wide(self, x: Tensor) -> Tensor:
        """Return the product in fp32; NVIDIA GPUs do not round it to 16 bits before."""
        if x.is_cuda and x.dtype != torch.float32 and torch.version.hip is None:
            return torch.mm(x, self._weight.t(), out_dtype=torch.float32)
        return self(x).float()


def _onednn(x: Tensor, packed: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    return product


def _multiplied_by_onednn(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    in_bf16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32 or in_bf16


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Weights that encoder and decoder layers have in common: self-attention and MLP."""

    attention_norm: Tensor
    qkv: Linear
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
    eps: float

    def norm_qkv(self, x: Tensor) -> Tensor:
        return self.qkv(rms_norm(x, self.attention_norm, self.eps))

    def mlp(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(rms_norm(x, self.mlp_norm, self.eps)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    embedding: Tensor
    blocks: list[Block]
    norm: Tensor
    rotation: Rotation
    heads: int
    head_dim: int
    eps: float


@dataclass(frozen=True, slots=True, eq=False)
class DecoderLayer:
    block: Block
    text_norm: Tensor
    text_q: Linear
    text_out: Linear
    uncond_cross_attention: Tensor
    """[1, hidden]: the cross-attention's output for the unconditional row, a constant.

    The unconditional text is NUL bytes only, so all its values are equal, and their softmax-weighted mean is
    that value, whatever the query.
    """


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    config: ModelConfig
    device: torch.device
    dtype: torch.dtype
    """Dtype of activations and the self-attention KV cache."""
    bytes: int
    """Bytes of all weights in memory."""
    encoder: Encoder
    text_kv: Linear
    """Projection of encoder states to the keys and values of every layer's cross-attention."""
    embedding: Tensor
    """[channels * vocabulary, hidden]: embedding of each channel's tokens."""
    channel_offset: Tensor
    """[channels]: first row of each channel in `embedding`."""
    layers: list[DecoderLayer]
    norm: Tensor
    head: Linear
    delay: Tensor
    """[channels]: delay of each channel in columns."""
    rotation: Rotation


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def rotation(positions: int, head_dim: int, theta: float, device: torch.device) -> Rotation:
    """Return RoPE's tables (RoFormer, arXiv 2104.09864) in GPT-NeoX's layout of two rotated halves."""
    frequency = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angle = torch.outer(torch.arange(positions, dtype=torch.float32), frequency)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1).to(device), torch.cat([-sin, sin], -1).to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE's tables to x [..., head_dim], in fp32: bf16 would be imprecise and no faster."""
    wide = x.float()
    swapped = wide.view(*x.shape[:-1], 2, -1).flip(-2).view(x.shape)
    return torch.addcmul(wide * cos, swapped, sin).to(x.dtype)
