"""Decode steps without the compiler: eager, and captured as CUDA graphs, which is the server's fallback."""

import time
from functools import partial

from benchmarks.gpu.report import Report
from benchmarks.gpu.setup import Setup
from benchmarks.gpu.steps import filled_state, measure_steps, peak_gib, profile_steps, time_steps
from benchmarks.models import random_weights
from dia_server.engine.dia.decoder import step
from dia_server.engine.dia.model import STEPS_PER_POLL
from dia_server.engine.dia.step_ops import KernelOps, fastest_ops
from dia_server.engine.dia.step_runners import CudaGraphRunner, EagerRunner, StepRunner
from dia_server.units import FRAME_RATE


def run(setup: Setup, report: Report) -> None:
    start = time.perf_counter()
    weights = random_weights(setup.size, setup.device, setup.most_slots)
    state = filled_state(weights, setup.fit_slots(weights))
    seconds = time.perf_counter() - start
    report.measured("model with random weights", seconds, "s", slots=state.slots, dtype=str(weights.dtype))
    eager = EagerRunner(weights, state, fastest_ops(weights, kernels=True))
    each = time_steps(setup, weights, state, eager, 1, min(32, setup.steps))
    report.measured(
        "eager step, batch 1", 1000 * each, "ms", times_real_time_each=round(1 / each / FRAME_RATE, 2)
    )
    runner: StepRunner = eager
    if setup.on_gpu:
        start = time.perf_counter()
        plain = partial(step, make_ops=KernelOps)
        runner = CudaGraphRunner(weights, state, plain, lambda share: None, STEPS_PER_POLL)
        report.measured("capture of uncompiled steps", time.perf_counter() - start, "s")
    measure_steps(setup, report, weights, state, runner, "uncompiled")
    profile_steps(setup, report, weights, state, runner, "uncompiled")
    report.line(peak_gib=peak_gib(setup))
