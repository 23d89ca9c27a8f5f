"""What a model in fp32 would sample in each column, and how far another one is from it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.sampling import SamplingParams, candidates
from dia_server.engine.types import Utterance
from dia_server.fidelity.decoding import Decoded


class Candidates(NamedTuple):
    """What may be sampled; each tensor [..., channels, top_k], except `greedy` [..., channels]."""

    tokens: Tensor
    logits: Tensor
    """Conditional logits in fp32; -inf for tokens that cannot be sampled."""
    greedy: Tensor
    """The likeliest token, EOS included."""


class Deviation(NamedTuple):
    """How far a model's candidates are from fp32's, [..., channels] each."""

    kl: Tensor
    """KL divergence from fp32's distribution to the model's, over fp32's candidates, in nats."""
    left_out: Tensor
    """Probability in fp32 of the candidates that the model would not consider."""
    agrees: Tensor
    """Whether both have the same likeliest token."""


class Sampler:
    """Finds the candidates of utterances that share their sampling parameters."""

    def __init__(self, config: ModelConfig, utterance: Utterance) -> None:
        self._config, self._utterance = config, utterance
        self.temperature = utterance.temperature

    def rows(self, logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the conditional and unconditional logits [count, channels, vocabulary] of a batch."""
        shape = (2, count, self._config.channels, self._config.decoder.vocabulary)
        cond, uncond = logits.view(shape)
        return cond, uncond

    def candidates(self, cond: Tensor, uncond: Tensor) -> Candidates:
        config, utterance = self._config, self._utterance
        params = SamplingParams(
            *(torch.tensor([getattr(utterance, name)], device=cond.device) for name in SamplingParams._fields)
        )
        tokens, logits = (
            part[..., : utterance.top_k] for part in candidates(cond, uncond, params, config.eos)
        )
        greedy = tokens.gather(-1, logits.argmax(-1, keepdim=True))[..., 0]
        # EOS is chosen if it is the likeliest token, and never sampled
        return Candidates(tokens, logits.masked_fill(tokens == config.eos, -torch.inf), greedy)


class Reference:
    """Records fp32's candidates in each step of each utterance, on the CPU."""

    def __init__(self, sampler: Sampler, count: int) -> None:
        self._sampler = sampler
        self.steps: list[list[Candidates]] = [[] for _ in range(count)]

    def __call__(self, numbers: Sequence[int], logits: Tensor) -> None:
        tokens, logits, greedy = self._sampler.candidates(*self._sampler.rows(logits, len(numbers)))
        parts = zip(tokens.short().cpu(), logits.cpu(), greedy.short().cpu(), strict=True)
        for number, found in zip(numbers, parts, strict=True):
            self.steps[number].append(Candidates(*found))


class Comparison:
    """Compares each step with that of a `Reference` over the same tokens."""

    def __init__(self, sampler: Sampler, reference: Reference) -> None:
        self._sampler, self._reference = sampler, reference
        self._steps: list[list[Deviation]] = [[] for _ in reference.steps]

    def __call__(self, numbers: Sequence[int], logits: Tensor) -> None:
        cond, uncond = self._sampler.rows(logits, len(numbers))
        steps = [self._reference.steps[number][len(self._steps[number])] for number in numbers]
        wide = Candidates(*(torch.stack(part).to(cond.device) for part in zip(*steps, strict=True)))
        found = deviation(wide, cond, self._sampler.candidates(cond, uncond), self._sampler.temperature)
        for number, *parts in zip(numbers, *(part.cpu() for part in found), strict=True):
            self._steps[number].append(Deviation(*parts))

    def by_channel(self, decoded: Sequence[Decoded], delay: Sequence[int]) -> Iterator[Deviation]:
        """Yield the deviations of each channel [n], of all utterances, in the columns that were sampled."""
        whole = [Deviation(*map(torch.stack, zip(*steps, strict=True))) for steps in self._steps]
        sampled = [_is_sampled(one, delay) for one in decoded]
        for channel in range(len(delay)):
            yield Deviation(
                *(
                    torch.cat(
                        [part[here[:, channel], channel] for part, here in zip(parts, sampled, strict=True)]
                    )
                    for parts in zip(*whole, strict=True)
                )
            )


def deviation(wide: Candidates, cond: Tensor, narrow: Candidates, temperature: float) -> Deviation:
    """Compare `narrow`, the candidates of a model with conditional logits `cond`, with fp32's `wide`."""
    tokens, excluded = wide.tokens.long(), wide.logits.isinf()
    logits = cond.gather(-1, tokens).masked_fill(excluded, -torch.inf)
    # MPS has no fp64
    kind = torch.float32 if cond.device.type == "mps" else torch.float64
    p, q = ((part.to(kind) / temperature).log_softmax(-1) for part in (wide.logits, logits))
    share = p.exp()
    kl = (share * (p - q).masked_fill(excluded, 0.0)).sum(-1).clamp_min(0.0)
    considered = torch.zeros_like(cond, dtype=torch.bool)
    considered.scatter_(-1, narrow.tokens, narrow.logits.isfinite())
    left_out = share.masked_fill(considered.gather(-1, tokens), 0.0).sum(-1)
    return Deviation(kl, left_out, narrow.greedy == wide.greedy)


def _is_sampled(decoded: Decoded, delay: Sequence[int]) -> Tensor:
    """Return [steps, channels]: whether a step's token was sampled, not forced by the delay or by EOS."""
    column = torch.arange(1, len(decoded.columns))[:, None]
    late = torch.tensor(delay)
    return (column > late) & (column < decoded.end + late)
