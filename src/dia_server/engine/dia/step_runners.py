"""How a step is launched: eagerly on any device, or on CUDA as one graph for each size of batch.

An eager step is some hundred kernels, each of which costs the host longer to launch than the GPU to run.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from dia_server.engine.dia.background_stream import steps_stream
from dia_server.engine.dia.decoder import Attention, cpu_attention, step
from dia_server.engine.dia.run import Run
from dia_server.engine.dia.state import State
from dia_server.engine.dia.weights import Weights

Step = Callable[[Weights, State, Tensor], None]
"""Makes the next column of the slots in an index vector."""

NOT_FUSED = "the steps cannot be compiled, so they run unfused, which is slower"
NOT_CAPTURED = "the steps cannot be captured as CUDA graphs, so they run eagerly, which is slower"

BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)


class StepRunner(Protocol):
    def run(self, slots: Sequence[int], runs: Sequence[Run], steps: int) -> None:
        """Queue `steps` steps of `slots`, whose host side is `runs`."""


class EagerRunner(StepRunner):
    """Launches a step kernel by kernel."""

    def __init__(self, weights: Weights, state: State, attention: Attention | None) -> None:
        """None has the host tell each length: it knows them where it waits for each poll, on CPUs."""
        self._weights, self._state, self._attention = weights, state, attention

    def run(self, slots: Sequence[int], runs: Sequence[Run], steps: int) -> None:
        index = self._state.upload(torch.tensor(slots))
        text_lengths = [run.text_length for run in runs]
        for i in range(steps):
            columns = [min(run.position + 1 + i, self._state.columns) for run in runs]
            attention = self._attention or cpu_attention(slots, columns, text_lengths)
            step(self._weights, self._state, index, attention)


class CudaGraphRunner(StepRunner):
    """One captured step for each bucket of batch sizes, over a vector of slots that is filled in before."""

    def __init__(self, weights: Weights, state: State, step: Step, report: Callable[[float], None]) -> None:
        self._state = state
        self._sizes = bucket_sizes(state.slots)
        self._indices: dict[int, Tensor] = {}
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        pool = torch.cuda.graph_pool_handle()
        stream = steps_stream(weights.device)  # a graph's kernels keep the priority they are captured with
        for i, size in enumerate(reversed(self._sizes)):  # the largest first: the others reuse its memory
            index = any_size(torch.arange(size, device=weights.device))
            stream.wait_stream(torch.cuda.current_stream(weights.device))
            with torch.cuda.stream(stream):
                step(weights, state, index)  # no slot is live, so this changes nothing
            torch.cuda.current_stream(weights.device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # other threads may go on allocating meanwhile
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                step(weights, state, index)
            self._indices[size], self._graphs[size] = index, graph
            report((i + 1) / len(self._sizes))

    def run(self, slots: Sequence[int], runs: Sequence[Run], steps: int) -> None:
        size = next(size for size in self._sizes if size >= len(slots))
        self._indices[size].copy_(self._state.upload(torch.tensor(padded(slots, size, self._state.slots))))
        for _ in range(steps):
            self._graphs[size].replay()


def capturable_steps(attention: Attention, *, fused: bool) -> deque[tuple[Step, str]]:
    """Return steps to capture, the fastest first, each with what to say if that fails."""
    plain = (partial(step, attention=attention), NOT_CAPTURED)
    return deque([(compiled_step(), NOT_FUSED), plain] if fused else [plain])


def compiled_step(backend: str = "inductor") -> Step:
    """The step, fused: compiled once for batches of one, and once for all others, given as `any_size`."""
    return torch.compile(step, fullgraph=True, backend=backend)


def any_size(index: Tensor) -> Tensor:
    """`index` [B], whose length is not to be compiled in; a length of one is, as shapes broadcast by it."""
    if len(index) > 1:
        torch._dynamo.mark_dynamic(index, 0)
    return index


def bucket_sizes(slots: int) -> tuple[int, ...]:
    """The batch sizes to capture: never more than there are slots, so that distinct ones fill each."""
    return (*(size for size in BUCKETS if size < slots), slots)


def padded(slots: Sequence[int], size: int, available: int) -> list[int]:
    """`slots` and as many others as fill the bucket: a step leaves those that are not live as they are."""
    others = (slot for slot in range(available) if slot not in slots)
    return [*slots, *islice(others, size - len(slots))]
