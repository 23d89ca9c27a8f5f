"""The delay pattern: channel c of frame f stands in column f + 1 + delay[c].

Column 0 and whatever lies before a channel's first frame is BOS. With delays of 0 to 15 a frame is complete
once the column 16 after it is known, and a run ends 15 columns after channel 0's EOS.
"""

from collections.abc import Sequence

import torch
from torch import LongTensor, Tensor

UNKNOWN = -1
"""A token that is still to be sampled."""


def delayed(frames: Tensor, delay: Sequence[int], bos: int) -> LongTensor:
    """Frames [T, channels] to the columns [T + 1 + max delay, channels] that they determine."""
    count = len(frames)
    columns = torch.full((count + 1 + max(delay), len(delay)), UNKNOWN)
    for channel, shift in enumerate(delay):
        columns[: shift + 1, channel] = bos
        columns[shift + 1 : shift + 1 + count, channel] = frames[:, channel]
    return columns  # type: ignore[return-value]


def undelayed(columns: Tensor, start: int, stop: int, delay: Sequence[int]) -> LongTensor:
    """Frames [start, stop) of the columns [>= stop + max delay + 1, channels]."""
    frames = [columns[start + 1 + shift : stop + 1 + shift, c] for c, shift in enumerate(delay)]
    return torch.stack(frames, dim=1)  # type: ignore[return-value]
