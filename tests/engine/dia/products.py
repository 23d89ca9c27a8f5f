"""Checks of the product's kernel, on a GPU or in Triton's interpreter."""

import torch
from torch import Tensor

from dia_server.engine.dia.linear import quantize
from dia_server.engine.dia.products import (
    ROWS,
    fused_gate,
    fused_product,
    gate,
    new_arrivals,
    plain_product,
    split_count,
)

SHAPES = ((80, 1040), (64, 96), (192, 512))
"""[outputs, inputs]: split, with blocks that are not full; not split; split in two."""


def check(device: str, *, every: bool = True) -> None:
    """Compare the kernel with PyTorch, and each row with the same row alone; `every` adds a third shape."""
    assert [split_count(*shape) for shape in SHAPES] == [4, 1, 2]
    cases = [(torch.bfloat16, SHAPES[0]), (torch.float16, SHAPES[1]), (torch.bfloat16, SHAPES[2])]
    for dtype, shape in cases if every else cases[:2]:
        generator = torch.Generator().manual_seed(shape[1])
        x = torch.randn(ROWS, shape[1], generator=generator).to(device, dtype)
        weight = torch.randn(shape, generator=generator) / shape[1] ** 0.5
        values, scale = (part.to(device) for part in quantize(weight))
        check_product(x, weight.to(device, dtype), None)
        check_product(x, values, scale)
        check_gate(x, weight.to(device, dtype), None)
        check_gate(x, values, scale)


def check_product(x: Tensor, weight: Tensor, scale: Tensor | None) -> None:
    arrivals = new_arrivals(weight)
    exact = x.float() @ plain_product(torch.eye(x.shape[1], device=x.device), weight.float(), scale)

    together = fused_product(x, weight, scale, arrivals, wide=False)
    wide = fused_product(x, weight, scale, arrivals, wide=True)

    assert not arrivals.any()
    assert (together.dtype, wide.dtype) == (x.dtype, torch.float32)
    torch.testing.assert_close(wide, exact, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(together.float(), wide, atol=0, rtol=1e-2)
    for row in (0, ROWS - 1):
        assert torch.equal(fused_product(x[row : row + 1], weight, scale, arrivals, wide=True)[0], wide[row])
    few = x[:3].clone()
    few[1] = torch.nan  # what other rows hold does not matter
    assert torch.equal(fused_product(few, weight, scale, arrivals, wide=True)[::2], wide[:3:2])


def check_gate(x: Tensor, weight: Tensor, scale: Tensor | None) -> None:
    """Compare the gated product with the product of what is gated; the interpreter truncates to bf16."""
    both = torch.cat([x, x.flip(0)], -1)
    gated = fused_gate(both)

    torch.testing.assert_close(gated.float(), gate(both.float()), atol=1e-7, rtol=torch.finfo(x.dtype).eps)
    arrivals = new_arrivals(weight)
    together = fused_product(both, weight, scale, arrivals, wide=True, gated=True)
    assert torch.equal(together, fused_product(gated, weight, scale, arrivals, wide=True))
    assert torch.equal(
        fused_product(both[1:2], weight, scale, arrivals, wide=True, gated=True)[0], together[1]
    )
