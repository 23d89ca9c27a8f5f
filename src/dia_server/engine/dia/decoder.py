"""The decode step: samples the next column of every live slot in a batch.

`step` writes to the state's tensors only. With `KernelOps` or `PlainOps` no value reaches the host and shapes
depend on the batch size alone, so `step` compiles as one graph and can be captured as a CUDA graph. With
`CpuOps` shapes depend on the sequences' lengths, and `step` runs eagerly.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia.sampling import sample
from dia_server.engine.dia.state import State
from dia_server.engine.dia.step_ops import KernelOps, MakeOps, StepOps
from dia_server.engine.dia.weights import Weights, rms_norm


def step(weights: Weights, state: State, slots: Tensor, make_ops: MakeOps = KernelOps) -> None:
    """Sample the next column of every live slot among `slots` [B].

    The other slots keep their tokens and position; of their KV cache only the column at `position` changes.
    """
    config, position, ops = weights.config, state.position[slots], make_ops(weights, state, slots)
    x = embed(weights, state.grid[slots, position].clamp_min(0).repeat(2, 1))
    x = _layers(weights, x, ops)
    logits = weights.head.wide(rms_norm(x, weights.norm, config.decoder.eps))
    cond, uncond = logits.view(2, len(slots), config.channels, config.decoder.vocabulary)
    ops.commit(sample(cond, uncond, position, state.sampling_params(slots), config.eos), logits)


def embed(weights: Weights, tokens: Tensor) -> Tensor:
    """Return the sum of the channels' embeddings, [..., hidden], for columns of tokens [..., channels]."""
    return F.embedding(tokens + weights.channel_offset, weights.embedding).sum(-2)


def _layers(weights: Weights, x: Tensor, ops: StepOps) -> Tensor:
    """Run x [2B, hidden] through all layers; the conditional rows come before the unconditional ones."""
    batch, config = len(x) // 2, weights.config
    for i, layer in enumerate(weights.layers):
        block = layer.block
        qkv = block.norm_qkv(x).view(2 * batch, -1, config.decoder.head_dim)
        x = x + block.out(ops.self_attention(i, qkv).flatten(1))
        q = layer.text_q(rms_norm(x[:batch], layer.text_norm, block.eps))
        q = q.view(batch, -1, config.cross_head_dim)
        attended = ops.cross_attention(i, q).flatten(1)
        x = x + torch.cat([layer.text_out(attended), layer.uncond_cross_attention.expand(batch, -1)])
        x = block.mlp(x)
    return x
