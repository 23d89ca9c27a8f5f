"""The codec's CUDA graphs, recorded and replayed on a CPU."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from dia_server.engine.dia import codec as codec_module
from dia_server.engine.dia.codec import CODEBOOKS, Codec
from dia_server.engine.dia.codec_graphs import CodecGraphs
from dia_server.engine.dia.windows import SHAPES, Shape, Window
from tests.engine.dia.recorded_graphs import record_graphs
from tests.engine.dia.tiny import tiny_dac

CPU = torch.device("cpu")


def window(frames: int, n: int, seed: int) -> Window:
    codes = torch.randint(0, 1024, (frames, CODEBOOKS), generator=torch.Generator().manual_seed(seed))
    return Window(codes, frames - n, n)  # type: ignore[arg-type]


@torch.inference_mode()
def test_graphs_decode_what_an_eager_codec_does(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = [
        window(frames, n, seed) for seed, (frames, n) in enumerate([(14, 4), (9, 9), (17, 3), (14, 4)])
    ]
    codec = Codec(tiny_dac())
    expected = codec.decode(windows)
    graphs = record_graphs(monkeypatch)
    codec._graphs = CodecGraphs(
        codec.decode_frames, CODEBOOKS, CPU, [Shape(1, 14), Shape(2, 14), Shape(1, 18)]
    )

    made = codec.decode(windows)

    assert [graph.replays for graph in graphs] == [0, 1, 3]  # the largest is captured first
    for one, other in zip(made, expected, strict=True):
        assert np.array_equal(one, other)


@torch.inference_mode()
def test_a_graph_decodes_a_batch_of_windows_of_different_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(tiny_dac())
    record_graphs(monkeypatch)
    graph = CodecGraphs(codec.decode_frames, CODEBOOKS, CPU, [Shape(2, 14)]).find(Shape(2, 14))
    assert graph is not None
    long, short = window(14, 14, 0).frames, window(5, 5, 1).frames
    codes = torch.zeros(2, 14, CODEBOOKS, dtype=torch.long)
    codes[0], codes[1, :5] = long, short

    waveforms = graph.run(codes, torch.tensor([14, 5]))

    for waveform, frames in zip(waveforms, (long, short), strict=True):
        alone = codec.decode_frames(frames[None])[0]
        assert torch.allclose(waveform[: len(alone)], alone, atol=1e-6)


def test_only_shapes_that_the_slots_can_fill_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[Sequence[Shape]] = []
    monkeypatch.setattr(codec_module, "CodecGraphs", lambda *args: captured.append(args[-1]))
    codec = Codec(tiny_dac())
    codec.warm_up(64)
    codec.device = torch.device("cuda")

    codec.warm_up(3)
    codec.warm_up(64)

    few, all_of_them = captured  # and none on the CPU
    assert max(shape.windows for shape in few) == 2
    assert list(all_of_them) == list(SHAPES)
