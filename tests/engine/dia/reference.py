"""What transformers' own `generate` makes of a request: the reference for every token."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DiaForConditionalGeneration

from dia_server.engine.dia.delay import delayed

EOS, PAD, BOS = 1024, 1025, 1026
DELAY = (0, 8, 9, 10, 11, 12, 13, 14, 15)


def generate(
    model: DiaForConditionalGeneration,
    texts: Sequence[bytes],
    prompts: Sequence[Tensor],
    *,
    max_tokens: int,
    cfg_scale: float,
    top_k: int,
) -> list[Tensor]:
    """Greedy columns of each request, from its first sampled one to its end, [<= max_tokens, 9].

    One call of `generate` for all, so the prompts [T, 9] must have one length.
    """
    width = max(map(len, texts))
    ids = torch.tensor([list(text) + [0] * (width - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    columns = torch.stack([delayed(prompt, DELAY, BOS) for prompt in prompts])
    columns[columns < 0] = PAD
    start = len(prompts[0]) + 1
    made = model.generate(
        input_ids=ids,
        attention_mask=mask,
        decoder_input_ids=columns,
        decoder_attention_mask=torch.ones(columns.shape[:2], dtype=torch.long),
        max_new_tokens=max_tokens,
        do_sample=False,
        guidance_scale=cfg_scale,
        top_k=top_k,
    )
    assert isinstance(made, Tensor)
    return [_until_end(row[start:]) for row in made]


def _until_end(columns: Tensor) -> Tensor:
    ends = (columns[:, 0] == EOS).nonzero()
    return columns[: int(ends[0]) + max(DELAY) + 1] if len(ends) else columns


def frames_of(columns: Tensor, prompt: Tensor) -> Tensor:
    """The frames in `generate`'s answer: delay undone, prompt and tail cut off."""
    whole = torch.cat([delayed(prompt, DELAY, BOS)[: len(prompt) + 1], columns])
    count = len(columns) - max(DELAY) - 1
    at = len(prompt) + torch.arange(count)[:, None] + 1 + torch.tensor(DELAY)
    return whole[at, torch.arange(len(DELAY))]
