"""Attention compared with SDPA, in Triton's interpreter, which must be chosen before Triton is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia import attention
from dia_server.engine.dia.attention import (
    Place,
    fused_cross_attention,
    fused_self_attention,
    plain_cross_attention,
    plain_self_attention,
    split_count,
)
from dia_server.engine.dia.probe import kernel_fault
from dia_server.engine.dia.snake import Padding, Snake, fused_snake
from dia_server.engine.dia.weights import rotation

from . import products

COLUMNS = 200
LENGTHS = (1, 64, 65, 150)


def case(heads: int, kv_heads: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return q, cache, slots and the lengths of all slots; memory that must not be read holds NaN."""
    generator = torch.Generator().manual_seed(heads)
    count = len(LENGTHS)
    cache = torch.randn(2 * count, 2 * kv_heads, COLUMNS, 128, generator=generator).to(dtype)
    slots = torch.randperm(2 * count, generator=generator)[:count]
    lengths = torch.zeros(2 * count, dtype=torch.long)
    lengths[slots] = torch.tensor(LENGTHS)
    for slot, length in enumerate(lengths.tolist()):
        cache[slot, :, length:] = torch.nan
    q = (torch.randn(count, heads, 128, generator=generator) / 4).to(dtype)
    return q, cache, slots, lengths


def reference(q: Tensor, cache: Tensor, slots: Tensor, lengths: Tensor) -> Tensor:
    """Return SDPA's result row by row in fp32, over the columns of that row."""
    keys, values = cache.chunk(2, 1)
    out = []
    for query, slot in zip(q.float(), slots.tolist(), strict=True):
        k, v = keys[slot, :, : lengths[slot]].float(), values[slot, :, : lengths[slot]].float()
        out.append(F.scaled_dot_product_attention(query[:, None], k, v, scale=1.0, enable_gqa=True)[:, 0])
    return torch.stack(out)


@pytest.mark.parametrize(("heads", "kv_heads"), [(16, 4), (16, 16), (4, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_plain_path_equals_sdpa_row_by_row(heads: int, kv_heads: int, dtype: torch.dtype) -> None:
    q, cache, slots, lengths = case(heads, kv_heads, dtype)
    expected = reference(q, cache, slots, lengths)

    # NaN that is read, but masked out, would spread
    attended = plain_cross_attention(q, cache.nan_to_num(0), slots, lengths)

    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(attended.float(), expected, atol=tolerance, rtol=0)


def test_splits_fill_the_gpu_and_no_more() -> None:
    # a slot has 2 rows of 4 K/V heads in self-attention, and 1 row of 16 in cross-attention
    assert split_count(9, tasks=8, columns=3072) == 4
    assert split_count(9, tasks=16, columns=1024) == 2
    # a long row among short ones is read by several programs, however many rows there are
    assert split_count(64, tasks=8, columns=3072) == 4
    assert split_count(128, tasks=8, columns=3072) == 4
    assert split_count(64, tasks=16, columns=1024) == 1
    assert split_count(1, tasks=8, columns=10) == 1


def test_batches_of_up_to_eight_slots_are_split_alike() -> None:
    assert {split_count(slots, tasks=8, columns=3072) for slots in range(1, 9)} == {16}
    assert {split_count(slots, tasks=16, columns=1024) for slots in range(1, 9)} == {8}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.full)])
def test_the_kernels_equal_plain_operations_in_the_interpreter(every: bool) -> None:
    subprocess.run(
        [sys.executable, "-c", f"from tests.engine.dia.test_attention import interpret; interpret({every})"],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd=Path(__file__).parents[3],
        check=True,
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_kernels_equal_plain_operations_on_the_gpu() -> None:
    check_kernels("cuda")


def test_kernels_that_cannot_run_are_found_with_the_cause() -> None:
    fault = kernel_fault(torch.device("cpu"), torch.float32)  # Triton compiles for GPUs only

    assert fault is not None
    assert ": " in fault
    assert "\n" not in fault


def interpret(every: bool) -> None:
    from . import interpreter

    interpreter.mend()
    check_kernels(every=every)


def check_kernels(device: str = "cpu", *, every: bool = True) -> None:
    """Compare the kernels with plain operations; "cpu" works only in the interpreter.

    Of dtype, heads and number of splits, each two are combined; `every` combines all three.
    """
    products.check(device, every=every)
    # one split per row; or several, some of them empty for short rows
    few, many = 1, 64
    combined = {
        (torch.float32, (8, 2)): [few, many] if every else [many],
        (torch.float32, (4, 4)): [many, few] if every else [few],
        (torch.bfloat16, (8, 2)): [many, few] if every else [few],
        (torch.bfloat16, (4, 4)): [few, many] if every else [many],
    }
    for (dtype, (heads, kv_heads)), splits in combined.items():
        tolerance = 1e-5 if dtype == torch.float32 else 3e-2
        for attention.PROGRAMS in splits:
            check_cross_attention(heads, kv_heads, dtype, tolerance, device)
            check_self_attention(heads, kv_heads, dtype, tolerance, device)

    attention.PROGRAMS = 512
    for dtype in (torch.float32, torch.bfloat16) if every else (torch.bfloat16,):
        assert kernel_fault(torch.device(device), dtype) is None

    x = torch.randn(2, 3, 1500, device=device) * 5
    snake = Snake(torch.rand(1, 3, 1, device=device) + 0.5)
    expected = torch.addcmul(x, torch.sin(x * snake.alpha).square(), snake.inverse)
    torch.testing.assert_close(fused_snake(x, snake.alpha, snake.inverse), expected, atol=1e-5, rtol=0)
    padding = Padding(torch.tensor([11, 15], device=device), length=15)
    expected[0, :, 1100:] = 0
    torch.testing.assert_close(
        fused_snake(x, snake.alpha, snake.inverse, padding), expected, atol=1e-5, rtol=0
    )
    torch.testing.assert_close(snake(x, padding), expected, atol=1e-5, rtol=0)
    wide = x[:, :, None].half().to(memory_format=torch.channels_last)
    made = fused_snake(wide, snake.alpha, snake.inverse, padding)
    assert made.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(made, snake(wide, padding), atol=4e-3, rtol=2e-3)


def check_cross_attention(
    heads: int, kv_heads: int, dtype: torch.dtype, tolerance: float, device: str
) -> None:
    q, cache, slots, lengths = (x.to(device) for x in case(heads, kv_heads, dtype))
    arrivals = torch.zeros(len(slots) * kv_heads, dtype=torch.int32, device=device)
    expected = reference(q, cache, slots, lengths)
    wider = torch.cat([q, q], 1)[:, :heads]  # the kernel reads rows by their stride
    attended = fused_cross_attention(wider, cache, slots, lengths, arrivals)
    torch.testing.assert_close(attended.float(), expected, atol=tolerance, rtol=0)
    assert not arrivals.any()


def check_self_attention(
    heads: int, kv_heads: int, dtype: torch.dtype, tolerance: float, device: str
) -> None:
    """Compare with the plain version, also in slots at the first column and past the last one."""
    generator = torch.Generator().manual_seed(heads)
    position = torch.tensor([COLUMNS, 0, 64], device=device)
    slots = torch.tensor([2, 1, 0], device=device)
    cache = torch.randn(6, 2 * kv_heads, COLUMNS, 128, generator=generator).to(device, dtype)
    qkv = (torch.randn(6, heads + 2 * kv_heads, 128, generator=generator) / 4).to(device, dtype)
    tables = rotation(COLUMNS, 128, 10_000.0, torch.device(device))
    arrivals = torch.zeros(6 * kv_heads, dtype=torch.int32, device=device)
    written = cache.clone()
    expected = plain_self_attention(qkv, written, Place.of(slots, position, tables))
    for slot, column in enumerate(position.tolist()):
        cache[2 * slot : 2 * slot + 2, :, column:] = torch.nan  # must be written, or not be read

    attended = fused_self_attention(qkv, cache, tables, slots, position, arrivals)

    torch.testing.assert_close(attended, expected, atol=tolerance, rtol=tolerance)
    assert not arrivals.any()
    # slot 0 has run past the last column, which it writes again
    for slot, column in enumerate(position.clamp_max(COLUMNS - 1).tolist()):
        rows = slice(2 * slot, 2 * slot + 2)
        made, wanted = cache[rows, :, : column + 1], written[rows, :, : column + 1]
        torch.testing.assert_close(made, wanted, atol=tolerance / 4, rtol=0)
        assert cache[rows, :, column + 1 :].isnan().all()
