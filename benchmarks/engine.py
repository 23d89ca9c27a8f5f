"""Decode steps per second of this engine and of its peers, with equal random weights and equal work.

    python -m benchmarks.engine                              one CPU thread, 115 M parameters
    python -m benchmarks.engine --device cuda --size 1.6B --batches 1 8 32 64 --prompt 860
    python -m benchmarks.engine --original ../dia            with the original package as a peer
    python -m benchmarks.engine --formats bfloat16 float16 int8 --caches     number formats of this engine

Parity is checked first: unless greedy tokens in fp32 equal transformers', nothing is measured. Then, for each
batch size, the implementations run in turn for several rounds. A time covers a whole call, from text to last
token, without warm-up (compilation, graph capture). Reported are medians and the spread of the rounds. On the
CPU it is process time, which is meaningful for one thread only.

`--dtype` is the model's dtype. On a CPU without bf16 arithmetic transformers is very slow in bf16, while this
engine stores fp16 and computes in fp32 by default; transformers is then measured in fp32 too. `--formats`
names the number formats of this engine, and `--peer-formats` the dtypes of transformers. All are compared
with the first of this engine's.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.implementations import Implementation, Original, Ours, Transformers
from benchmarks.limits import describe_machine, read_bandwidth, step_bytes, synchronize
from benchmarks.models import SIZES, Workload, random_dia, workload
from dia_server.engine.dia.loader import pick_dtype
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.weights import compute_dtype
from dia_server.units import FRAME_RATE, GIB


@dataclass(slots=True)
class Measured:
    warm_up: float
    """Seconds of the first call, which compiles and selects kernels."""
    seconds: list[float] = field(default_factory=list)
    """Seconds of each round."""
    peak: int = 0
    """Peak bytes allocated on the GPU, including the other implementations."""


def main() -> None:
    options = parse()
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as `dia-server serve` does; the peers gain by it too
    torch.set_num_threads(1)
    dtype = getattr(torch, options.dtype)
    check_parity(options.device)
    machine = describe_machine(options.device)
    bandwidth = read_bandwidth(options.device, 2 * GIB if options.device == "cpu" else 8 * GIB)
    print(" ".join(f"{key}={value}" for key, value in machine.items()))
    print(f"reads {bandwidth / 1e9:.1f} GB/s; {options.size} parameters in {options.dtype}")

    dia = random_dia(options.size, options.device, dtype)
    on_cuda = options.device.startswith("cuda")
    slots = max([*options.batches, *options.prompted, options.arrivals])
    own, *others = own_formats(options, dia.device, dtype)
    ours = Ours(dia, slots, own, compiled=on_cuda)
    peers: list[Implementation] = [Ours(dia, slots, other, compiled=on_cuda) for other in others]
    for other in peer_formats(options, ours.dtype, dtype):
        model = dia if other == dtype else random_dia(options.size, options.device, other)
        peers += [Transformers(model, cache) for cache in options.caches]
    if options.original:
        peers.append(Original(options.original, dia, compiled=on_cuda))

    shape, rows = ModelConfig.of(dia.config), []
    cases = [(batch, 0) for batch in options.batches] + [
        (batch, options.prompt) for batch in options.prompted
    ]
    for batch, prompt in cases:
        work = workload(batch, options.steps, prompt_frames=prompt)
        times = measure([ours, *peers], work, options.rounds, options.device)
        for implementation, measured in zip([ours, *peers], times, strict=True):
            columns, kind = prompt + options.steps / 2, implementation.dtype
            int8 = implementation.format == "int8"
            read = step_bytes(shape, kind, options.device, batch, columns, 200, int8=int8)
            rows.append(row(implementation, measured, work, times[0], read / bandwidth))
        print_rows(rows[-len(times) :])
    if options.arrivals:
        arrivals = [compare_arrivals(ours, peer, options) for peer in peers if "dynamic" in peer.name]
        print(json.dumps(arrivals, indent=2))
    else:
        arrivals = []
    if options.json:
        report = {
            "date": date.today().isoformat(),
            "machine": machine,
            "bandwidth": bandwidth,
            "options": vars(options) | {"json": str(options.json)},
            "rows": rows,
            "arrivals": arrivals,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--formats", nargs="*", help="of this engine; default: what it chooses")
    parser.add_argument("--peer-formats", nargs="*", help="dtypes of transformers; default: see above")
    parser.add_argument("--size", choices=SIZES, default="115M")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4, 8])
    parser.add_argument("--prompt", type=int, default=1000, help="frames of the voice prompt")
    parser.add_argument("--prompted", type=int, nargs="*", default=[1, 4], help="batches that have one")
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--caches", nargs="*", default=["dynamic", "static"], help="of transformers")
    parser.add_argument("--arrivals", type=int, default=8, help="requests that arrive one by one; 0 for none")
    parser.add_argument("--polls-between", type=int, default=1, help="between two arrivals")
    parser.add_argument("--original", help="folder of the original package")
    parser.add_argument("--json", type=Path, help="file for the results")
    return parser.parse_args()


def own_formats(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> list[str]:
    """Return the number formats in which this engine is measured."""
    if options.formats:
        return list(options.formats)
    own = pick_dtype("auto", device, max(options.batches or [1])) if dtype == torch.bfloat16 else dtype
    return [str(own).removeprefix("torch.")]


def peer_formats(options: argparse.Namespace, own: torch.dtype, dtype: torch.dtype) -> list[torch.dtype]:
    """Return the dtypes of transformers; `own` is the first of this engine, `dtype` that of the model."""
    if options.peer_formats:
        return [getattr(torch, name) for name in options.peer_formats]
    if own == dtype or not options.caches:
        return [dtype]
    return [dtype, compute_dtype(own, torch.device(options.device))]


def check_parity(device: str) -> None:
    """Exit unless greedy tokens equal transformers'.

    Weights of standard deviation 0.1 make the tokens depend on the whole input; with 0.2, rounding errors
    would change some of them.
    """
    dia = random_dia("tiny", device, torch.float32, std=0.1)
    ours, reference = Ours(dia, 3, "float32"), Transformers(dia, "dynamic")
    for prompt in (0, 20):
        work = workload(3, 60, prompt_frames=prompt, text_bytes=40)
        greedy = Workload(work.texts, work.prompts, work.steps, sampled=False)
        for tokens, expected in zip(ours.generate(greedy), reference.generate(greedy), strict=True):
            if not torch.equal(tokens, expected):
                raise SystemExit(f"The tokens differ from transformers' (prompt of {prompt} frames)")
    print("parity: greedy tokens equal transformers'")


def measure(
    implementations: Sequence[Implementation], work: Workload, rounds: int, device: str
) -> list[Measured]:
    """Warm up each implementation with one call, then time interleaved rounds."""
    first = Workload(work.texts, work.prompts, 32) if device == "cpu" else work
    results = [Measured(timed(lambda: one.generate(first), device)) for one in implementations]  # noqa: B023
    for _ in range(rounds):
        for implementation, result in zip(implementations, results, strict=True):
            if device != "cpu":
                torch.cuda.reset_peak_memory_stats(device)
            result.seconds.append(timed(lambda: implementation.generate(work), device))  # noqa: B023
            if device != "cpu":
                result.peak = max(result.peak, torch.cuda.max_memory_allocated(device))
    return results


def timed(call: Callable[[], list[Tensor]], device: str) -> float:
    """Return the seconds of `call`: process time on the CPU, where other load distorts it less."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    synchronize(device)
    start = clock()
    call()
    synchronize(device)
    return clock() - start


def row(
    implementation: Implementation, measured: Measured, work: Workload, ours: Measured, limit: float
) -> dict[str, Any]:
    seconds, steps = measured.seconds, work.steps
    median = statistics.median(seconds)
    return {
        "name": implementation.name,
        "dtype": implementation.format,
        "batch": len(work.texts),
        "prompt": work.prompt_frames,
        "seconds": seconds,
        "steps_per_s": steps / median,
        "real_time_each": steps / median / FRAME_RATE,
        "real_time_total": len(work.texts) * steps / median / FRAME_RATE,
        "percent_of_byte_limit": 100 * limit * steps / median,
        "spread_percent": 100 * (max(seconds) - min(seconds)) / median,
        "ours_is_faster": median / statistics.median(ours.seconds),
        "warm_up_s": measured.warm_up,
        "peak_gib": measured.peak / GIB,
    }


def print_rows(rows: list[dict[str, Any]]) -> None:
    for r in rows:
        print(
            f"batch {r['batch']:2} prompt {r['prompt']:4}  {r['name']:28} {r['dtype']:8}"
            f" {r['steps_per_s']:8.1f} steps/s"
            f"  x{r['real_time_each']:.2f} each  x{r['real_time_total']:.2f} in all"
            f"  {r['percent_of_byte_limit']:3.0f} % of the limit  +-{r['spread_percent'] / 2:.0f} %"
            f"  ours x{r['ours_is_faster']:.2f}  warm-up {r['warm_up_s']:.1f} s"
            + (f"  peak {r['peak_gib']:.1f} GiB" if r["peak_gib"] else ""),
            flush=True,
        )


def compare_arrivals(ours: Ours, peer: Implementation, options: argparse.Namespace) -> dict[str, Any]:
    """Compare staggered requests served together with one call of the peer's `generate` per request."""
    work = workload(options.arrivals, options.steps)
    singles = [workload(1, options.steps, seed=i) for i in range(options.arrivals)]
    joined, in_turn = [], []
    for _ in range(options.rounds):
        joined.append(timed(lambda: ours.generate(work, polls_between=options.polls_between), options.device))
        in_turn.append(timed(lambda: [peer.generate(single)[0] for single in singles], options.device))
    return {
        "requests": options.arrivals,
        "polls_between": options.polls_between,
        "peer": f"{peer.name}, {peer.format}",
        "ours_s": joined,
        "peer_s": in_turn,
        "ratio": statistics.median(joined) / statistics.median(in_turn),
    }


if __name__ == "__main__":
    main()
