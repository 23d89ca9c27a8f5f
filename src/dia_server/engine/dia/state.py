"""Everything that changes while the batch runs: a fixed number of slots, all on the device.

A slot has two rows, 2s with the text and 2s + 1 without it (classifier-free guidance). Its token grid holds
in advance every token that is not to be sampled (BOS, the voice prompt), and the limits are numbers on the
device, so that the step needs neither branches nor the host.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import LongTensor, Tensor

from dia_server.engine.dia.delay import UNKNOWN
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.sampling import SamplingParams
from dia_server.engine.types import Utterance

NEVER = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class State:
    grid: Tensor
    """[slots, columns + 1, channels]: delayed token columns, UNKNOWN where still to be sampled."""
    position: Tensor
    """[slots]: the last known column, the next step's input."""
    end: Tensor
    """[slots]: the column in which channel 0 must end."""
    eos_at: Tensor
    """[slots]: the column in which channel 0 has ended, or NEVER."""
    live: Tensor
    broken: Tensor
    """[slots]: the model has produced NaN or infinity."""
    temperature: Tensor
    cfg_scale: Tensor
    top_p: Tensor
    top_k: Tensor
    seed: Tensor
    text_length: Tensor
    cache: tuple[Tensor, ...]
    """Of each layer [2 * slots, 2 * kv_heads, columns, head_dim]: keys, then values, of the self-attention.

    A tensor a layer: a compiled step writes into one that it is given, but would copy a slice of one first.
    """
    text: Tensor
    """[layers, slots, 2 * heads, bytes, head_dim]: keys, then values, of the cross-attention."""

    @property
    def slots(self) -> int:
        return len(self.position)

    @property
    def columns(self) -> int:
        return self.cache[0].shape[2]

    def begin(self, slot: int, utterance: Utterance, columns: LongTensor, prompt: int, end: int) -> None:
        """Set a slot up whose prompt has `prompt` frames; it runs once it is `live`.

        Until then its position is the first column to be stepped, so that a step that has it along
        without its being live overwrites nothing of it. Numbers are filled in: to assign them would be to
        copy them from the host, which waits for the device.
        """
        self.grid[slot].fill_(UNKNOWN)
        self.grid[slot, : len(columns)].copy_(self.upload(columns))
        self.position[slot].fill_(prompt)
        self.end[slot].fill_(end)
        self.eos_at[slot].fill_(NEVER)
        self.live[slot].fill_(False)
        self.broken[slot].fill_(False)
        for name in SamplingParams._fields:
            getattr(self, name)[slot].fill_(getattr(utterance, name))

    def set_text(self, slot: int, keys_values: Tensor) -> None:
        """Take what `text_keys_values` made of the slot's text."""
        length = keys_values.shape[2]
        self.text[:, slot, :, :length] = keys_values
        self.text_length[slot].fill_(length)

    def uncond_cache(self, slot: int, columns: int) -> Tensor:
        """A copy of the row without a text: [layers, 2 * kv_heads, columns, head_dim]."""
        return torch.stack([layer[2 * slot + 1, :, :columns] for layer in self.cache])

    def set_uncond_cache(self, slot: int, copy: Tensor) -> None:
        for layer, columns in zip(self.cache, copy, strict=True):
            layer[2 * slot + 1, :, : columns.shape[1]] = columns

    def sampling_params(self, slots: Tensor) -> SamplingParams:
        return SamplingParams(*(getattr(self, name)[slots] for name in SamplingParams._fields))

    def scrub(self, slot: int) -> None:
        """Remove what a broken utterance has left: masked attention multiplies it by 0; NaN survives."""
        for layer in self.cache:
            layer[2 * slot : 2 * slot + 2].zero_()
        self.text[:, slot].zero_()

    def upload(self, tensor: Tensor) -> Tensor:
        """To the device, without waiting for the work that is queued there."""
        device = self.position.device
        if device.type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)


def text_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Of the cross-attention's arena: CPUs multiply a matrix by a vector far faster in fp32 than in bf16."""
    return torch.float32 if device.type == "cpu" else dtype


def slot_bytes(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> dict[str, int]:
    """What one slot takes, by arena; the vectors do not count."""
    cache, text = _arenas(config, 1)
    grid = (config.decoder.positions + 1) * config.channels
    return {
        "cache": prod(cache) * dtype.itemsize,
        "text": prod(text) * text_dtype(device, dtype).itemsize,
        "grid": grid * torch.long.itemsize,
    }


def new_state(config: ModelConfig, slots: int, device: torch.device, dtype: torch.dtype) -> State:
    """All slots idle; raises torch.OutOfMemoryError where they do not fit."""

    def vector(kind: torch.dtype, value: float = 0) -> Tensor:
        return torch.full((slots,), value, dtype=kind, device=device)

    # zeros rather than whatever was there: masked attention multiplies it by 0
    cache_size, text_size = _arenas(config, slots)
    cache = tuple(torch.zeros(cache_size[1:], dtype=dtype, device=device) for _ in range(cache_size[0]))
    text = torch.zeros(text_size, dtype=text_dtype(device, dtype), device=device)
    return State(
        grid=torch.full((slots, config.decoder.positions + 1, config.channels), UNKNOWN, device=device),
        position=vector(torch.long),
        end=vector(torch.long),
        eos_at=vector(torch.long, NEVER),
        live=vector(torch.bool),
        broken=vector(torch.bool),
        temperature=vector(torch.float32),
        cfg_scale=vector(torch.float32),
        top_p=vector(torch.float32, 1.0),
        top_k=vector(torch.long, 1),
        seed=vector(torch.long),
        text_length=vector(torch.long, 1),
        cache=cache,
        text=text,
    )


def _arenas(config: ModelConfig, slots: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    decoder = config.decoder
    return (
        (decoder.layers, 2 * slots, 2 * decoder.kv_heads, decoder.positions, decoder.head_dim),
        (decoder.layers, slots, 2 * config.cross_kv_heads, config.encoder.positions, config.cross_head_dim),
    )
