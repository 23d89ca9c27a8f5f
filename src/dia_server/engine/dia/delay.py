"""The delay pattern: channel c of frame f is in column f + 1 + delay[c].

Column 0 and every position before a channel's first frame hold BOS. With delays of 0 to 15, frame f is
complete once column f + 16 is known, and a run ends 15 columns after channel 0's EOS.
"""

from collections.abc import Sequence

import torch
from torch import LongTensor, Tensor

UNKNOWN = -1
"""Placeholder for a token that has not been sampled."""


def delayed(frames: Tensor, delay: Sequence[int], bos: int) -> LongTensor:
    """Return columns [T + 1 + max(delay), channels] of frames [T, channels].

    Positions after a channel's last frame are UNKNOWN.
    """
    count = len(frames)
    columns = torch.full((count + 1 + max(delay), len(delay)), UNKNOWN)
    for channel, shift in enumerate(delay):
        columns[: shift + 1, channel] = bos
        columns[shift + 1 : shift + 1 + count, channel] = frames[:, channel]
    return columns  # type: ignore[return-value]


def undelayed(columns: Tensor, start: int, stop: int, delay: Sequence[int]) -> LongTensor:
    """Return frames [start, stop) from `columns`, which must have at least stop + max(delay) + 1 rows."""
    frames = [columns[start + 1 + shift : stop + 1 + shift, c] for c, shift in enumerate(delay)]
    return torch.stack(frames, dim=1)  # type: ignore[return-value]
