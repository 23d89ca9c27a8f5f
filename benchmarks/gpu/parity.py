"""Greedy tokens compared: share that is equal, and the first difference. Differences fail nothing.

In fp32, sums in another order give other roundings, so a few tokens may differ on a GPU. In 16 bits and with
int8 weights, requests alone are compared with the same ones among 8, which are meant to be equal.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.gpu.report import Report
from benchmarks.gpu.setup import Setup
from benchmarks.implementations import Ours, Transformers
from benchmarks.models import Workload, random_dia, workload

BATCH, MANY = 4, 8
PROMPT = 20
"""Frames of the voice prompts of every second workload."""


def run(setup: Setup, report: Report) -> None:
    # weights of this standard deviation make the tokens depend on the whole input
    dia = random_dia("tiny" if setup.on_gpu else setup.size, setup.device, torch.float32, std=0.1)
    plain = Ours(dia, BATCH, "float32")
    works = [_greedy(BATCH, prompt, 100 if setup.on_gpu else 30) for prompt in (0, PROMPT)]
    expected = [plain.generate(work) for work in works]
    with report.part("transformers"):
        peer = Transformers(dia, "dynamic")
        _compare(
            report, "uncompiled steps, against transformers", expected, [peer.generate(w) for w in works]
        )
    with report.part("batch sizes"):
        alone = [[plain.generate(one)[0] for one in _singles(work)] for work in works]
        _compare(report, "uncompiled steps of one, against a batch", alone, expected)
    with report.part("compiled"):
        compiled = Ours(dia, BATCH, "float32", compiled=True)
        report.no_fallback(compiled.model.notes)
        found = [compiled.generate(work) for work in works]
        _compare(report, "compiled steps, against uncompiled ones", found, expected)
        alone = [[compiled.generate(one)[0] for one in _singles(work)] for work in works]
        _compare(report, "compiled steps of one, against a batch", alone, found)
    for format in ("auto", "int8"):
        with report.part(f"alone and among {MANY}, {format}"):
            _compare_alone(setup, report, format)


def _compare_alone(setup: Setup, report: Report, format: str) -> None:
    size = "tiny" if setup.on_gpu else setup.size
    own = Ours(random_dia(size, setup.device, torch.float32, std=0.1), MANY, format, compiled=setup.on_gpu)
    work = _greedy(MANY, PROMPT, 100 if setup.on_gpu else 20)
    alone = [[own.generate(one)[0] for one in _singles(work)]]
    what = f"steps of one, against {MANY} ({format}, {str(own.dtype).removeprefix('torch.')})"
    _compare(report, what, alone, [own.generate(work)])


def _greedy(batch: int, prompt_frames: int, steps: int) -> Workload:
    work = workload(batch, steps, prompt_frames=prompt_frames, text_bytes=40)
    return Workload(work.texts, work.prompts, work.steps, sampled=False)


def _singles(work: Workload) -> list[Workload]:
    """Return one workload for each text of `work`."""
    return [
        Workload([text], [prompt], work.steps, work.sampled)
        for text, prompt in zip(work.texts, work.prompts, strict=True)
    ]


def _compare(
    report: Report, what: str, found: Sequence[Sequence[Tensor]], expected: Sequence[Sequence[Tensor]]
) -> None:
    """Report the share of equal tokens and the first different one; both are frames [T, 9] by text."""
    same = total = 0
    first: dict[str, int] | None = None
    for number, (texts, others) in enumerate(zip(found, expected, strict=True)):
        for text, (one, other) in enumerate(zip(texts, others, strict=True)):
            length = min(len(one), len(other))
            equal = one[:length] == other[:length]
            same, total = same + int(equal.sum()), total + max(one.numel(), other.numel())
            if first is None and not equal.all():
                frame, channel = (~equal).nonzero()[0].tolist()
                tokens = {"found": int(one[frame, channel]), "expected": int(other[frame, channel])}
                first = {"workload": number, "text": text, "frame": frame, "channel": channel, **tokens}
    report.measured(what, 100 * same / total, "% of tokens equal", first_difference=first)
