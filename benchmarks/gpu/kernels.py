"""The hand-written kernels: do they build, are they right, and how fast are they."""

from typing import Any

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.setup import Setup, time_each
from dia_server.engine.dia.attention import plain_cross_attention
from dia_server.engine.dia.loader import pick_dtype
from dia_server.engine.dia.probe import kernel_fault
from dia_server.engine.dia.snake import Snake
from dia_server.engine.dia.step_ops import cross_attention

ATTENTIONS = ((2, 16, 4, 3072), (128, 16, 4, 3072), (64, 16, 16, 1024))
"""(rows, heads, K/V heads, columns) of the self-attention of 1 and 64 requests, and of cross-attention."""
SMALL_ATTENTIONS = ((2, 4, 2, 256),)
MOST_ERROR = 5e-2
"""Maximum error in bf16 or fp16, for values from N(0, 1)."""
SNAKE = (1, 192, 192 * 256)
"""[windows, channels, time] of a large Snake layer in the codec."""
CALLS = 20


def run(setup: Setup, report: Report) -> None:
    where = torch.device(setup.device)
    dtype = pick_dtype("auto", where, setup.most_slots) if setup.on_gpu else torch.bfloat16
    if setup.on_gpu:
        report.absent("kernel fault", kernel_fault(where, dtype))
    for shape in ATTENTIONS if setup.on_gpu else SMALL_ATTENTIONS:
        with report.part(f"attention {shape}"):
            _check_attention(setup, report, shape, dtype)
    with report.part("snake"):
        _time_snake(setup, report)


def _check_attention(
    setup: Setup, report: Report, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    """Compare attention over ragged lengths with SDPA in fp32, and time it."""
    rows, heads, kv_heads, columns = shape
    generator = torch.Generator(setup.device).manual_seed(0)
    options: dict[str, Any] = {"device": setup.device, "generator": generator}
    arena = torch.randn(rows, 2 * kv_heads, columns, 128, dtype=dtype, **options)
    q = (torch.randn(rows, heads, 128, **options) / 4).to(dtype)
    lengths = torch.randint(1, columns + 1, (rows,), **options)
    lengths[0] = 1
    order = torch.randperm(rows, **options)
    arrivals = torch.zeros(rows * kv_heads, dtype=torch.int32, device=setup.device)
    expected = plain_cross_attention(q.float(), arena.float(), order, lengths)

    def attend() -> torch.Tensor:
        attended: torch.Tensor = cross_attention(q, arena, order, lengths, arrivals)
        return attended

    error = (attend() - expected).abs().max().item()
    what = f"attention of {rows} rows, {heads}/{kv_heads} heads"
    report.measured(f"{what}: error", error, "", at_most=MOST_ERROR, dtype=str(dtype))
    seconds = time_each(attend, CALLS, setup.device)
    read = 2 * int(lengths.sum()) * kv_heads * 128 * dtype.itemsize
    report.measured(what, 1e6 * seconds, "us", gb_per_s=round(read / seconds / 1e9, 1))


def _time_snake(setup: Setup, report: Report) -> None:
    shape = SNAKE if setup.on_gpu else (1, 192, 14 * 256)
    x = torch.randn(shape, device=setup.device)
    snake = Snake(torch.rand(1, shape[1], 1, device=setup.device) + 0.5)
    seconds = time_each(lambda: snake(x), CALLS, setup.device)
    report.measured("snake", 1e6 * seconds, "us", gb_per_s=round(2 * x.nbytes / seconds / 1e9, 1))
