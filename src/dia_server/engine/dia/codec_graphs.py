"""CUDA graphs of the codec's decoder, one for each shape of a batch.

A batch of short windows launches 100 kernels, most of which take less time than their launch. And a new shape
makes cuDNN search for an algorithm for each of 30 convolutions, so every shape is decoded once at the start.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dia_server.engine.dia.windows import Shape

Decode = Callable[[Tensor, Tensor], Tensor]
"""Function that decodes codes [batch, T, codebooks], of which `frames` [batch] are a window's own."""


class CodecGraph:
    """A captured batch of one shape, with the tensors that it reads and writes."""

    def __init__(
        self, decode: Decode, codes: Tensor, frames: Tensor, pool: Any, stream: torch.cuda.Stream
    ) -> None:
        self._codes, self._frames = codes, frames
        decode(codes, frames)  # outside the capture: cuDNN's search and Triton's compiler
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may allocate during the capture
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._waveforms = decode(codes, frames)

    def run(self, codes: Tensor, frames: Tensor) -> Tensor:
        """Queue the decoding of a batch.

        The waveforms [batch, T * 512] last until the next `run` of any graph.
        """
        self._codes.copy_(codes)
        self._frames.copy_(frames)
        self._graph.replay()
        return self._waveforms


class CodecGraphs:
    """The graphs of all shapes. They share their memory, so only one runs at a time."""

    def __init__(self, decode: Decode, codebooks: int, device: torch.device, shapes: Sequence[Shape]) -> None:
        """Capture `decode` for each of `shapes` on the current stream, which must not be the default one."""
        self._graphs: dict[Shape, CodecGraph] = {}
        pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.current_stream(device)
        # largest first: smaller graphs reuse its memory
        for shape in sorted(shapes, key=lambda one: one.windows * one.length, reverse=True):
            codes = torch.zeros(shape.windows, shape.length, codebooks, dtype=torch.long, device=device)
            frames = torch.full((shape.windows,), shape.length, device=device)
            self._graphs[shape] = CodecGraph(decode, codes, frames, pool, stream)

    def find(self, shape: Shape) -> CodecGraph | None:
        """Return the graph of `shape`; None for a batch of more windows than there are slots."""
        return self._graphs.get(shape)
