"""Dia's weights as the decode step reads them: fused, on the device and, for CPUs, packed."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia import cpu_ops
from dia_server.engine.dia.linear import FBGEMM, Linear
from dia_server.engine.dia.model_config import ModelConfig

Rotation = tuple[Tensor, Tensor]
"""RoPE's cosines and signed sines [positions, head_dim], in fp32."""


def compute_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype of activations and the self-attention KV cache for weights in `dtype`.

    It is `dtype`, except fp32 for fp16 weights on CPUs with FBGEMM.
    """
    return torch.float32 if device.type == "cpu" and dtype == torch.float16 and FBGEMM else dtype


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
        return x + self.down.gated(self.gate_up(rms_norm(x, self.mlp_norm, self.eps)))


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
    if cpu_ops.suits(x):
        return cpu_ops.rms_norm(x, weight, eps)
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
