"""Sampling compared with transformers' logits processors, and the noise that it uses."""

import math

import pytest
import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopPLogitsWarper
from transformers.generation.logits_process import (
    DiaClassifierFreeGuidanceLogitsProcessor,
    DiaEOSChannelFilterLogitsProcessor,
)

from dia_server.engine.dia import cpu_ops
from dia_server.engine.dia.sampling import SamplingParams, sample, uniform

CHANNELS, VOCABULARY, EOS = 9, 1028, 1024


@pytest.fixture(params=["loops", "operations"], autouse=True)
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample by the loops for CPUs, or by PyTorch's operations, as on other devices."""
    if request.param == "operations":
        monkeypatch.setattr(cpu_ops, "suits", lambda x: False)


def params(
    count: int, *, temperature: float, top_p: float, top_k: int, cfg_scale: float = 3.0, first_seed: int = 0
) -> SamplingParams:
    return SamplingParams(
        temperature=torch.full((count,), temperature),
        cfg_scale=torch.full((count,), cfg_scale),
        top_p=torch.full((count,), top_p),
        top_k=torch.full((count,), top_k),
        seed=torch.arange(first_seed, first_seed + count),
    )


def expected_shares(
    cond: Tensor, uncond: Tensor, *, temperature: float, top_p: float, top_k: int, cfg_scale: float = 3.0
) -> Tensor:
    """Return the distribution [channels, vocabulary] that transformers samples from."""
    ids = torch.zeros(CHANNELS, 1, dtype=torch.long)
    scores = DiaClassifierFreeGuidanceLogitsProcessor(cfg_scale, top_k)(ids, torch.cat([cond, uncond]))
    scores = TemperatureLogitsWarper(temperature)(ids, scores)
    scores = DiaEOSChannelFilterLogitsProcessor(CHANNELS, EOS)(ids, scores)
    shares: Tensor = TopPLogitsWarper(top_p)(ids, scores).softmax(-1)
    return shares


def chi_square(counts: Tensor, shares: Tensor) -> float:
    """Return the number of standard deviations by which the statistic exceeds its mean."""
    drawn = shares > 0
    expected = shares[drawn].double() * counts.sum()
    statistic = ((counts[drawn].double() - expected) ** 2 / expected).sum().item()
    freedom = int(drawn.sum()) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom) if freedom else statistic


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.2, 0.95, 45), (1.0, 1.0, 10), (1.2, 0.5, 3), pytest.param(1.8, 0.9, 64, marks=pytest.mark.full)],
)
def test_draws_are_distributed_as_transformers(temperature: float, top_p: float, top_k: int) -> None:
    torch.manual_seed(0)
    cond, uncond = torch.randn(2, CHANNELS, VOCABULARY)
    cond[:, EOS:] -= 2.0
    count = 4000
    tokens = sample(
        cond.expand(count, -1, -1),
        uncond.expand(count, -1, -1),
        torch.full((count,), 7),
        params(count, temperature=temperature, top_p=top_p, top_k=top_k),
        EOS,
    )
    shares = expected_shares(cond, uncond, temperature=temperature, top_p=top_p, top_k=top_k)
    for channel in range(CHANNELS):
        counts = tokens[:, channel].bincount(minlength=VOCABULARY)
        assert not counts[shares[channel] == 0].any()
        assert chi_square(counts, shares[channel]) < 5


def test_the_test_of_the_distribution_can_fail() -> None:
    shares = torch.tensor([0.5, 0.3, 0.2])
    assert chi_square(torch.tensor([2000, 1200, 800]), shares) < 0
    assert chi_square(torch.tensor([1800, 1300, 900]), shares) > 5


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_eos_is_taken_where_it_is_likeliest_in_channel_0_only(temperature: float) -> None:
    cond, uncond = torch.zeros(2, 2, CHANNELS, VOCABULARY)
    cond[..., 5] = 4.0
    cond[0, :, EOS] = 5.0
    cond[1, :, EOS] = 3.9
    settings = params(2, temperature=temperature, top_p=1.0, top_k=2)
    tokens = sample(cond, uncond, torch.zeros(2, dtype=torch.long), settings, EOS)
    assert tokens[0].tolist() == [EOS] + [5] * 8
    assert tokens[1].tolist() == [5] * 9


def test_no_guidance_is_the_conditional_distribution_alone() -> None:
    torch.manual_seed(0)
    cond, uncond = torch.randn(2, 1, CHANNELS, VOCABULARY)
    cond[..., EOS:] = -10.0
    settings = params(1, temperature=0.0, top_p=1.0, top_k=45, cfg_scale=0.0)
    tokens = sample(cond, uncond, torch.zeros(1, dtype=torch.long), settings, EOS)
    assert torch.equal(tokens, cond.argmax(-1))


def test_specials_alone_give_token_0_as_in_transformers() -> None:
    cond, uncond = torch.zeros(2, 1, CHANNELS, VOCABULARY)
    cond[..., EOS + 1] = 9.0
    settings = params(1, temperature=1.2, top_p=1.0, top_k=1)
    assert not sample(cond, uncond, torch.zeros(1, dtype=torch.long), settings, EOS).any()


def test_noise_is_even_independent_and_never_0_or_1() -> None:
    seed, column = torch.arange(2000)[:, None], torch.arange(500)
    noise = uniform(seed, column)
    assert noise.min() > 0
    assert noise.max() < 1
    even = noise.mul(100).long().flatten().bincount(minlength=100)
    assert abs(chi_square(even, torch.full((100,), 0.01))) < 5
    neighbours = torch.stack([noise[:-1] - 0.5, noise[1:] - 0.5]).flatten(1)
    assert abs(torch.corrcoef(neighbours)[0, 1].item()) < 0.005
    extremes = torch.tensor([0, 2**32 - 1])
    assert uniform(extremes, extremes).min() > 0
    assert uniform(extremes, extremes).max() < 1


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_loops_and_operations_choose_the_same(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    cond, uncond = 2 * torch.randn(2, 300, CHANNELS, VOCABULARY)
    settings = params(300, temperature=temperature, top_p=0.9, top_k=45)
    settings.top_k.copy_(torch.randint(1, 65, (300,)))
    asked = cond, uncond, torch.arange(300), settings, EOS

    by_loops = sample(*asked)

    monkeypatch.setattr(cpu_ops, "suits", lambda x: False)
    assert torch.equal(sample(*asked), by_loops)


@pytest.mark.parametrize("wrong", [math.nan, -math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_give_tokens_of_the_vocabulary(wrong: float) -> None:
    """Such a slot is marked as broken; the others must not suffer."""
    cond, uncond = torch.randn(2, 2, CHANNELS, VOCABULARY)
    cond[0], uncond[1, :, ::7] = wrong, wrong
    nan = torch.tensor(0x7FFF_FFFF, dtype=torch.int32).view(torch.float32)
    cond[1, 3], cond[1, 4, 100:] = nan, nan
    settings = params(2, temperature=1.2, top_p=0.95, top_k=45)
    tokens = sample(cond, uncond, torch.zeros(2, dtype=torch.long), settings, EOS)
    assert tokens.min() >= 0
    assert tokens.max() < VOCABULARY


def test_of_equal_logits_the_first_are_candidates() -> None:
    cond = torch.zeros(1, CHANNELS, VOCABULARY)
    cond[..., 500] = 1.0
    settings = params(1, temperature=1.2, top_p=1.0, top_k=1)
    assert sample(cond, cond, torch.zeros(1, dtype=torch.long), settings, EOS).eq(500).all()
    many = params(1, temperature=1.2, top_p=1.0, top_k=20)
    tokens = [sample(cond, cond, torch.tensor([column]), many, EOS) for column in range(50)]
    assert len(set(torch.cat(tokens).flatten().tolist())) <= 20
