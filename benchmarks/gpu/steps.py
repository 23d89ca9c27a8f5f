"""Times decode steps of a `StepRunner`, in polls, without the host's part of a poll and without the codec."""

import json

import torch

from benchmarks.gpu.profile import profile_kernels
from benchmarks.gpu.report import Report
from benchmarks.gpu.setup import Setup, elapsed
from benchmarks.limits import step_bytes
from dia_server.engine.dia.admission import NO_FRAMES
from dia_server.engine.dia.delay import delayed
from dia_server.engine.dia.model import STEPS_PER_POLL
from dia_server.engine.dia.state import State, new_state
from dia_server.engine.dia.step_runners import StepRunner
from dia_server.engine.dia.weights import Weights
from dia_server.engine.types import Utterance
from dia_server.units import FRAME_RATE, GIB

START, TEXT = 512, 200
"""Columns in the KV cache when a measurement begins, and bytes of each text."""
SHARES = {1: 65.0, 32: 60.0, 64: 60.0}
"""Batch size to the minimum share of the byte limit, in percent, of compiled steps."""


def filled_state(weights: Weights, slots: int) -> State:
    """Allocate a state with random keys and values."""
    state = new_state(weights.config, slots, weights.device, weights.dtype)
    for arena in (*state.cache, state.text):
        arena.normal_(0, 0.1)
    return state


def occupy(weights: Weights, state: State, batch: int) -> None:
    """Make the first `batch` slots live at column START, with the rest idle."""
    config, utterance = weights.config, Utterance("[S1]", voice="", seed=0)
    state.live.fill_(False)
    for slot in range(batch):
        columns = delayed(NO_FRAMES, config.delay, config.bos)
        state.begin(slot, utterance, columns, START, state.columns)
        state.text_length[slot].fill_(TEXT)
        state.live[slot].fill_(True)


def time_steps(
    setup: Setup, weights: Weights, state: State, runner: StepRunner, batch: int, steps: int
) -> float:
    """Return the seconds of one step of `batch` requests, the best of 3 rounds of `steps` steps."""
    slots, times = list(range(batch)), []
    occupy(weights, state, batch)
    runner.run(slots, STEPS_PER_POLL)
    for _ in range(3):
        occupy(weights, state, batch)
        times.append(elapsed(lambda: runner.run(slots, steps), setup.device))
    return min(times) / steps


def measure_steps(
    setup: Setup, report: Report, weights: Weights, state: State, runner: StepRunner, kind: str
) -> dict[int, float]:
    """Report the speed of each batch size; return the seconds of a step by batch size."""
    found = {}
    for batch in setup.batches(state.slots):
        seconds = found[batch] = time_steps(setup, weights, state, runner, batch, setup.steps)
        report.measured(
            f"{kind} step, batch {batch}",
            1000 * seconds,
            "ms",
            times_real_time_each=round(1 / seconds / FRAME_RATE, 2),
            times_real_time_total=round(batch / seconds / FRAME_RATE, 1),
        )
    return found


def report_shares(
    setup: Setup, report: Report, weights: Weights, steps: dict[int, float], bandwidth: float
) -> None:
    """Report the share of the byte limit that each batch size reaches; `steps` are seconds of a step."""
    columns = START + setup.steps / 2
    for batch, seconds in steps.items():
        read = step_bytes(weights.config, weights.dtype, setup.device, batch, columns, TEXT)
        target = SHARES.get(batch) if setup.has_targets else None
        what = f"compiled step, batch {batch}: share of the byte limit"
        report.measured(what, 100 * read / bandwidth / seconds, "%", at_least=target)


def profile_steps(
    setup: Setup, report: Report, weights: Weights, state: State, runner: StepRunner, kind: str
) -> None:
    """Write the kernel table of a poll of one request and of all slots; report its totals."""
    for batch in sorted({1, state.slots}):
        with report.part(f"profile of batch {batch}"):
            slots = list(range(batch))
            occupy(weights, state, batch)
            runner.run(slots, STEPS_PER_POLL)
            table = profile_kernels(lambda: runner.run(slots, STEPS_PER_POLL), setup.device)  # noqa: B023
            path = setup.out / f"profile-{kind}-{batch}.json"
            path.write_text(json.dumps({"device": setup.device, "batch": batch, **table}, indent=1) + "\n")
            totals = {name: value for name, value in table.items() if name != "table"}
            report.line(profile=path.name, batch=batch, **totals, longest=table["table"][:5])


def peak_gib(setup: Setup) -> float | None:
    """Return the peak of allocated device memory in GiB; None on a CPU."""
    return round(torch.cuda.max_memory_allocated(setup.device) / GIB, 2) if setup.on_gpu else None
