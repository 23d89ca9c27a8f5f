"""The codec alone. Its speed counts what is used: 172 frames of a window of 192, without context."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from benchmarks.arrivals import random_dac
from benchmarks.gpu.report import Report
from benchmarks.gpu.setup import Setup, elapsed, time_each
from dia_server.engine.dia.codec import CODEBOOKS, Codec
from dia_server.engine.dia.windows import CONTEXT, LENGTHS, LONGEST, Shape, Window, plan_chunk
from dia_server.engine.types import Samples
from dia_server.units import FRAME_RATE

TIMES = {Shape(1, 14): None, Shape(4, 64): 200.0, Shape(1, LONGEST): 400.0}
"""Shapes to the minimum times real time: 64 streams need nearly 400."""
UTTERANCE = 300
"""Frames of the utterance that is decoded in windows."""
LEAST_DB = 60.0
"""Minimum signal-to-noise ratio of audio decoded in windows."""
LEAST_CAPTURED_DB = 40.0
"""Minimum signal-to-noise ratio of captured windows against eager ones; TF32's own is about 50."""
CALLS = 4

Decode = Callable[[Tensor], Tensor]
"""The decoder, from hidden [batch, channels, T] to waveforms [batch, 1, T * 512]."""


def run(setup: Setup, report: Report) -> None:
    dac = random_dac(setup.size)
    codec = Codec(dac, setup.device)
    decoder: Decode = dac.decoder
    with report.part("windows"), torch.inference_mode():
        _check_windows(setup, report, codec)
    hidden = torch.randn(1, dac.config.hidden_size, LONGEST, device=setup.device)
    with torch.inference_mode(), _tf32(False):
        exact = decoder(hidden)
    with report.part("tf32"), torch.inference_mode():
        _measure(setup, report, decoder, hidden, exact, "tf32" if setup.on_gpu else "fp32")
    if setup.on_gpu:
        with report.part("fp32"), torch.inference_mode(), _tf32(False):
            _measure(setup, report, decoder, hidden, exact, "fp32")
        with report.part("fp16"), torch.inference_mode():
            half = deepcopy(dac).cpu()
            Codec(half, setup.device, half=True)  # converts its convolutions
            _measure(setup, report, _over_rows(half.decoder), hidden, exact, "fp16")


def _over_rows(decoder: Decode) -> Decode:
    """Return `decoder`, whose convolutions are 2-D and in fp16, as one of hidden [batch, channels, T]."""

    def decode(hidden: Tensor) -> Tensor:
        rows = hidden[:, :, None].to(torch.float16, memory_format=torch.channels_last)
        return decoder(rows).squeeze(2)

    return decode


def _check_windows(setup: Setup, report: Report, codec: Codec) -> None:
    """Compare an utterance decoded in windows with the same one decoded as a whole; time it cold and warm.

    They are compared in fp32: in TF32 audio depends on the shapes, because cuDNN sums in another order.
    """
    frames = torch.randint(0, 1024, (UTTERANCE, CODEBOOKS), generator=torch.Generator().manual_seed(0))
    spans, emitted = [], 0
    while span := plan_chunk(emitted, UTTERANCE, True):
        spans.append(span)
        emitted += span.n
    windows = [Window(frames[span.start : span.stop], span.left, span.n) for span in spans]  # type: ignore[arg-type]
    what = f"{UTTERANCE} frames in {len(windows)} windows"
    with _tf32(False):
        whole = codec.decode_frames(frames[None].to(codec.device))[0].cpu().numpy()
        error = np.concatenate(codec.decode(windows)) - whole
    report.measured(f"{what}, against the whole at once", _decibels(whole, error), "dB", at_least=LEAST_DB)

    def timed(kind: str) -> Samples:
        cold = elapsed(lambda: codec.decode(windows), setup.device)
        warm = elapsed(lambda: codec.decode(windows), setup.device)
        report.measured(f"{what}, {kind}", 1000 * warm, "ms", first_time_ms=round(1000 * cold, 2))
        return np.concatenate(codec.decode(windows))

    eager = timed("eager")
    if setup.on_gpu:
        with torch.cuda.stream(torch.cuda.Stream(setup.device)):  # type: ignore[no-untyped-call]
            codec.warm_up(1)
        noise = _decibels(eager, timed("captured") - eager)
        report.measured(f"{what}, captured against eager", noise, "dB", at_least=LEAST_CAPTURED_DB)


def _measure(
    setup: Setup, report: Report, decoder: Decode, hidden: Tensor, exact: Tensor, precision: str
) -> None:
    """Report error and speed of `decoder` on windows hidden [1, channels, LONGEST], for several shapes."""
    found = decoder(hidden)
    noise = _decibels(exact.float().cpu().numpy(), (found.float() - exact).cpu().numpy())
    report.measured(f"codec in {precision}, against fp32", noise, "dB")
    has_targets = setup.has_targets and precision == "tf32"
    for shape, times in TIMES.items() if setup.on_gpu else [(Shape(1, 14), None)]:
        windows = hidden[..., : shape.length].repeat(shape.windows, 1, 1)
        cold = elapsed(lambda: decoder(windows), setup.device)  # noqa: B023
        warm = time_each(lambda: decoder(windows), CALLS, setup.device)  # noqa: B023
        left = 0 if shape.length == LENGTHS[0] else CONTEXT
        used = shape.windows * (shape.length - left - CONTEXT)
        report.measured(
            f"codec in {precision}, {shape.windows} windows of {shape.length} frames: times real time",
            used / FRAME_RATE / warm,
            "x",
            at_least=times if has_targets else None,
            ms=round(1000 * warm, 3),
            first_time_ms=round(1000 * cold, 2),
        )


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Let convolutions use TF32 in the block, or not."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _decibels(signal: Samples, error: Samples) -> float:
    """Return the signal-to-noise ratio in decibels, 200 at most."""
    power, noise = (float(np.square(samples, dtype=np.float64).mean()) for samples in (signal, error))
    return min(200.0, 10 * math.log10(power / max(noise, 1e-30)))
