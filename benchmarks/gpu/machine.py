"""The machine: versions, free memory, whether the model fits, and the read bandwidth."""

import torch
from transformers import DiaConfig, DiaForConditionalGeneration

from benchmarks.gpu.report import Refused, Report
from benchmarks.gpu.setup import Setup, measure_bandwidth
from benchmarks.limits import describe_machine
from benchmarks.models import SIZES
from dia_server.engine.dia.memory import FULL_MARGIN, PROMPT_BYTES
from dia_server.units import GIB

FEW_SLOTS_BYTES = 1 * GIB
"""Bytes for the codec and two slots of the real size."""


def run(setup: Setup, report: Report) -> None:
    with report.part("versions"):
        report.line(machine=describe_machine(setup.device), device=setup.device, size=setup.size)
    if setup.on_gpu:
        require_memory(setup.size, *_report_memory(setup, report))
    report.measured("bandwidth", measure_bandwidth(setup) / 1e9, "GB/s")


def _report_memory(setup: Setup, report: Report) -> tuple[int, int]:
    """Report the device's memory; return its free and its total bytes."""
    free, total = torch.cuda.mem_get_info(setup.device)
    properties = torch.cuda.get_device_properties(setup.device)
    report.line(
        free_gib=round(free / GIB, 2),
        total_gib=round(total / GIB, 2),
        capability=f"{properties.major}.{properties.minor}",
        multiprocessors=properties.multi_processor_count,
    )
    return free, total


def require_memory(size: str, free: int, total: int) -> None:
    """Raise Refused if fewer bytes are `free` than the checks need for a model of `size`."""
    with torch.device("meta"):
        model = DiaForConditionalGeneration(DiaConfig(**SIZES[size]))
    # random weights are made in fp32, so that every dtype is rounded from the same values
    needed = 4 * model.num_parameters() + FULL_MARGIN + PROMPT_BYTES + FEW_SLOTS_BYTES
    if free < needed:
        raise Refused(
            f"gpu-check --size {size} needs {needed / GIB:.1f} GiB of free GPU memory; "
            f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free. A smaller model: --size 115M."
        )
