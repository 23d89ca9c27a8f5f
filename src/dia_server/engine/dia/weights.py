"""Dia's weights in the form that the step reads them: fused, on the device, packed for the CPU."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia.model_config import ModelConfig

PACK_ROWS = 16
"""Rows that oneDNN chooses its blocked layout for; any other number runs on it too."""
FBGEMM = "fbgemm" in torch.backends.quantized.supported_engines
"""Whether this is an x86 CPU whose AVX2 multiplies fp32 by weights that lie in memory in fp16."""

Rotation = tuple[Tensor, Tensor]
"""RoPE's cosines and signed sines [positions, head_dim], in fp32."""


def compute_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What activations and caches are in, where the weights are in `dtype`."""
    return torch.float32 if device.type == "cpu" and dtype == torch.float16 and FBGEMM else dtype


class Linear:
    """x W^T for W [out, in].

    On a CPU W is packed once: for oneDNN, which else does so in each call, or as fp16 for FBGEMM, which
    reads half as much, and whose kernels for a few rows are better besides.
    """

    __slots__ = ("_multiply", "_weight")

    def __init__(self, weight: Tensor, *, as_fp16: bool = False) -> None:
        """`as_fp16` keeps an fp32 `weight` in fp16; x is in fp32 all the same."""
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
    """What encoder and decoder layers have in common."""

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
    """[1, hidden]: what the cross-attention adds to a row without a text.

    That text is all zeros, so its keys and values are the same everywhere, and any softmax over them
    gives the value itself: a constant, whatever the query.
    """


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    config: ModelConfig
    device: torch.device
    dtype: torch.dtype
    """Of activations and caches."""
    bytes: int
    encoder: Encoder
    text_kv: Linear
    """Encoder states to the keys and values of every layer's cross-attention, layer by layer."""
    embedding: Tensor
    """[channels * vocabulary, hidden]."""
    channel_offset: Tensor
    """[channels]: where a channel begins in `embedding`."""
    layers: list[DecoderLayer]
    norm: Tensor
    head: Linear
    delay: Tensor
    """[channels]."""
    rotation: Rotation


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def rotation(positions: int, head_dim: int, theta: float, device: torch.device) -> Rotation:
    """RoPE as in RoFormer (arXiv 2104.09864), halves rotated against each other as GPT-NeoX does."""
    frequency = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angle = torch.outer(torch.arange(positions, dtype=torch.float32), frequency)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1).to(device), torch.cat([-sin, sin], -1).to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x [..., head_dim] by its position, in fp32: bf16 angles cost precision at no gain."""
    wide = x.float()
    swapped = wide.view(*x.shape[:-1], 2, -1).flip(-2).view(x.shape)
    return torch.addcmul(wide * cos, swapped, sin).to(x.dtype)
