"""The decoder's matrix products x W^T at the row counts of decode steps: microseconds and bandwidth."""

from itertools import cycle

import torch
import torch.nn.functional as F
from transformers import DiaConfig

from benchmarks.gpu.report import Report
from benchmarks.gpu.setup import Setup, time_each
from benchmarks.models import SIZES
from dia_server.engine.dia.loader import pick_dtype
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.units import MIB

ROWS = (1, 2, 4, 8, 16, 64, 128)
"""Rows of x: two for each request."""
CACHE_BYTES = 512 * MIB
"""Bytes of all copies of a weight: far more than a GPU's cache, so that each is read from memory."""
SMALL_CACHE_BYTES = MIB


def run(setup: Setup, report: Report) -> None:
    dtype = (
        pick_dtype("auto", torch.device(setup.device), setup.most_slots) if setup.on_gpu else torch.float32
    )
    for name, (outputs, inputs) in weight_shapes(ModelConfig.of(DiaConfig(**SIZES[setup.size]))).items():
        with report.part(name):
            size = outputs * inputs * dtype.itemsize
            copies = max(2, (CACHE_BYTES if setup.on_gpu else SMALL_CACHE_BYTES) // size)
            weights = [torch.randn(outputs, inputs, dtype=dtype, device=setup.device) for _ in range(copies)]
            times = [_time_product(setup, weights, rows) for rows in ROWS]
            report.line(
                what=f"product {name}",
                shape=[outputs, inputs],
                rows=ROWS,
                us=[round(1e6 * seconds, 2) for seconds in times],
                gb_per_s=[round(size / seconds / 1e9) for seconds in times],
            )


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return the shapes [outputs, inputs] of a decoder layer's weights and of the head."""
    decoder, cross = config.decoder, config.cross_heads * config.cross_head_dim
    width, kv_width = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    return {
        "qkv": (width + 2 * kv_width, decoder.hidden),
        "out": (decoder.hidden, width),
        "text_q": (cross, decoder.hidden),
        "gate_up": (2 * decoder.mlp, decoder.hidden),
        "down": (decoder.hidden, decoder.mlp),
        "head": (config.channels * decoder.vocabulary, decoder.hidden),
    }


def _time_product(setup: Setup, weights: list[torch.Tensor], rows: int) -> float:
    x = torch.randn(rows, weights[0].shape[1], dtype=weights[0].dtype, device=setup.device)
    turns = cycle(weights)
    return time_each(lambda: F.linear(x, next(turns)), len(weights), setup.device)
