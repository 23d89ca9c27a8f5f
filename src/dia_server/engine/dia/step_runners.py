"""Runs decode steps: eagerly on any device, or on CUDA as one captured graph per batch size.

An eager step launches hundreds of kernels, and the host takes longer to launch each than the GPU to run it.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from dia_server.engine.dia.background_stream import steps_stream
from dia_server.engine.dia.decoder import step
from dia_server.engine.dia.run import Run
from dia_server.engine.dia.state import State
from dia_server.engine.dia.step_ops import CpuOps, HostLengths, MakeOps
from dia_server.engine.dia.weights import Weights

Step = Callable[[Weights, State, Tensor], None]
"""Function (weights, state, slots [B]) that samples the next column of the live slots among `slots`."""

NOT_FUSED = "the steps cannot be compiled, so they run unfused, which is slower"
NOT_CAPTURED = "the steps cannot be captured as CUDA graphs, so they run eagerly, which is slower"

INDUCTOR: Mapping[str, int] = {"unroll_reductions_threshold": 16, "comprehensive_padding": False}
"""Options of inductor, each of which saves a kernel.

Unrolled, the sum of nine channels' embeddings joins the kernel of the first norm. Logits in padded rows would
be copied for the kernel that commits a column.
"""
BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
"""Batch sizes for which a graph is captured if they are below the number of slots.

One more graph is captured for a batch of all slots. A batch of another size is padded to the next captured
size with slots that are not live.
"""


class StepRunner(Protocol):
    def run(self, slots: Sequence[int], runs: Sequence[Run], steps: int) -> None:
        """Queue `steps` decode steps of `slots`; `runs` are the slots' runs, in the same order."""


class EagerRunner(StepRunner):
    """Launches each step kernel by kernel."""

    def __init__(self, weights: Weights, state: State, make_ops: MakeOps | None) -> None:
        """`make_ops` is None on CPUs.

        Each step then uses `CpuOps`, which slice by the lengths that the host knows.
        """
        self._weights, self._state, self._make_ops = weights, state, make_ops

    def run(self, slots: Sequence[int], runs: Sequence[Run], steps: int) -> None:
        index = self._state.upload(torch.tensor(slots))
        text_lengths = [run.text_length for run in runs]
        for i in range(steps):
            columns = [min(run.position + 1 + i, self._state.columns) for run in runs]
            known = partial(CpuOps, HostLengths(slots, columns, text_lengths))
            step(self._weights, self._state, index, self._make_ops or known)


class CudaGraphRunner(StepRunner):
    """Holds for each captured batch size a graph of one step and the index vector that the graph reads.

    `run` pads the slots to the next captured size, writes them into that size's index vector and replays the
    graph once per step.
    """

    def __init__(self, weights: Weights, state: State, step: Step, report: Callable[[float], None]) -> None:
        self._state = state
        self._sizes = bucket_sizes(state.slots)
        self._indices: dict[int, Tensor] = {}
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        pool = torch.cuda.graph_pool_handle()
        stream = steps_stream(weights.device)  # a graph's kernels keep the priority they are captured with
        for i, size in enumerate(reversed(self._sizes)):  # largest first: smaller graphs reuse its memory
            index = any_size(torch.arange(size, device=weights.device))
            stream.wait_stream(torch.cuda.current_stream(weights.device))
            with torch.cuda.stream(stream):
                step(weights, state, index)  # warm-up: no slot is live, so no token changes
            torch.cuda.current_stream(weights.device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # thread_local: other threads may allocate during the capture
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                step(weights, state, index)
            self._indices[size], self._graphs[size] = index, graph
            report((i + 1) / len(self._sizes))

    def run(self, slots: Sequence[int], runs: Sequence[Run], steps: int) -> None:
        size = next(size for size in self._sizes if size >= len(slots))
        self._indices[size].copy_(self._state.upload(torch.tensor(padded(slots, size, self._state.slots))))
        for _ in range(steps):
            self._graphs[size].replay()


def capturable_steps(make_ops: MakeOps, device: torch.device, *, fused: bool) -> deque[tuple[Step, str]]:
    """Return the steps to capture on `device`, fastest first; empty on devices without CUDA graphs.

    Each comes with the note for the operator if its capture fails. `fused` adds the compiled step.
    """
    if device.type != "cuda":
        return deque()
    plain = (partial(step, make_ops=make_ops), NOT_CAPTURED)
    return deque([(compiled_step(), NOT_FUSED), plain] if fused else [plain])


def compiled_step(backend: str = "inductor") -> Step:
    """Return the compiled step: compiled once for batches of one and once for all others (see `any_size`)."""
    return torch.compile(
        step, fullgraph=True, backend=backend, options=dict(INDUCTOR) if backend == "inductor" else None
    )


def any_size(index: Tensor) -> Tensor:
    """Mark the length of `index` [B] as dynamic, so that one compilation serves every batch size above 1.

    A length of 1 stays static: it broadcasts, so it needs a compilation of its own.
    """
    if len(index) > 1:
        torch._dynamo.mark_dynamic(index, 0)
    return index


def bucket_sizes(slots: int) -> tuple[int, ...]:
    """Return the batch sizes to capture: the BUCKETS below `slots`, and `slots`, the largest batch."""
    return (*(size for size in BUCKETS if size < slots), slots)


def padded(slots: Sequence[int], size: int, available: int) -> list[int]:
    """Return `slots` and as many others, of `available` slots in all, as make `size`.

    The others must not be live: a step then samples nothing for them.
    """
    others = (slot for slot in range(available) if slot not in slots)
    return [*slots, *islice(others, size - len(slots))]
