"""Voice prompts that were used lately: their codes, and the part of their K/V cache that no text changes.

Both are named by the digest of the recording. The cache of the row without a text depends on the prompt
alone, so a second utterance of the same voice need not compute it.
"""

from collections import OrderedDict
from typing import Protocol

from torch import LongTensor, Tensor

from dia_server.engine.types import Samples, VoicePrompt

Key = tuple[str, str]


class Encoder(Protocol):
    def encode(self, samples: Samples) -> LongTensor:
        """44.1 kHz to codes [T, channels]."""


class Prompts:
    """Least recently used out first, once `limit` bytes are exceeded."""

    def __init__(self, codec: Encoder, limit: int) -> None:
        self._codec, self._limit = codec, limit
        self._kept: OrderedDict[Key, Tensor] = OrderedDict()
        self.bytes = 0

    def codes(self, prompt: VoicePrompt) -> Tensor:
        """The prompt's frames [T, channels], on the CPU."""
        key = (prompt.digest, "codes")
        found = self._find(key)
        if found is None:
            found = self._codec.encode(prompt.samples).cpu()
            self._keep(key, found)
        return found

    def silent_cache(self, digest: str) -> Tensor | None:
        """[layers, 2 * kv_heads, T, head_dim] of the row without a text, if it is known."""
        return self._find((digest, "cache"))

    def keep_silent_cache(self, digest: str, cache: Tensor) -> None:
        """Keep a copy of `cache`, if one fits at all."""
        if cache.nbytes <= self._limit:
            self._keep((digest, "cache"), cache.clone())

    def clear(self) -> None:
        self._kept.clear()
        self.bytes = 0

    def _find(self, key: Key) -> Tensor | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def _keep(self, key: Key, tensor: Tensor) -> None:
        if key in self._kept:
            self.bytes -= self._kept.pop(key).nbytes
        self._kept[key] = tensor
        self.bytes += tensor.nbytes
        while self.bytes > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= oldest.nbytes
