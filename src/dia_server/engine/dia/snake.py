"""The codec's Snake activation, x + sin(alpha x)^2 / alpha, fused into one pass over memory.

The codec has 29 Snake layers, on tensors of up to 4 million values per second of audio. Built from torch
operations, a layer reads and writes ten times the size of its input. On a GPU this is more memory traffic
than the convolutions cause. The Triton kernel reads and writes twice the size.

The decoder's layers also set the padding of windows to zero: see `Padding`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

BLOCK = 1024


class Padding(NamedTuple):
    """The frames of padded windows that are their own.

    A convolution pads its input with zeros. Each convolution of the decoder but the first follows a Snake
    layer, so zeros there, in place of what padded frames have become, give a window the samples that it has
    without padding.
    """

    frames: Tensor
    """[batch] int64: frames of each window, at most `length`."""
    length: int
    """Frames of a padded window; a layer's tensors have a multiple of it."""

    def mask(self, time: int) -> Tensor:
        """Return [batch, time]: whether a sample of a layer with `time` samples is the window's own."""
        samples = self.frames * (time // self.length)
        return torch.arange(time, device=samples.device) < samples[:, None]


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

    def forward(self, x: Tensor, padding: Padding | None = None) -> Tensor:
        """Return the activation of x in its shape and dtype, 0 in the `padding`.

        x is [batch, channels, time], or [batch, channels, 1, time] with the channels last in memory. It is
        computed in the dtype of `alpha`.
        """
        if x.is_cuda and self._fused:
            return fused_snake(x, self.alpha, self.inverse, padding)
        channels = (-1, *[1] * (x.dim() - 2))
        alpha, inverse = self.alpha.view(channels), self.inverse.view(channels)
        wide = x.to(alpha.dtype)
        y = torch.addcmul(wide, torch.sin(wide * alpha).square_(), inverse)
        if padding is not None:
            y.mul_(padding.mask(x.shape[-1]).view(len(x), *[1] * (x.dim() - 2), -1))
        return y.to(x.dtype)


def fused_snake(x: Tensor, alpha: Tensor, inverse: Tensor, padding: Padding | None = None) -> Tensor:
    """Return the activation of x, as `Snake` does, by the Triton kernel; `inverse` is 1 / `alpha`."""
    from dia_server.engine.dia.kernels import snake_kernel

    channels_last = x.dim() == 4
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    out = torch.empty_like(x)
    batch, channels, time = x.shape[0], x.shape[1], x.shape[-1]
    rows, size = (batch, time * channels) if channels_last else (batch * channels, time)
    frames, scale = (x, 0) if padding is None else (padding.frames, time // padding.length)
    snake_kernel[rows, -(-size // BLOCK)](
        *(x, alpha, inverse, frames, out, channels, time, scale),
        CHANNELS_LAST=channels_last,
        PADDED=padding is not None,
        BLOCK=BLOCK,
    )
    return out
