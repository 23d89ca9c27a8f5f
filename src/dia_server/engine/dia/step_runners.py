"""Runs a poll's decode steps: eagerly on any device, or on CUDA as one captured graph per batch size.

An eager step launches hundreds of kernels, and the host takes longer to launch each than the GPU to run it. A
graph holds all steps of a poll and the copy of their results to the host, so a poll is one launch.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from dia_server.engine.dia.background_stream import steps_stream
from dia_server.engine.dia.decoder import step
from dia_server.engine.dia.poll import FACTS, results
from dia_server.engine.dia.state import State
from dia_server.engine.dia.step_ops import MakeOps
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
BUCKETS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
"""Batch sizes for which a graph is captured if they are below the number of slots.

One more graph is captured for a batch of all slots. A batch of another size is padded to the next captured
size with slots that are not live. A batch of one is padded too: a step of one slot is compiled by itself, and
may sum in another order.
"""


class StepRunner(Protocol):
    def run(self, slots: Sequence[int], steps: int) -> Tensor:
        """Queue `steps` decode steps of `slots`, and the copy of their results to the host.

        Returns the `poll.results`, in memory of the host; the next call but one may overwrite them.
        """


class EagerRunner(StepRunner):
    """Launches each step kernel by kernel."""

    def __init__(self, weights: Weights, state: State, make_ops: MakeOps) -> None:
        self._weights, self._state, self._make_ops = weights, state, make_ops

    def run(self, slots: Sequence[int], steps: int) -> Tensor:
        index = self._state.upload(torch.tensor(slots))
        before = self._state.position[index]
        for _ in range(steps):
            step(self._weights, self._state, index, self._make_ops)
        values = results(self._state, index, before, steps)
        return _host_memory(values.shape, values.device).copy_(values, non_blocking=values.is_cuda)


class CapturedPoll:
    """The graph of one batch size, with the tensors that it reads and writes.

    The results of two polls are kept: the host reads those of one poll while the next one runs. Each replay
    replaces the older ones on the device and copies both, so what the host reads is only written with the
    same values.
    """

    def __init__(self, weights: Weights, state: State, step: Step, steps: int, size: int) -> None:
        """Prepare a poll of `steps` steps of `size` slots; `capture` must come before `run`."""
        self._weights, self._state, self._step, self._steps = weights, state, step, steps
        self._index = any_size(torch.arange(size, device=weights.device))
        shape = (2, size, FACTS + steps * weights.config.channels)
        self._kept = torch.zeros(shape, dtype=torch.long, device=weights.device)
        self._host = _host_memory(shape, weights.device)
        self._turn = torch.zeros(1, dtype=torch.long, device=weights.device)
        """[1]: which of the kept results the next replay replaces."""
        self._replays = 0

    def capture(self, pool: Any, stream: torch.cuda.Stream) -> None:
        current = torch.cuda.current_stream(self._weights.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._queue()  # warm-up: no slot is live, so no token changes
        current.wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may allocate during the capture
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._queue()
        self._turn.zero_()

    def run(self, slots: Sequence[int]) -> Tensor:
        """Queue a poll of `slots`, as many as the graph was captured for; return its results on the host."""
        self._index.copy_(self._state.upload(torch.tensor(slots)))
        self._graph.replay()
        self._replays += 1
        return self._host[(self._replays - 1) % 2]

    def _queue(self) -> None:
        before = self._state.position[self._index]
        for _ in range(self._steps):
            self._step(self._weights, self._state, self._index)
        values = results(self._state, self._index, before, self._steps)
        self._kept.index_copy_(0, self._turn, values[None])
        self._turn.sub_(1).abs_()  # 0 and 1 take turns
        self._host.copy_(self._kept, non_blocking=True)


class CudaGraphRunner(StepRunner):
    """Holds a graph of a poll for each captured batch size; `run` pads the slots to the next such size."""

    def __init__(
        self, weights: Weights, state: State, step: Step, report: Callable[[float], None], steps: int
    ) -> None:
        """Capture polls of `steps` steps; `report` receives the share of graphs captured, 0 to 1."""
        self._slots, self._steps = state.slots, steps
        self._polls: dict[int, CapturedPoll] = {}
        sizes = bucket_sizes(state.slots)
        pool = torch.cuda.graph_pool_handle()
        stream = steps_stream(weights.device)  # a graph's kernels keep the priority they are captured with
        for i, size in enumerate(reversed(sizes)):  # largest first: smaller graphs reuse its memory
            poll = CapturedPoll(weights, state, step, steps, size)
            poll.capture(pool, stream)
            self._polls[size] = poll
            report((i + 1) / len(sizes))

    def run(self, slots: Sequence[int], steps: int) -> Tensor:
        """Queue as many polls as `steps` takes, which is a multiple; return the results of the last one."""
        assert steps % self._steps == 0
        size = min(size for size in self._polls if size >= len(slots))
        for _ in range(steps // self._steps):
            values = self._polls[size].run(padded(slots, size, self._slots))
        return values[: len(slots)]


def _host_memory(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return memory of the host for results int64 of `shape`, to which `device` can copy asynchronously."""
    return torch.empty(tuple(shape), dtype=torch.long, pin_memory=device.type == "cuda")


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
