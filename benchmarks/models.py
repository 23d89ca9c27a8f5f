"""Random Dia models of several sizes, and the workload that every implementation runs."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DiaConfig, DiaForConditionalGeneration

from dia_server.engine.dia.assemble import assemble
from dia_server.engine.dia.loader import pick_dtype
from dia_server.engine.dia.memory import release_cached
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.weights import Weights

EOS = 1024

TEMPERATURE, TOP_P, TOP_K, CFG_SCALE = 1.2, 0.95, 45, 3.0
"""Sampling parameters, the defaults of the original package."""

SIZES: dict[str, dict[str, Any]] = {
    "1.6B": {},
    "115M": {
        "encoder_config": {
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 2,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "head_dim": 64,
        },
        "decoder_config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "cross_num_attention_heads": 8,
            "cross_num_key_value_heads": 8,
            "cross_hidden_size": 512,
        },
    },
    "tiny": {
        "encoder_config": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
        "decoder_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "cross_hidden_size": 64,
        },
    },
    "toy": {
        "encoder_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 16,
        },
        "decoder_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "cross_num_attention_heads": 4,
            "cross_num_key_value_heads": 4,
            "cross_head_dim": 16,
            "cross_hidden_size": 64,
        },
    },
}
"""Size to its differences from the real config: "115M" runs on a CPU core, "tiny" (for parity) has heads of
the real shape, and in "toy" everything is small."""


@dataclass(frozen=True, slots=True)
class Workload:
    texts: Sequence[str]
    prompts: Sequence[Tensor]
    """Frames [T, 9] of each text's voice prompt, all of the same length, which may be 0."""
    steps: int
    sampled: bool = True
    """Whether to sample, with the parameters above; otherwise greedy."""

    @property
    def prompt_frames(self) -> int:
        return len(self.prompts[0])


def random_dia(
    size: str, device: str, dtype: torch.dtype, *, std: float = 0.02
) -> DiaForConditionalGeneration:
    """Return a Dia with weights from N(0, std^2). EOS has logit 0, so greedy decoding never ends early."""
    config = DiaConfig(**SIZES[size])
    with torch.device(device):
        model = DiaForConditionalGeneration(config)
    generator = torch.Generator(device).manual_seed(0)
    model.train(False).requires_grad_(False)
    for name, weight in model.named_parameters():
        if "norm" not in name:
            weight.normal_(0.0, std, generator=generator)
    model.logits_dense.weight[EOS] = 0.0
    model.to(dtype)
    return model


def random_weights(size: str, device: str, slots: int) -> Weights:
    """Return the engine's weights of `random_dia`, in the dtype that the server would choose for `slots`."""
    dtype = pick_dtype("auto", torch.device(device), slots)
    dia = random_dia(size, device, dtype)
    weights = assemble(
        ModelConfig.of(dia.config), dia.state_dict().__getitem__, device=dia.device, dtype=dtype
    )
    del dia
    gc.collect()
    release_cached()
    return weights


def workload(
    batch: int, steps: int, *, prompt_frames: int = 0, text_bytes: int = 200, seed: int = 0
) -> Workload:
    """Return `batch` different texts of `text_bytes` bytes, each with a different voice prompt."""
    generator = torch.Generator().manual_seed(seed)
    characters = torch.randint(97, 123, (batch, text_bytes - 1), generator=generator).tolist()
    prompts = torch.randint(0, 1024, (batch, prompt_frames, 9), generator=generator)
    # the model encodes a speaker tag as one byte
    return Workload(["[S1]" + bytes(row).decode() for row in characters], list(prompts), steps)
