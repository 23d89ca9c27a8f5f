"""CUDA graphs on a machine without a GPU: a capture records operations, a replay runs them again."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = ("_local_scalar_dense", "is_nonzero", "equal.default", "nonzero.default", "lift_fresh")
"""Operations for which the host waits for the device, or which copy a value that the host has computed."""


class RecordedGraph:
    """Stands in for `torch.cuda.CUDAGraph`.

    A replay runs the operations of the capture on the same tensors, and writes their results into the tensors
    that the capture returned. Unlike a real capture, this one also runs the operations.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, made in self.calls:
            for old, new in zip(tree_leaves(made), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in WAITS), func
        made = func(*args, **kwargs or {})
        self.graph.calls.append((func, args, kwargs or {}, made))
        return made


class NoStream:
    """Stands in for a CUDA stream."""

    def wait_stream(self, other: "NoStream") -> None:
        pass


def record_graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """Let captures record their graphs; returns those, in the order of the captures."""
    graphs: list[RecordedGraph] = []

    @contextmanager
    def capture(
        graph: RecordedGraph, *, pool: str, stream: NoStream, capture_error_mode: str
    ) -> Iterator[None]:
        assert (pool, capture_error_mode) == ("pool", "thread_local")
        graphs.append(graph)
        with Recorder(graph):
            yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: NoStream())
    monkeypatch.setattr(torch.cuda, "Stream", lambda *args, **kwargs: NoStream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    return graphs
