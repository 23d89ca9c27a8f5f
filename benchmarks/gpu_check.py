"""Checks that need a GPU, each against a target: `make gpu-check`.

    python -m benchmarks.gpu_check                     the first GPU, 1.6 B parameters
    python -m benchmarks.gpu_check --original ../dia   with the original package, compiled, as a peer

Correctness is checked first (kernels, captured steps), then speed. Exits with status 0 only if every target
is met. Absolute targets are for an H200; on other GPUs the shares of the byte limit are what counts.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.arrivals import arrive, capacity, listen, random_codec, random_loader, started, utterances
from benchmarks.engine import timed
from benchmarks.implementations import Implementation, Original, Ours
from benchmarks.latency import summary
from benchmarks.limits import describe_machine, read_bandwidth, step_bytes, synchronize
from benchmarks.models import SIZES, Workload, random_dia, workload
from dia_server.engine.batch import BEGUN_AT_ONCE
from dia_server.engine.dia.assemble import assemble
from dia_server.engine.dia.attention import fused_attention, plain_attention
from dia_server.engine.dia.background_stream import use_device
from dia_server.engine.dia.codec import Window, plan_chunk
from dia_server.engine.dia.model import DiaModel, ModelOptions
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.types import Recording, Utterance, VoicePrompt
from dia_server.units import FRAME_RATE, GIB, HOP, SAMPLE_RATE

BATCHES = {1: 65.0, 32: 60.0, 64: 60.0}
"""Batch size to the minimum share of the byte limit, in percent."""
BEYOND_ORIGINAL = {1: 3.0, 32: 5.0}
"""Batch size to the minimum speed relative to the original package."""
CODEC_FLOP = 138.5e9
"""Floating-point operations per second of decoded audio."""


@dataclass(frozen=True, slots=True)
class Result:
    what: str
    value: float
    unit: str
    target: float
    at_most: bool = False

    @property
    def holds(self) -> bool:
        return self.value <= self.target if self.at_most else self.value >= self.target

    def __str__(self) -> str:
        verdict, sign = "ok  " if self.holds else "FAIL", "<=" if self.at_most else ">="
        return f"{verdict} {self.what}: {self.value:.4g} {self.unit} ({sign} {self.target:g})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--size", choices=SIZES, default="1.6B")
    parser.add_argument("--original", help="folder of the original package")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu-check needs a GPU that torch can use (CUDA or ROCm); none was found.")
    device, size = options.device, options.size
    use_device(torch.device(device))
    bandwidth = read_bandwidth(device, 8 * GIB)
    print(" ".join(f"{key}={value}" for key, value in describe_machine(device).items()))
    print(f"reads {bandwidth / 1e12:.2f} TB/s")

    results = [*check_kernels(device), check_graphs(device)]
    show(results)
    if not all(result.holds for result in results):
        raise SystemExit("wrong results; speed was not measured")
    checks: list[Callable[[], list[Result]]] = [
        lambda: check_steps(device, size, torch.bfloat16, bandwidth, options.original),
        lambda: [check_stall(device, size, torch.bfloat16)],
        lambda: check_codec(device),
        lambda: asyncio.run(check_serving(device, size)),
    ]
    for check in checks:
        found = check()
        show(found)
        results += found
    raise SystemExit(0 if all(result.holds for result in results) else 1)


def show(results: list[Result]) -> None:
    print(*results, sep="\n", flush=True)


def check_kernels(device: str) -> list[Result]:
    """Compare the split-KV kernel with SDPA at the real sizes and ragged lengths."""
    results = []
    generator = torch.Generator(device).manual_seed(0)
    for rows, heads, kv_heads, columns in ((2, 16, 4, 3072), (128, 16, 4, 3072), (64, 16, 16, 1024)):
        arena = torch.randn(rows, 2 * kv_heads, columns, 128, device=device, generator=generator)
        q = torch.randn(rows, heads, 128, device=device, generator=generator) / 4
        lengths = torch.randint(1, columns + 1, (rows,), device=device, generator=generator)
        lengths[0] = 1
        order = torch.randperm(rows, device=device, generator=generator)
        keys, values = arena.chunk(2, 1)
        expected = plain_attention(q, keys, values, lengths, order)
        for dtype, most in ((torch.float32, 1e-4), (torch.bfloat16, 5e-2)):
            keys, values = arena.to(dtype).chunk(2, 1)
            error = (fused_attention(q.to(dtype), keys, values, lengths, order) - expected).abs().max().item()
            what = f"attention of {rows} rows, {heads}/{kv_heads} heads, {dtype}: error"
            results.append(Result(what, error, "", most, at_most=True))
    return results


def check_graphs(device: str) -> Result:
    """Compare tokens of compiled and uncompiled steps, both captured: greedy, fp32, every bucket up to 4."""
    dia = random_dia("tiny", device, torch.float32, std=0.1)
    plain, compiled = Ours(dia, 4, dia.dtype), Ours(dia, 4, dia.dtype, compiled=True)
    same = total = 0
    for batch in (1, 2, 3, 4):
        work = workload(batch, 100, prompt_frames=20 * (batch % 2), text_bytes=40)
        greedy = Workload(work.texts, work.prompts, work.steps, sampled=False)
        for one, other in zip(plain.generate(greedy), compiled.generate(greedy), strict=True):
            same, total = same + int((one == other).sum()), total + one.numel()
    return Result("compiled steps: tokens equal to uncompiled ones", 100 * same / total, "%", 100)


def check_steps(
    device: str, size: str, dtype: torch.dtype, bandwidth: float, original: str | None
) -> list[Result]:
    """Measure the share of the byte limit and the speed relative to the original, without the codec."""
    steps, results = 512, []
    dia = random_dia(size, device, dtype)
    torch._dynamo.reset()  # the tiny model's graphs would turn sizes into symbols
    ours = Ours(dia, max(BATCHES), dia.dtype, compiled=True)
    peer: Implementation | None = Original(original, dia, compiled=True) if original else None
    for batch, share in BATCHES.items():
        work = workload(batch, steps)
        ours.generate(work)
        seconds = statistics.median(timed(lambda: ours.generate(work), device) for _ in range(3))  # noqa: B023
        limit = step_bytes(ModelConfig.of(dia.config), dtype, device, batch, steps / 2, 200) / bandwidth
        name = f"batch {batch}: {steps / seconds:.0f} steps/s, x{steps / seconds / FRAME_RATE:.1f} each"
        results.append(Result(f"{name}; of the byte limit", 100 * limit * steps / seconds, "%", share))
        if peer is not None and batch in BEYOND_ORIGINAL:
            peer.generate(work)
            theirs = statistics.median(timed(lambda: peer.generate(work), device) for _ in range(3))  # noqa: B023
            ratio = theirs / seconds
            results.append(Result(f"batch {batch}: times the original", ratio, "x", BEYOND_ORIGINAL[batch]))
    print(f"peak memory {torch.cuda.max_memory_allocated(device) / GIB:.1f} GiB")
    return results


def check_stall(device: str, size: str, dtype: torch.dtype) -> Result:
    """Measure the longest extra delay of 28 streams while four join with new prompts of 860 frames."""
    dia = random_dia(size, device, dtype)
    weights = assemble(
        ModelConfig.of(dia.config), dia.state_dict().__getitem__, device=dia.device, dtype=dtype
    )
    model = DiaModel(weights, random_codec(device), 32, ModelOptions(compiled=True))
    model.warm_up()
    noise = np.random.default_rng(0).normal(0, 0.1, 860 * HOP).astype(np.float32)
    for slot, utterance in enumerate(utterances(28, (30.0, 30.0))):
        model.admit(slot, utterance)
    usual = statistics.median(_time_polls(model, 60)[20:])
    longest, joining = 0.0, range(28, 28 + BEGUN_AT_ONCE)
    for round in range(3):
        start = time.perf_counter()
        for slot in joining:
            prompt = VoicePrompt((Recording(noise, f"{round} {slot}"),), "[S1] " + "hello " * 60)
            model.admit(slot, Utterance("[S1] " + "hello " * 100, voice="", seed=0, prompt=prompt))
        admission = time.perf_counter() - start
        during = _time_polls(model, 60)
        during[0] += admission
        longest = max(longest, max(during) - usual)
        for slot in joining:
            model.release(slot)
    synchronize(device)
    model.close()
    what = f"{len(joining)} with prompts of 860 frames join 28 streams: stall"
    return Result(what, 1000 * longest, "ms", 20, at_most=True)


def _time_polls(model: DiaModel, count: int) -> list[float]:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        model.step()
        times.append(time.perf_counter() - start)
    return times


def check_codec(device: str) -> list[Result]:
    """Measure the codec alone; 64 streams need nearly 400 times real time."""
    codec, results = random_codec(device), []
    frames = torch.randint(0, 1024, (300, 9))
    (whole,) = codec.decode([Window(frames, 0, 300)])  # type: ignore[arg-type]
    spans, emitted = [], 0
    while span := plan_chunk(emitted, 300, True):
        spans.append(span)
        emitted += span.n
    windows = [Window(frames[span.start : span.stop], span.left, span.n) for span in spans]  # type: ignore[arg-type]
    error = np.concatenate(codec.decode(windows)) - whole
    decibels = 10 * np.log10(np.mean(whole**2) / np.mean(error**2))
    results.append(Result("codec in windows, against the whole at once", float(decibels), "dB", 60))
    for batch, times in ((1, 50.0), (8, 200.0), (32, 400.0)):
        codes = torch.randint(0, 1024, (batch, 63, 9), device=device)

        def decode(codes: torch.Tensor = codes) -> list[torch.Tensor]:
            with torch.inference_mode():
                return [codec.decode_frames(codes) for _ in range(10)]

        decode()
        seconds = min(timed(decode, device) for _ in range(5)) / 10
        audio = batch * 63 * HOP / SAMPLE_RATE / seconds
        what = f"codec, {batch} windows: {audio * CODEC_FLOP / 1e12:.0f} TFLOP/s, times real time"
        results.append(Result(what, audio, "x", times))
    return results


async def check_serving(device: str, size: str) -> list[Result]:
    """Measure the whole engine with 64 slots and the codec."""
    seconds = (5.0, 15.0)
    engine = await started(random_loader(size, device, 64, codec=True), 256)
    try:
        await capacity(engine, utterances(64, seconds))  # warms up
        alone = [await listen(engine, one) for one in utterances(5, (3.0, 3.0))]
        full = await asyncio.gather(*(listen(engine, one) for one in utterances(64, (10.0, 10.0))))
        most = await capacity(engine, utterances(128, seconds))
        half = summary(await arrive(engine, utterances(128, seconds), 0.5 * most / statistics.mean(seconds)))
    finally:
        await asyncio.to_thread(engine.stop)
    first = 1000 * statistics.median(one.first for one in alone)
    slowest = min(one.audio / one.total for one in full)
    print(f"capacity x{most:.0f} real time")
    return [
        Result("first audio, one request", first, "ms", 60, at_most=True),
        Result("first audio at half of capacity, p95", half["first_audio_p95_ms"], "ms", 150, at_most=True),
        Result("late chunks at half of capacity", half["late_chunks_percent"], "%", 0, at_most=True),
        Result("the slowest of 64 streams, times real time", slowest, "x", 1),
    ]


if __name__ == "__main__":
    main()
