"""Kernels for CPUs against the PyTorch operations that they replace, in fp32 and in bf16."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dia_server.engine.dia import cpu_ops
from dia_server.engine.dia.attention import Place, plain_cross_attention, plain_self_attention
from dia_server.engine.dia.delay import UNKNOWN
from dia_server.engine.dia.state import NEVER
from dia_server.engine.dia.step_ops import commit
from dia_server.engine.dia.weights import rotation

COLUMNS, HEADS, KV_HEADS, DIM = 300, 6, 2, 48
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
THREADS = pytest.mark.parametrize("threads", [1, 3])
CPU = torch.device("cpu")
MULTIPLIES_BF16 = pytest.mark.skipif(
    not cpu_ops.multiplies_bf16(), reason="needs AVX-512's bf16, without AMX"
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_rounded(made: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    """Assert that `made` is `exact` in fp32, or rounded to bf16: half of 2^-7, and 4 % more for sums."""
    assert made.dtype == dtype
    tolerance = 2e-5 if dtype == torch.float32 else 0.52 * 2**-7
    torch.testing.assert_close(made.float(), exact, rtol=tolerance, atol=tolerance / 10)


@pytest.fixture
def several(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_ops, "ELEMENTS_PER_THREAD", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)


@DTYPES
@THREADS
@pytest.mark.usefixtures("several")
def test_self_attention_stores_a_column_and_reads_to_it(dtype: torch.dtype) -> None:
    slots, position = torch.tensor([2, 0, 3]), torch.tensor([299, 7, 0, 300])
    cache = noise(8, 2 * KV_HEADS, COLUMNS, DIM).to(dtype)
    qkv = noise(6, HEADS + 2 * KV_HEADS, DIM, seed=1).to(dtype)
    tables = rotation(COLUMNS, DIM, 10_000, CPU)
    exact = cache.float()
    expected = plain_self_attention(qkv.float(), exact, Place.of(slots, position, tables))

    attended = cpu_ops.self_attention(qkv, cache, tables, slots, position)

    assert_rounded(cache, exact.to(dtype).float(), dtype)
    assert_rounded(attended, expected, dtype)


@DTYPES
@THREADS
@pytest.mark.usefixtures("several")
def test_cross_attention_reads_each_text_to_its_end(dtype: torch.dtype) -> None:
    slots, lengths = torch.tensor([2, 0]), torch.tensor([300, 9, 1])
    cache, q = noise(3, 2 * KV_HEADS, COLUMNS, DIM).to(dtype), noise(2, HEADS, DIM, seed=1).to(dtype)

    attended = cpu_ops.cross_attention(q, cache, slots, lengths)

    assert_rounded(attended, plain_cross_attention(q.float(), cache.float(), slots, lengths), dtype)


@DTYPES
@THREADS
@pytest.mark.usefixtures("several")
def test_norms_and_gates(dtype: torch.dtype) -> None:
    x, weight = 3 * noise(2, 5, 96).to(dtype), noise(96, seed=1).to(dtype)
    first, second = x.float().chunk(2, -1)
    spread = x.expand(3, 2, 5, 96)

    assert_rounded(
        cpu_ops.rms_norm(x, weight, 1e-5), F.rms_norm(x.float(), (96,), weight.float(), 1e-5), dtype
    )
    assert_rounded(cpu_ops.gate(x), F.silu(first) * second, dtype)
    assert torch.equal(cpu_ops.gate(spread)[1], cpu_ops.gate(x))


@MULTIPLIES_BF16
@THREADS
@pytest.mark.usefixtures("several")
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 208), (90, 198), (1, 1)])
@pytest.mark.parametrize("rows", [1, 3, 8, 15])
def test_products_in_bf16(rows: int, outputs: int, inputs: int) -> None:
    x, weight = noise(rows, inputs).bfloat16(), noise(outputs, inputs, seed=1).bfloat16()

    product = cpu_ops.multiply_bf16(x[:, None], cpu_ops.pack_bf16(weight), outputs)

    exact = x.double() @ weight.double().t()
    assert_rounded(product[:, 0], exact.float(), torch.bfloat16)


@MULTIPLIES_BF16
def test_a_row_of_a_product_in_bf16_does_not_depend_on_the_others() -> None:
    x, weight = noise(15, 208).bfloat16(), cpu_ops.pack_bf16(noise(96, 208, seed=1).bfloat16())
    x[3, 5], x[4, 5] = torch.nan, torch.inf

    together = cpu_ops.multiply_bf16(x, weight, 96)

    assert not together[3:5].isfinite().any()
    for row in (0, 2, 5, 8, 14):
        assert torch.equal(cpu_ops.multiply_bf16(x[row : row + 1], weight, 96)[0], together[row])


@DTYPES
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_stay_so(dtype: torch.dtype, wrong: float) -> None:
    """They mark a slot as broken, so neither maximum nor exponential may drop them."""
    x = noise(2, 64).to(dtype)
    x[1, 5], x[1, 40], x[1, 8] = wrong, wrong, -100.0
    cache, q = noise(2, 2 * KV_HEADS, 20, DIM).to(dtype), noise(2, HEADS, DIM, seed=1).to(dtype)
    cache[1, 0, 3, 2] = cache[1, KV_HEADS + 1, 4, 2] = wrong
    lengths = torch.tensor([20, 20])

    normed = cpu_ops.rms_norm(x, torch.ones(64, dtype=dtype), 1e-5)
    gated = cpu_ops.gate(x)
    attended = cpu_ops.cross_attention(q, cache, torch.tensor([0, 1]), lengths)

    for made in (normed, gated, attended):
        assert made[0].isfinite().all()
        assert not made[1].isfinite().all()
    assert not attended[1, :3].isfinite().all()
    assert not attended[1, 3:].isfinite().all()


def test_gates_of_large_numbers_are_finite() -> None:
    x = torch.tensor([[-3e38, -90.0, 0.0, 1e4, 1.0, 1.0, 1.0, 1.0]])

    torch.testing.assert_close(cpu_ops.gate(x), torch.tensor([[0.0, 0.0, 0.0, 1e4]]))


@DTYPES
def test_a_row_is_the_same_in_every_batch(dtype: torch.dtype) -> None:
    slots, position = torch.tensor([0, 1, 2, 3]), torch.tensor([250, 3, 17, 120])
    cache = noise(8, 2 * KV_HEADS, COLUMNS, DIM).to(dtype)
    qkv = noise(8, HEADS + 2 * KV_HEADS, DIM, seed=1).to(dtype)
    tables = rotation(COLUMNS, DIM, 10_000, CPU)

    together = cpu_ops.self_attention(qkv, cache, tables, slots, position)
    alone = cpu_ops.self_attention(qkv[[1, 5]], cache, tables, slots[1:2], position)

    assert torch.equal(alone, together[[1, 5]])


def test_commit_writes_what_the_operations_write() -> None:
    """For slots in the prompt, before and at EOS, in its tail, at the end, dead, and with wrong logits."""
    generator = torch.Generator().manual_seed(0)
    slots, channels, vocabulary, columns, eos = 40, 9, 30, 25, 20

    def below(bound: int, *shape: int) -> Tensor:
        return torch.randint(0, bound, shape, generator=generator)

    grid = below(eos, slots, columns, channels).where(below(3, slots, columns, channels) > 1, UNKNOWN)
    position = below(columns, slots)
    state: Any = [
        grid,
        position,
        (position + below(12, slots) - 9).where(below(2, slots) > 0, NEVER),
        below(4, slots) > 0,
        torch.zeros(slots, dtype=torch.bool),
    ]
    state[2].clamp_min_(1)
    chosen = torch.randperm(slots, generator=generator)[:30]
    tokens, logits = below(eos + 3, 30, channels), noise(60, channels, vocabulary)
    logits[5, 0, 0], logits[36, 8, 29], logits[7, 1, 2] = torch.nan, torch.inf, -torch.inf
    delay, end = torch.tensor([0, 8, 9, 10, 11, 12, 13, 14, 15]), below(40, slots)
    asked: Any = (end, delay, chosen, tokens, logits, eos, 21, 16)
    by_loops = [part.clone() for part in state]
    assert all(0 < kind.float().mean() < 1 for kind in (state[2] < NEVER, state[3], tokens[:, 0] == eos))

    commit(*state, *asked)
    cpu_ops.commit(*by_loops, *asked)

    assert state[4].any()
    for made, expected in zip(by_loops, state, strict=True):
        assert torch.equal(made, expected)
