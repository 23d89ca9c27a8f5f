"""Compiled decode steps, then polls and admissions of the whole model: one model and one compilation."""

import gc
import time

import torch
from torch._dynamo.utils import compile_times

from benchmarks.arrivals import random_dac
from benchmarks.gpu.polls import measure_polls, measure_stall
from benchmarks.gpu.report import Report
from benchmarks.gpu.setup import Setup, measure_bandwidth
from benchmarks.gpu.steps import filled_state, measure_steps, peak_gib, profile_steps, report_shares
from benchmarks.models import random_weights
from dia_server.engine.dia.codec import Codec
from dia_server.engine.dia.memory import release_cached
from dia_server.engine.dia.model import STEPS_PER_POLL, DiaModel, ModelOptions
from dia_server.engine.dia.state import State
from dia_server.engine.dia.step_ops import fastest_ops
from dia_server.engine.dia.step_runners import CudaGraphRunner, EagerRunner, StepRunner, compiled_step
from dia_server.engine.dia.weights import Weights


def run(setup: Setup, report: Report) -> None:
    bandwidth = measure_bandwidth(setup)
    weights = random_weights(setup.size, setup.device, setup.most_slots)
    codec = Codec(random_dac(setup.size), setup.device)
    slots = setup.fit_slots(weights)  # once: another number would compile the steps again
    steps: dict[int, float] = {}
    with report.part("steps"):
        steps = _measure_steps(setup, report, weights, slots, bandwidth)
    gc.collect()
    release_cached()
    model = DiaModel(weights, codec, slots, ModelOptions(compiled=True))
    model.warm_up()
    report.no_fallback(model.notes)  # the warm-up may add one
    with report.part("polls"):
        measure_polls(setup, report, model, steps)
    with report.part("stall"):
        measure_stall(setup, report, model)
    report.line(peak_gib=peak_gib(setup))
    model.close()


def _measure_steps(
    setup: Setup, report: Report, weights: Weights, slots: int, bandwidth: float
) -> dict[int, float]:
    """Report and profile steps of each batch size; return the seconds of a step by batch size."""
    state = filled_state(weights, slots)
    runner: StepRunner = EagerRunner(weights, state, fastest_ops(weights, kernels=True))
    if setup.on_gpu:
        runner = _capture(report, weights, state)
    steps = measure_steps(setup, report, weights, state, runner, "compiled")
    report_shares(setup, report, weights, steps, bandwidth)
    profile_steps(setup, report, weights, state, runner, "compiled")
    return steps


def _capture(report: Report, weights: Weights, state: State) -> CudaGraphRunner:
    """Compile and capture the steps; report the seconds until each graph was captured.

    The first graph compiles the step for every batch above 1, the last one for a batch of 1.
    """
    start, captured = time.perf_counter(), []

    def note(share: float) -> None:
        torch.cuda.synchronize(weights.device)
        captured.append(round(time.perf_counter() - start, 2))

    runner = CudaGraphRunner(weights, state, compiled_step(), note, STEPS_PER_POLL)
    report.measured("compilation and capture", captured[-1], "s", captured_after_s=captured)
    report.line(compiler_s=dict(zip(*compile_times(repr="csv", aggregate=True), strict=True)))
    return runner
