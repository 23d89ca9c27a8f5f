"""Polls of a `DiaModel` with the codec: what the host and the codec add to the steps, and admissions."""

import statistics
import time

import numpy as np

from benchmarks.arrivals import utterances
from benchmarks.gpu.report import Report
from benchmarks.gpu.setup import Setup
from dia_server.engine.batch import BEGUN_AT_ONCE
from dia_server.engine.dia.model import STEPS_PER_POLL, DiaModel
from dia_server.engine.types import Recording, Utterance, VoicePrompt
from dia_server.units import FRAME_RATE, HOP

SPEECH_S = 30.0
"""Seconds of each utterance: none ends within a measurement."""
MOST_STALL_MS = 20.0


def measure_polls(setup: Setup, report: Report, model: DiaModel, steps: dict[int, float]) -> None:
    """Report the time of a poll; `steps` are seconds of a step alone by batch size, if known."""
    for batch in setup.batches(model.slots):
        for slot, utterance in enumerate(utterances(batch, (SPEECH_S, SPEECH_S))):
            model.admit(slot, utterance)
        warm = setup.polls // 3
        seconds = statistics.median(_time_polls(model, setup.polls)[warm:])
        facts: dict[str, float] = {
            "times_real_time_total": round(batch * STEPS_PER_POLL / seconds / FRAME_RATE, 1)
        }
        if batch in steps:
            facts["steps_alone_ms"] = round(1000 * STEPS_PER_POLL * steps[batch], 3)
        report.measured(f"poll with the codec, batch {batch}", 1000 * seconds, "ms", **facts)
        for slot in range(batch):
            model.release(slot)


def measure_stall(setup: Setup, report: Report, model: DiaModel) -> None:
    """Report the longest extra delay of running streams while others join with new prompts."""
    joining = range(max(1, model.slots - BEGUN_AT_ONCE), model.slots)
    frames = 860 if setup.on_gpu else 40
    noise = np.random.default_rng(0).normal(0, 0.1, frames * HOP).astype(np.float32)
    for slot, utterance in enumerate(utterances(joining.start, (SPEECH_S, SPEECH_S))):
        model.admit(slot, utterance)
    usual = statistics.median(_time_polls(model, setup.polls)[setup.polls // 3 :])
    longest = 0.0
    for round in range(3):
        start = time.perf_counter()
        for slot in joining:
            prompt = VoicePrompt((Recording(noise, f"{round} {slot}"),), "[S1] " + "hello " * 60)
            model.admit(slot, Utterance("[S1] " + "hello " * 100, voice="", seed=0, prompt=prompt))
        admission = time.perf_counter() - start
        during = _time_polls(model, setup.polls)
        during[0] += admission
        longest = max(longest, max(during) - usual)
        for slot in joining:
            model.release(slot)
    for slot in range(joining.start):
        model.release(slot)
    what = f"{len(joining)} with prompts of {frames} frames join {joining.start} streams: stall"
    report.measured(what, 1000 * longest, "ms", at_most=MOST_STALL_MS if setup.has_targets else None)


def _time_polls(model: DiaModel, count: int) -> list[float]:
    """Return the seconds of each of `count` polls; raises the error of an utterance that fails."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        outcomes = model.step()
        times.append(time.perf_counter() - start)
        for outcome in outcomes.values():
            if isinstance(outcome, Exception):
                raise outcome
    return times
