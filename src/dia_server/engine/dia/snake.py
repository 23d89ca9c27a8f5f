"""The codec's Snake activation, x + sin(alpha x)^2 / alpha, fused into one pass over memory.

The codec has 29 Snake layers, on tensors of up to 4 million values per second of audio. Built from torch
operations, a layer reads and writes ten times the size of its input. On a GPU this is more memory traffic
than the convolutions cause. The Triton kernel reads and writes twice the size.
"""

import torch
from torch import Tensor, nn

BLOCK = 1024


class Snake(nn.Module):
    """Replaces a transformers `Snake1d` that has the parameter `alpha` [1, channels, 1]."""

    def __init__(self, alpha: Tensor, *, fused: bool = True) -> None:
        """With `fused`, use the Triton kernel on CUDA; `fused` must be False where Triton does not work."""
        super().__init__()
        self._fused = fused
        self.register_buffer("alpha", alpha.detach())
        self.register_buffer("inverse", (alpha.detach() + 1e-9).reciprocal())
        self.alpha: Tensor
        self.inverse: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x [batch, channels, time] in its shape and dtype."""
        if x.is_cuda and self._fused:
            return fused_snake(x, self.alpha, self.inverse)
        return torch.addcmul(x, torch.sin(x * self.alpha).square_(), self.inverse)


def fused_snake(x: Tensor, alpha: Tensor, inverse: Tensor) -> Tensor:
    """Return the activation of x [batch, channels, time] by the Triton kernel; `inverse` is 1 / `alpha`."""
    from dia_server.engine.dia.kernels import snake_kernel

    x = x.contiguous()
    out = torch.empty_like(x)
    batch, channels, time = x.shape
    grid = (batch * channels, -(-time // BLOCK))
    snake_kernel[grid](x, alpha, inverse, out, channels, time, BLOCK)
    return out
