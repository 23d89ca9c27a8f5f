"""Polls as CUDA graphs, recorded and replayed on a CPU."""

from functools import partial

import pytest
import torch

from dia_server.engine.dia import cpu_ops
from dia_server.engine.dia.decoder import step
from dia_server.engine.dia.model import STEPS_PER_POLL, DiaModel
from dia_server.engine.dia.step_ops import PlainOps
from dia_server.engine.dia.step_runners import CudaGraphRunner
from dia_server.engine.types import Utterance
from tests.engine.dia.drive import CodesAsAudio, drive, frames_of, weights_of
from tests.engine.dia.recorded_graphs import record_graphs
from tests.engine.dia.tiny import tiny_dia

SLOTS = 3


def test_a_poll_is_one_graph_whose_results_the_host_reads_a_poll_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = weights_of(tiny_dia(ends=False))
    asked = [Utterance(f"[S1] Number {n}.", "", seed=n, max_tokens=22 + 5 * n) for n in range(SLOTS)]
    expected = drive(DiaModel(weights, CodesAsAudio(), SLOTS), asked)
    graphs = record_graphs(monkeypatch)
    # as on CUDA: a graph records what PyTorch does, not what NumPy and Numba do on CPUs
    monkeypatch.setattr(cpu_ops, "suits", lambda x: False)
    model = DiaModel(weights, CodesAsAudio(), SLOTS)
    shares: list[float] = []
    plain = partial(step, make_ops=PlainOps)
    model._depth = 1  # as on CUDA: a poll's results are read after the next poll was queued
    model._runner = runner = CudaGraphRunner(weights, model._state, plain, shares.append, STEPS_PER_POLL)
    polls = 0
    run = runner.run

    def counted(*args: object) -> torch.Tensor:
        nonlocal polls
        polls += 1
        return run(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "run", counted)

    made = drive(model, asked)

    for chunks, same in zip(made, expected, strict=True):
        assert torch.equal(frames_of(chunks), frames_of(same))
    assert shares == [1 / 2, 1.0]
    assert polls == sum(graph.replays for graph in graphs)
    assert [graph.replays > 0 for graph in graphs] == [True, True]  # of three and two slots
