"""Samples one token per channel from the conditional and unconditional rows' logits.

Classifier-free guidance only selects candidates: the `top_k` tokens with the highest guided logits, cond +
cfg_scale * (cond - uncond). Everything after that uses the candidates' *conditional* logits. In channel 0 EOS
is chosen if it is the likeliest candidate, and never otherwise; in other channels it is excluded. If EOS is
not chosen, temperature and nucleus (top-p) sampling choose among the other candidates.

The random noise depends only on seed, column, channel and token, so an utterance sounds the same in any slot,
batch and poll.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dia_server.engine.dia import cpu_ops

TOP_K_LIMIT = 64
"""Maximum top_k of a request. This many tokens are ranked in every step, so that shapes are fixed."""

_MASK = 0xFFFF_FFFF


class SamplingParams(NamedTuple):
    """Sampling parameters; each tensor [B] has one value per slot."""

    temperature: Tensor
    """0 selects the likeliest token (greedy decoding)."""
    cfg_scale: Tensor
    top_p: Tensor
    top_k: Tensor
    seed: Tensor


def sample(cond: Tensor, uncond: Tensor, column: Tensor, params: SamplingParams, eos: int) -> Tensor:
    """Return tokens [B, channels] for fp32 logits [B, channels, vocabulary].

    `column` [B] is the index of each slot's current column, the step's input; the noise depends on it.
    """
    if cpu_ops.suits(cond):
        return cpu_ops.sample(cond, uncond, column, *params, eos)
    temperature, top_p, seed = (
        value[:, None, None] for value in (params.temperature, params.top_p, params.seed)
    )
    tokens, logits = candidates(cond, uncond, params, eos)
    ranks = torch.arange(TOP_K_LIMIT, device=cond.device)
    channels = torch.arange(cond.shape[1], device=cond.device)[:, None]
    logits, order = logits.sort(dim=-1, descending=True)
    tokens = tokens.gather(-1, order)
    ends = tokens[..., 0] == eos
    nothing = logits[..., 0] == -torch.inf
    logits = logits.masked_fill(tokens == eos, -torch.inf)
    hot = temperature > 0
    shares = (logits / torch.where(hot, temperature, 1.0)).softmax(-1)
    kept = shares.masked_fill(shares.cumsum(-1) - shares > top_p, 0.0)
    # argmax(share / Exp(1) noise) picks each token with probability `share`: the Gumbel-max trick
    drawn = kept / -uniform(seed, column[:, None, None], channels, tokens).log()
    choice = torch.where(hot, drawn, logits).argmax(-1, keepdim=True)
    # a sum instead of `gather`: inductor fuses it with the kernel that computes `choice`
    token = tokens.where(ranks == choice, 0).sum(-1)
    # like transformers, return token 0 if guidance selects special tokens only
    return torch.where(nothing, 0, torch.where(ends, eos, token))


def candidates(cond: Tensor, uncond: Tensor, params: SamplingParams, eos: int) -> tuple[Tensor, Tensor]:
    """Return the tokens with the highest guided logits, in descending order, and their conditional logits.

    Both are [B, channels, TOP_K_LIMIT]. The logits of tokens that are no candidates are -inf: those beyond
    top_k, special tokens, and EOS in all channels but channel 0.
    """
    cfg_scale, top_k = params.cfg_scale[:, None, None], params.top_k[:, None, None]
    guided = cond + (cond - uncond) * cfg_scale
    tokens = guided.topk(TOP_K_LIMIT, dim=-1).indices
    ranks = torch.arange(TOP_K_LIMIT, device=cond.device)
    channels = torch.arange(cond.shape[1], device=cond.device)[:, None]
    # special tokens follow EOS in the vocabulary; EOS itself is allowed in channel 0
    special = tokens > torch.where(channels == 0, eos, eos - 1)
    return tokens, cond.gather(-1, tokens).masked_fill((ranks >= top_k) | special, -torch.inf)


def uniform(*keys: Tensor) -> Tensor:
    """Return uniform noise in (0, 1), a hash of `keys`: the same keys always give the same noise.

    Each key is 0 to 2**32 - 1 and is mixed in by murmur3's finaliser. The noise has 23 bits, so that rounding
    to fp32 gives neither 0 nor 1.
    """
    h = keys[0]
    for key in keys[1:]:
        h = (h * 0x9E37_79B1 + key + 0x7F4A_7C15) & _MASK
        h = ((h ^ (h >> 16)) * 0x85EB_CA6B) & _MASK
        h = ((h ^ (h >> 13)) * 0xC2B2_AE35) & _MASK
        h = h ^ (h >> 16)
    return ((h >> 9).float() + 0.5) * 2.0**-23
