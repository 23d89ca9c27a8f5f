"""The kernels of one call on the device: how often, how long, and the gaps between them."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.limits import synchronize

GAP_US = 1.0
"""Minimum microseconds between two kernels that count as a gap."""


class Span(NamedTuple):
    """One kernel on the device; times in microseconds."""

    name: str
    start: float
    end: float


def profile_kernels(call: Callable[[], object], device: str) -> dict[str, Any]:
    """Return the kernel table of `call`, as `summarize` does; on a CPU its operators take the kernels' place.

    Raises RuntimeError if the profiler sees no kernel.
    """
    on_gpu = device.startswith("cuda")
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    for _ in range(2):  # the first one initialises the profiler
        with profile(activities=[activity], acc_events=True) as profiler:
            call()
            synchronize(device)
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    spans = [
        Span(event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == kind and not event.is_user_annotation
    ]
    if not spans:
        raise RuntimeError("the profiler saw no kernels; it may not be permitted to on this machine")
    return summarize(spans)


def summarize(spans: Sequence[Span]) -> dict[str, Any]:
    """Return totals and a table by kernel name, longest first; all times in microseconds.

    Copies before the first kernel are left out: they upload the call's input. Spans may overlap.
    """
    ordered = sorted(spans, key=lambda span: span.start)
    while len(ordered) > 1 and ordered[0].name.startswith("Memcpy"):
        ordered.pop(0)
    gaps, end, busy = [], ordered[0].start, 0.0
    times: dict[str, list[float]] = defaultdict(list)
    for span in ordered:
        gaps.append(max(0.0, span.start - end))
        busy += max(0.0, span.end - max(end, span.start))
        end = max(end, span.end)
        times[span.name].append(span.end - span.start)
    table = [
        {"name": name, "count": len(each), "us": round(sum(each), 2)}
        for name, each in sorted(times.items(), key=lambda item: -sum(item[1]))
    ]
    return {
        "kernels": len(ordered),
        "span_us": round(end - ordered[0].start, 2),
        "busy_us": round(busy, 2),
        "gap_us": round(sum(gaps), 2),
        "gaps": sum(gap >= GAP_US for gap in gaps),
        "longest_gap_us": round(max(gaps), 2),
        "table": table,
    }
