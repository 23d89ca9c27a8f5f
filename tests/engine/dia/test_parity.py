"""Greedy output equals transformers' `generate` token for token, independent of the rest of the batch."""

import random
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from transformers import DiaForConditionalGeneration

from dia_server.engine.dia.linear import FBGEMM
from dia_server.engine.dia.model import DiaModel
from dia_server.engine.dia.step_ops import PlainOps
from dia_server.engine.dia.step_runners import EagerRunner
from dia_server.engine.types import Utterance

from . import reference
from .drive import CodesAsAudio, drive, frames_of, prompt_of, weights_of
from .tiny import tiny_dia

LETTERS = [chr(code) for code in range(33, 127)]
GROUP = 8
COLUMNS = 256
"""More columns than any request has: 120 of a prompt, 64 of audio, and those of the delays."""


@dataclass(frozen=True)
class Case:
    """Common parameters of one group of requests; their texts differ."""

    prompt: int
    max_tokens: int
    cfg_scale: float
    top_k: int


def cases(count: int, seed: int) -> list[Case]:
    pick = random.Random(seed)
    return [
        Case(
            prompt=pick.choice([0, 0, 1, 2, 7, 15, 16, 17, 40, 120]),
            max_tokens=pick.choice([17, 20, 33, 48, 64]),
            cfg_scale=pick.choice([1.5, 3.0, 5.0]),
            top_k=pick.choice([1, 5, 45, 64]),
        )
        for _ in range(count)
    ]


def test_mixed_batches_equal_transformers() -> None:
    """56 requests in 7 groups, shuffled, each admitted while others run."""
    compare(tiny_dia(), torch.float32, seed=0, groups=7)


@pytest.mark.full
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_mixed_batches_equal_transformers_on_each_text_alone(seed: int, plain: bool) -> None:
    """With both seeds, 208 requests in 26 groups, by the operations of CPUs and by those without kernels."""
    compare(tiny_dia(seed), torch.float32, seed, groups=13, alone=True, plain=plain)


@pytest.mark.skipif(not FBGEMM, reason="needs a CPU that multiplies by weights in fp16")
def test_weights_in_fp16_lose_nothing_else() -> None:
    """With weights exact in fp16, results equal transformers' in fp32."""
    dia = tiny_dia()
    for weight in dia.parameters():
        weight.copy_(weight.half())

    compare(dia, torch.float16, seed=2, groups=3)


def compare(
    dia: DiaForConditionalGeneration,
    dtype: torch.dtype,
    seed: int,
    groups: int,
    *,
    alone: bool = False,
    plain: bool = False,
) -> None:
    """Compare with transformers, which generates the texts of a group together, or each `alone`.

    `plain` takes `PlainOps`, which attend to all columns of a slot, in slots of as many as are needed.
    """
    pick = random.Random(seed)
    torch.manual_seed(seed)
    utterances: list[Utterance] = []
    expected: list[Tensor] = []
    for case in cases(groups, seed):
        lengths = [pick.choice([1, 2, 9, 40, 77, 200]) for _ in range(GROUP - 1)] + [pick.randint(201, 1024)]
        texts = ["".join(pick.choices(LETTERS, k=n)) for n in lengths]
        prompts = torch.stack([torch.randint(0, 1024, (case.prompt, 9)) for _ in texts])
        size = 1 if alone else GROUP
        for start in range(0, GROUP, size):
            made = reference.generate(
                dia,
                [text.encode() for text in texts[start : start + size]],
                prompts[start : start + size],
                max_tokens=case.max_tokens,
                cfg_scale=case.cfg_scale,
                top_k=case.top_k,
            )
            expected += [
                reference.frames_of(columns, prompt)
                for columns, prompt in zip(made, prompts[start:], strict=False)
            ]
        utterances += [
            Utterance(
                text=text,
                voice="",
                seed=0,
                temperature=0.0,
                cfg_scale=case.cfg_scale,
                top_k=case.top_k,
                max_tokens=case.max_tokens,
                prompt=prompt_of(prompt) if case.prompt else None,
            )
            for text, prompt in zip(texts, prompts, strict=True)
        ]
    assert {utterance.prompt is None for utterance in utterances} == {True, False}
    arrivals = [pick.randint(0, 150) for _ in utterances]

    weights = weights_of(dia, dtype=dtype)
    if plain:
        weights = replace(weights, config=weights.config.with_columns(COLUMNS))
    model = DiaModel(weights, CodesAsAudio(), slots=16)
    if plain:
        model._runner = EagerRunner(weights, model._state, PlainOps)
    chunks = drive(model, utterances, arrivals)

    wrong = [n for n, frames in enumerate(expected) if not torch.equal(frames_of(chunks[n]), frames)]
    assert not wrong
    natural = [len(frames) < (u.max_tokens or 0) - 16 for frames, u in zip(expected, utterances, strict=True)]
    assert any(natural)
    assert not all(natural)
