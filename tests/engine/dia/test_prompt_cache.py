from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import LongTensor, Tensor

from dia_server.engine.dia.codec import CODEBOOKS
from dia_server.engine.dia.prompt_cache import PromptCache
from dia_server.engine.types import Recording, Samples, VoicePrompt

CACHE = torch.zeros(1, 8, 100, 16)
LIMIT = 3 * CACHE.nbytes


class CountingEncoder:
    def __init__(self) -> None:
        self.calls = 0

    def encode(self, samples: Samples) -> LongTensor:
        self.calls += 1
        return torch.zeros(len(samples), CODEBOOKS).long()  # type: ignore[return-value]


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def prompts(encoder: CountingEncoder) -> Iterator[PromptCache]:
    made = PromptCache(encoder, torch.device("cpu"), LIMIT)
    yield made
    made.close()


def voice(name: str) -> VoicePrompt:
    return VoicePrompt((Recording(np.zeros(10, np.float32), name),), "[S1] So.")


def encoded(prompts: PromptCache, name: str) -> Tensor:
    (codes,) = prompts.codes(voice(name))
    return codes.result()


def kept(prompts: PromptCache, *names: str) -> list[Tensor | None]:
    return [prompts.uncond_cache(voice(name)) for name in names]


def test_caches_go_before_codes_and_those_used_last_stay(
    prompts: PromptCache, encoder: CountingEncoder
) -> None:
    encoded(prompts, "a")
    assert len(encoded(prompts, "a")) == 10

    for name in "abcd":
        prompts.keep_uncond_cache(voice(name), CACHE)
        prompts.uncond_cache(voice("a"))

    assert [cache is not None for cache in kept(prompts, *"abcd")] == [True, False, False, True]
    assert prompts.bytes <= LIMIT
    encoded(prompts, "a")
    assert encoder.calls == 1


def test_a_cache_that_never_fits_drives_nothing_out(prompts: PromptCache) -> None:
    prompts.keep_uncond_cache(voice("a"), CACHE)
    prompts.keep_uncond_cache(voice("b"), torch.zeros(LIMIT // 4 + 1))

    assert [cache is not None for cache in kept(prompts, "a", "b")] == [True, False]
