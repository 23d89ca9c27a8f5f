"""The batch's mutable state: tensors on the device for a fixed number of slots.

For classifier-free guidance slot s has two rows: 2s is conditional (with the text), 2s + 1 unconditional. A
slot's token grid is filled in advance with every token that is not sampled (BOS, the voice prompt), and its
limits are tensors, so that a step needs neither branches nor the host.
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
"""Value of `eos_at` until EOS is sampled or forced; greater than any column."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Tensors of all slots; a slot is stepped while it is `live`."""

    grid: Tensor
    """[slots, columns + 1, channels]: columns of delayed tokens, UNKNOWN where not yet sampled."""
    position: Tensor
    """[slots]: index of the last complete column, which is the next step's input."""
    end: Tensor
    """[slots]: index of the column in which channel 0's EOS is forced, unless it has been sampled before."""
    eos_at: Tensor
    """[slots]: index of the column of channel 0's EOS, or NEVER."""
    live: Tensor
    """[slots]: whether a step samples the slot's next column."""
    broken: Tensor
    """[slots]: whether the model has produced NaN or infinity for the slot."""
    temperature: Tensor
    cfg_scale: Tensor
    top_p: Tensor
    top_k: Tensor
    seed: Tensor
    text_length: Tensor
    arrivals: Tensor
    """Counters of the attention kernel, one for each row and K/V head of a batch; 0 between launches."""
    cache: tuple[Tensor, ...]
    """Self-attention KV cache of each layer: [2 * slots, 2 * kv_heads, columns, head_dim], keys then values.

    Each layer has its own tensor, because a compiled step writes to a whole input tensor in place but would
    copy a slice of one.
    """
    text: Tensor
    """Cross-attention KV cache [layers, slots, 2 * kv_heads, bytes, head_dim]: keys, then values."""

    @property
    def slots(self) -> int:
        return len(self.position)

    @property
    def columns(self) -> int:
        return self.cache[0].shape[2]

    def begin(self, slot: int, utterance: Utterance, columns: LongTensor, prompt: int, end: int) -> None:
        """Set up `slot` for an utterance whose prompt has `prompt` frames.

        `columns` are the prompt's delayed tokens, `end` is the column in which EOS is forced. `live` stays
        False: the caller sets it once the text is encoded and the prompt is prefilled.

        A step that pads its batch with this slot writes only to the cache column at `position`, which the
        slot's own first step writes again. Scalars use `fill_`: assignment would copy from the host and wait
        for the device.
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
        """Store the slot's cross-attention KV cache, as `text_keys_values` returns it."""
        length = keys_values.shape[2]
        self.text[:, slot, :, :length] = keys_values
        self.text_length[slot].fill_(length)

    def uncond_cache(self, slot: int, columns: int) -> Tensor:
        """Copy the unconditional row's first columns: [layers, 2 * kv_heads, columns, head_dim]."""
        return torch.stack([layer[2 * slot + 1, :, :columns] for layer in self.cache])

    def set_uncond_cache(self, slot: int, copy: Tensor) -> None:
        """Fill the unconditional row's KV cache from a copy that `uncond_cache` returned."""
        for layer, columns in zip(self.cache, copy, strict=True):
            layer[2 * slot + 1, :, : columns.shape[1]] = columns

    def sampling_params(self, slots: Tensor) -> SamplingParams:
        return SamplingParams(*(getattr(self, name)[slots] for name in SamplingParams._fields))

    def retire(self, slot: int) -> None:
        """End the slot's utterance.

        A batch may be padded with the slot, so its attentions are shortened to one column.
        """
        self.live[slot].fill_(False)
        self.position[slot].fill_(0)
        self.text_length[slot].fill_(1)

    def scrub(self, slot: int) -> None:
        """Zero the slot's KV caches, which may hold NaN.

        Masked attention multiplies unused values by 0, and 0 * NaN is NaN.
        """
        for layer in self.cache:
            layer[2 * slot : 2 * slot + 2].zero_()
        self.text[:, slot].zero_()

    def upload(self, tensor: Tensor) -> Tensor:
        """Copy `tensor` to the device; on CUDA without waiting for the work queued there."""
        device = self.position.device
        if device.type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)


def slot_bytes(config: ModelConfig, dtype: torch.dtype) -> dict[str, int]:
    """Return the bytes that one slot takes in each large tensor, by the tensor's name in `State`.

    The vectors [slots] are negligible.
    """
    cache, text = _arenas(config, 1)
    grid = (config.decoder.positions + 1) * config.channels
    return {
        "cache": prod(cache) * dtype.itemsize,
        "text": prod(text) * dtype.itemsize,
        "grid": grid * torch.long.itemsize,
    }


def new_state(config: ModelConfig, slots: int, device: torch.device, dtype: torch.dtype) -> State:
    """Allocate the state with all slots idle; raises torch's out-of-memory error if it does not fit."""

    def vector(kind: torch.dtype, value: float = 0) -> Tensor:
        return torch.full((slots,), value, dtype=kind, device=device)

    # zeros: masked attention multiplies unused values by 0, and uninitialised memory may hold NaN
    cache_size, text_size = _arenas(config, slots)
    cache = tuple(torch.zeros(cache_size[1:], dtype=dtype, device=device) for _ in range(cache_size[0]))
    text = torch.zeros(text_size, dtype=dtype, device=device)
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
        arrivals=torch.zeros(_most_tasks(config, slots), dtype=torch.int32, device=device),
        cache=cache,
        text=text,
    )


def _most_tasks(config: ModelConfig, slots: int) -> int:
    """Return the maximum of rows times K/V heads in an attention of a batch of all slots."""
    return slots * max(2 * config.decoder.kv_heads, config.cross_kv_heads)


def _arenas(config: ModelConfig, slots: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    decoder = config.decoder
    return (
        (decoder.layers, 2 * slots, 2 * decoder.kv_heads, decoder.positions, decoder.head_dim),
        (decoder.layers, slots, 2 * config.cross_kv_heads, config.encoder.positions, config.cross_head_dim),
    )
