"""Small random models of Dia's and the codec's real architecture, for tests that need no weights.

They are built in fractions of a second, run in fp32 and decode token for token like any checkpoint, so
whatever holds for them holds for the real one.
"""

from pathlib import Path

import torch
from transformers import DacConfig, DacModel, DiaConfig, DiaForConditionalGeneration

from dia_server.units import SAMPLE_RATE

EOS = 1024
EOS_SCALE = 6.0
"""Scale of EOS's weights that makes EOS likeliest now and then, not only once in a thousand steps."""
WEIGHT_SCALE = 3.0
"""Scale of the weights; at the default scale the output hardly depends on the text."""


def tiny_dia(seed: int = 0, *, layers: int = 2, ends: bool = True) -> DiaForConditionalGeneration:
    """Return a Dia of about 2 M parameters; without `ends`, EOS is never the likeliest token."""
    torch.manual_seed(seed)
    attention = {"num_attention_heads": 4, "head_dim": 16, "num_hidden_layers": layers}
    config = DiaConfig(
        encoder_config={"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4, **attention},
        decoder_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_key_value_heads": 2,
            "cross_num_attention_heads": 4,
            "cross_num_key_value_heads": 4,
            "cross_head_dim": 16,
            "cross_hidden_size": 64,
            **attention,
        },
    )
    model = DiaForConditionalGeneration(config)
    model.train(False).requires_grad_(False)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.uniform_(0.5, 1.5)
        else:
            weight.mul_(WEIGHT_SCALE)
    model.logits_dense.weight[EOS].mul_(EOS_SCALE if ends else 0.0)
    return model


def tiny_dac(seed: int = 0) -> DacModel:
    """Return a codec of the real rate, hop (512) and codebooks (9 of 1024 entries), but few channels."""
    torch.manual_seed(seed)
    config = DacConfig(
        encoder_hidden_size=4,
        decoder_hidden_size=32,
        downsampling_ratios=[2, 4, 8, 8],
        n_codebooks=9,
        codebook_size=1024,
        codebook_dim=8,
        sampling_rate=SAMPLE_RATE,
    )
    model = DacModel(config)
    model.train(False).requires_grad_(False)
    return model


def save_dia(folder: Path, model: DiaForConditionalGeneration | None = None, *, shard: str = "5GB") -> Path:
    """Write a checkpoint in the layout of a hub repository; `shard` ("1MB") splits it into files."""
    (tiny_dia() if model is None else model).save_pretrained(folder, max_shard_size=shard)
    return folder


def save_dac(folder: Path, model: DacModel | None = None) -> Path:
    (tiny_dac() if model is None else model).save_pretrained(folder)
    return folder
