"""An LRU cache of voice prompts: their codes, and their unconditional row's KV cache.

The unconditional row's KV cache depends on the prompt alone, so utterances with the same prompt share it.
Recordings are encoded on a background stream, because encoding takes so long that running utterances would
stall.
"""

from collections import OrderedDict
from concurrent.futures import Future
from typing import Protocol

import torch
from torch import LongTensor, Tensor

from dia_server.engine.dia.background_stream import BackgroundStream
from dia_server.engine.types import GeneratedAudio, Recording, Samples, VoicePrompt

Key = tuple[str, str]


class CodecEncoder(Protocol):
    def encode(self, samples: Samples) -> LongTensor:
        """Encode mono samples at 44.1 kHz to codes [T, channels]."""


class PromptCache:
    """Holds at most `limit` bytes; evicts KV caches before codes, the least recently used first."""

    def __init__(self, codec: CodecEncoder, device: torch.device, limit: int) -> None:
        self._codec, self._limit = codec, limit
        self._background = BackgroundStream(device, "prompts")
        self._encoding: dict[str, Future[Tensor]] = {}
        self._kept: OrderedDict[Key, Tensor] = OrderedDict()
        """Tensors, least recently used first. A cachetools cache could not evict KV caches before codes."""
        self.bytes = 0

    def codes(self, prompt: VoicePrompt) -> list[Future[Tensor]]:
        """Return, for each part of the prompt, a future of its codes [T, channels] on the CPU.

        Starts encoding each recording, unless its codes are cached or being encoded already.
        """
        self._keep_encoded()
        return [self._codes(part) for part in prompt.parts]

    def _codes(self, part: Recording | GeneratedAudio) -> Future[Tensor]:
        if isinstance(part, GeneratedAudio):
            return _known(torch.from_numpy(part.frames).long())
        if (found := self._find((part.digest, "codes"))) is not None:
            return _known(found)
        if part.digest not in self._encoding:
            self._encoding[part.digest] = self._background.submit(self._encode, part.samples)
        return self._encoding[part.digest]

    def uncond_cache(self, prompt: VoicePrompt) -> Tensor | None:
        """Return the unconditional row's KV cache [layers, 2 * kv_heads, T, head_dim]; None if not cached."""
        return self._find((prompt.key, "cache"))

    def keep_uncond_cache(self, prompt: VoicePrompt, cache: Tensor) -> None:
        """Cache the unconditional row's KV cache, unless it exceeds the limit on its own."""
        if cache.nbytes <= self._limit:
            self._keep((prompt.key, "cache"), cache)

    def clear(self) -> None:
        self._kept.clear()
        self.bytes = 0

    def close(self) -> None:
        self._background.close()
        self.clear()

    def _encode(self, samples: Samples) -> Tensor:
        return self._codec.encode(samples).cpu()

    def _keep_encoded(self) -> None:
        """Cache the codes of recordings that have been encoded since the last call."""
        for digest, codes in list(self._encoding.items()):
            if codes.done():
                del self._encoding[digest]
                if codes.exception() is None:  # the future that `codes` returned raises the error
                    self._keep((digest, "codes"), codes.result())

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
            # codes are small and slow to compute again; most KV caches belong to the first segment of a long
            # text (its anchor) and serve that text only
            caches = (one for one in self._kept if one[1] == "cache")
            self.bytes -= self._kept.pop(next(caches, next(iter(self._kept)))).nbytes


def _known(codes: Tensor) -> Future[Tensor]:
    future: Future[Tensor] = Future()
    future.set_result(codes)
    return future
