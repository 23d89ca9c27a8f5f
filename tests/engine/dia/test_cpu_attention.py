"""Cross-attention on CPUs, whose KV cache is in bf16 or in fp32."""

import pytest
import torch

from dia_server.engine.dia.attention import plain_cross_attention
from dia_server.engine.dia.state import new_state, text_dtype
from dia_server.engine.dia.step_ops import CpuOps, HostLengths

from .drive import weights_of
from .tiny import tiny_dia

CPU = torch.device("cpu")


@pytest.mark.parametrize(("tiles", "cached"), [(True, torch.bfloat16), (False, torch.float32)])
def test_each_text_is_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, cached: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    weights = weights_of(tiny_dia(layers=1), dtype=torch.bfloat16)
    state = new_state(weights.config, 3, CPU, weights.dtype)
    generator = torch.Generator().manual_seed(0)
    state.text.normal_(generator=generator)
    slots, lengths = torch.tensor([2, 0]), torch.tensor([7, 30])
    state.text_length[slots] = lengths
    q = torch.randn(2, 4, 16, generator=generator).bfloat16()

    ops = CpuOps(HostLengths(slots.tolist(), [1, 1], lengths.tolist()), weights, state, slots)
    attended = ops.cross_attention(0, q)

    assert (state.text.dtype, attended.dtype) == (cached, torch.bfloat16)
    expected = plain_cross_attention(q.float(), state.text[0].float(), slots, state.text_length)
    torch.testing.assert_close(attended.float(), expected, atol=0.02, rtol=0.02)


def test_only_bf16_is_cached_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)

    assert text_dtype(CPU, torch.float16) == torch.float32
    assert text_dtype(torch.device("cuda"), torch.float16) == torch.float16
