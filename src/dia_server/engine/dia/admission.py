"""Admits utterances into batch slots in bounded steps, so that running streams are delayed by milliseconds.

The text is encoded at admission, within milliseconds. A voice prompt's recording is encoded to codes on a
background stream while the batch runs, unless its codes are cached. The prompt is then prefilled in chunks of
columns; each poll prefills one chunk of one prompt.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from dia_server.engine.dia.codec import CODEBOOKS
from dia_server.engine.dia.delay import UNKNOWN, delayed
from dia_server.engine.dia.encoder import text_keys_values
from dia_server.engine.dia.memory import translate_oom
from dia_server.engine.dia.prefill import prefill
from dia_server.engine.dia.prompt_cache import PromptCache
from dia_server.engine.dia.run import Run
from dia_server.engine.dia.sampling import TOP_K_LIMIT
from dia_server.engine.dia.state import State
from dia_server.engine.dia.text import text_bytes
from dia_server.engine.dia.weights import Weights
from dia_server.engine.types import Utterance
from dia_server.errors import GpuOutOfMemory, Invalid

log = logging.getLogger(__name__)

PREFILL_CHUNK, MIN_PREFILL_CHUNK = 256, 16
"""Initial and minimum number of voice prompt columns prefilled per poll. Each out-of-memory error during
prefill halves the number for all later polls; at the minimum the utterance fails instead."""
NO_FRAMES = torch.empty(0, CODEBOOKS, dtype=torch.long)
NO_ROOM = "Too little memory is left to begin this request"


@dataclass(frozen=True, slots=True, eq=False)
class PendingPrompt:
    """An admitted utterance whose voice prompt is still being encoded; its text is already in the slot."""

    utterance: Utterance
    text_length: int
    """Bytes of the encoded text, including the prompt's transcript."""
    codes: list[Future[Tensor]]
    """Future of the codes [T, channels] of each part of the prompt, on the CPU."""

    @property
    def encoded(self) -> bool:
        return all(codes.done() for codes in self.codes)

    def frames(self) -> Tensor:
        """Return the codes [T, channels] of the whole prompt; raises the error of a failed encoding."""
        return torch.cat([codes.result() for codes in self.codes])


class Admission:
    """Begins utterances. Call `admit` for each utterance, and `advance` in every poll.

    `advance` finishes the admission of utterances that have a voice prompt.
    """

    def __init__(self, weights: Weights, state: State, prompt_cache: PromptCache) -> None:
        self._weights, self._state, self._prompt_cache = weights, state, prompt_cache
        self._pending: dict[int, PendingPrompt] = {}
        self._prefill_chunk = PREFILL_CHUNK

    def admit(self, slot: int, utterance: Utterance) -> Run | None:
        """Encode the text into `slot`, and start encoding the voice prompt, if there is one.

        Returns the run of an utterance without a voice prompt. Returns None for one with a voice prompt, even
        a cached one: `advance` adds its run. Raises TextTooLong, Invalid or GpuOutOfMemory.
        """
        text = text_bytes(utterance, self._weights.config.encoder.positions)
        if not 1 <= utterance.top_k <= TOP_K_LIMIT:
            raise Invalid(f"top_k must be between 1 and {TOP_K_LIMIT}", param="top_k")
        with translate_oom(NO_ROOM, self._prompt_cache.clear):
            byte_ids = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
            self._state.set_text(slot, text_keys_values(self._weights, self._state.upload(byte_ids)))
            if utterance.prompt is None:
                return self._begin(slot, utterance, len(text), NO_FRAMES)
            self._pending[slot] = PendingPrompt(
                utterance, len(text), self._prompt_cache.codes(utterance.prompt)
            )
            return None

    def cancel(self, slot: int) -> None:
        self._pending.pop(slot, None)

    def advance(self, runs: dict[int, Run]) -> Mapping[int, Exception]:
        """Add a run to `runs` for each utterance whose prompt has been encoded, then prefill one chunk.

        The chunk belongs to the first run in `runs` that is not fully prefilled. `runs` is keyed by slot, and
        so is the result: the exceptions of the utterances that failed in this call. If `runs` is empty and
        prompts are being encoded, waits until one of them is encoded; otherwise does not wait.
        """
        failures: dict[int, Exception] = {}
        if self._pending and not runs:
            self._wait_for_one()
        for slot, pending in list(self._pending.items()):
            if not pending.encoded:
                continue
            del self._pending[slot]
            try:
                with translate_oom(NO_ROOM, self._prompt_cache.clear):
                    runs[slot] = self._begin(slot, pending.utterance, pending.text_length, pending.frames())
            except Exception as error:  # noqa: BLE001 - fails this request only, the batch goes on
                failures[slot] = error
        waiting = ((slot, run) for slot, run in runs.items() if run.prefilled < run.prompt)
        if found := next(waiting, None):
            slot, run = found
            try:
                with translate_oom(NO_ROOM, self._prompt_cache.clear):
                    self._prefill(slot, run)
            except GpuOutOfMemory as error:
                if self._prefill_chunk > MIN_PREFILL_CHUNK:
                    self._prefill_chunk //= 2
                    log.warning("out of memory in a prefill", extra={"columns": self._prefill_chunk})
                else:
                    failures[slot] = error
        return failures

    def _wait_for_one(self) -> None:
        """Wait until one of the pending prompts is encoded."""
        while not any(pending.encoded for pending in self._pending.values()):
            codes = chain.from_iterable(pending.codes for pending in self._pending.values())
            wait([one for one in codes if not one.done()], return_when=FIRST_COMPLETED)

    def _begin(self, slot: int, utterance: Utterance, text_length: int, frames: Tensor) -> Run:
        """Set up the grid and sampling parameters of `slot` and return its run.

        The slot's text must be encoded already. `frames` [T, channels] are the codes of the prompt, empty
        without a prompt. Also fills the unconditional row's KV cache, if the prompt cache has a copy. A slot
        without a prompt is live at once. Raises Invalid if the prompt is too long.
        """
        config, prompt = self._weights.config, len(frames)
        limit = self._limit(utterance, prompt)
        columns = delayed(frames, config.delay, config.bos)
        self._state.begin(slot, utterance, columns, prompt, prompt + limit - config.tail)
        uncond = None if utterance.prompt is None else self._prompt_cache.uncond_cache(utterance.prompt)
        if uncond is not None:
            self._state.set_uncond_cache(slot, uncond)
        known = torch.full((prompt + limit + 1, config.channels), UNKNOWN)
        known[: len(columns)] = columns[: len(known)]
        run = Run(
            utterance=utterance,
            text_length=text_length,
            utterance_bytes=len(utterance.text.encode()),
            prompt=prompt,
            limit=limit,
            delay=config.delay,
            columns=known,
            prefill_uncond=uncond is None,
        )
        if run.running:
            self._state.live[slot].fill_(True)
        return run

    def _limit(self, utterance: Utterance, prompt: int) -> int:
        """Return the maximum number of decode steps after `prompt` frames.

        The number is `max_tokens` or, if less, the steps that are left in the decoder's context. It is at
        least `config.tail` + 2, the steps that one frame takes. Raises Invalid if fewer steps are left.
        """
        config = self._weights.config
        room = config.decoder.positions - prompt
        if room < config.tail + 2:
            raise Invalid(
                f"The voice prompt is too long: {prompt} frames of {config.decoder.positions} in all",
                param="voice",
            )
        wanted = room if utterance.max_tokens is None else utterance.max_tokens
        return max(config.tail + 2, min(room, wanted))

    def _prefill(self, slot: int, run: Run) -> None:
        prompt = run.utterance.prompt
        assert prompt is not None
        stop = min(run.prefilled + self._prefill_chunk, run.prompt)
        prefill(
            self._weights,
            self._state,
            slot,
            run.prefilled,
            stop,
            run.text_length,
            prefill_uncond=run.prefill_uncond,
        )
        run.prefilled = stop
        if run.running:
            self._state.live[slot].fill_(True)
        if run.prefill_uncond and run.running:
            self._prompt_cache.keep_uncond_cache(prompt, self._state.uncond_cache(slot, run.prompt))
