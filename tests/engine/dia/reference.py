"""The output of transformers' own `generate`, the reference for every token."""

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
    prompts: Tensor,
    *,
    max_tokens: int,
    cfg_scale: float,
    top_k: int,
) -> list[Tensor]:
    """Return for each text the greedy columns [<= max_tokens, 9] sampled after its prompt, of [N, T, 9]."""
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *bytes(longest - len(text))] for text in texts])
    lengths = torch.tensor([len(text) for text in texts])
    columns = torch.stack([delayed(prompt, DELAY, BOS) for prompt in prompts])
    columns[columns < 0] = PAD
    made = model.generate(
        input_ids=ids,
        attention_mask=(torch.arange(longest) < lengths[:, None]).long(),
        decoder_input_ids=columns,
        decoder_attention_mask=torch.ones(columns.shape[:2], dtype=torch.long),
        max_new_tokens=max_tokens,
        do_sample=False,
        guidance_scale=cfg_scale,
        top_k=top_k,
    )
    assert isinstance(made, Tensor)
    return [_until_end(row[prompts.shape[1] + 1 :]) for row in made]


def _until_end(columns: Tensor) -> Tensor:
    ends = (columns[:, 0] == EOS).nonzero()
    return columns[: int(ends[0]) + max(DELAY) + 1] if len(ends) else columns


def frames_of(columns: Tensor, prompt: Tensor) -> Tensor:
    """Return the frames of the output of `generate`: delay undone, prompt and tail removed."""
    whole = torch.cat([delayed(prompt, DELAY, BOS)[: len(prompt) + 1], columns])
    count = len(columns) - max(DELAY) - 1
    at = len(prompt) + torch.arange(count)[:, None] + 1 + torch.tensor(DELAY)
    return whole[at, torch.arange(len(DELAY))]
