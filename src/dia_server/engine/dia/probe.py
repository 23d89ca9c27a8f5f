"""A probe that builds and runs this engine's Triton kernels on a device.

Triton compiles each kernel's launcher at run time, with a C compiler and Python's headers. Slim images, many
desktops and Windows lack them.
"""

import torch

from dia_server.engine.dia.attention import fused_attention, plain_attention
from dia_server.engine.dia.memory import is_out_of_memory
from dia_server.engine.dia.snake import Snake, fused_snake


def kernel_fault(device: torch.device, dtype: torch.dtype) -> str | None:
    """Run every kernel on `device` and check its result.

    Returns the cause of the first failure, or None if there is none. Raises out-of-memory errors.
    """
    try:
        _check_attention(device, dtype)
        _check_snake(device)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return cause_of(error)
    return None


def cause_of(error: Exception) -> str:
    """Return the type of `error` and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _check_attention(device: torch.device, dtype: torch.dtype) -> None:
    """Check attention over two blocks, so that both the split and the join kernel run."""
    generator = torch.Generator().manual_seed(0)
    arena = torch.randn(2, 8, 128, 128, generator=generator).to(device, dtype)
    q = (torch.randn(2, 16, 128, generator=generator) / 4).to(device, dtype)
    keys, values = arena.chunk(2, dim=1)
    lengths, rows = (torch.tensor(numbers, device=device) for numbers in ([1, 100], [1, 0]))
    given = (q, keys, values, lengths, rows)
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(fused_attention(*given), plain_attention(*given), atol=tolerance, rtol=0)


def _check_snake(device: torch.device) -> None:
    x = torch.linspace(-5, 5, 3000, device=device).view(1, 3, 1000)
    snake = Snake(torch.tensor([0.5, 1.0, 1.5], device=device).view(1, 3, 1), fused=False)
    torch.testing.assert_close(fused_snake(x, snake.alpha, snake.inverse), snake(x), atol=1e-4, rtol=0)
