"""The decoder's matrix products x W^T at the row counts of decode steps: microseconds and bandwidth.

Those of up to 16 rows are measured with cuBLAS, and with this engine's kernel in 16 bits and in int8.
"""

from collections.abc import Sequence
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DiaConfig

from benchmarks.gpu.report import Report
from benchmarks.gpu.setup import Setup, time_each
from benchmarks.models import SIZES
from dia_server.engine.dia.linear import Linear, pack, pack_int8, quantize
from dia_server.engine.dia.loader import pick_dtype
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.products import ROWS as FEW_ROWS
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
            few = [rows for rows in ROWS if rows <= FEW_ROWS]
            libraries = [Linear(F.linear, weight) for weight in weights]
            _measure(setup, report, f"product {name}", libraries, ROWS, weights[0])
            _measure(setup, report, f"product {name}, own kernel", list(map(pack, weights)), few, weights[0])
            int8 = [quantize(weight.float()) for weight in weights]
            packed = [pack_int8(*one) for one in int8]
            _measure(setup, report, f"product {name}, int8", packed, few, int8[0][0], dtype)


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


def _measure(
    setup: Setup,
    report: Report,
    what: str,
    products: Sequence[Linear],
    rows: Sequence[int],
    weight: Tensor,
    dtype: torch.dtype | None = None,
) -> None:
    """Report the time of `products` of the size of `weight` for x in `dtype`, by default the weight's."""
    times = []
    for count in rows:
        x = torch.randn(count, weight.shape[1], device=setup.device).to(dtype or weight.dtype)
        turns = cycle(products)
        times.append(time_each(lambda: next(turns)(x), len(products), setup.device))  # noqa: B023
    report.line(
        what=what,
        shape=list(weight.shape),
        rows=list(rows),
        us=[round(1e6 * seconds, 2) for seconds in times],
        gb_per_s=[round(weight.nbytes / seconds / 1e9) for seconds in times],
    )
