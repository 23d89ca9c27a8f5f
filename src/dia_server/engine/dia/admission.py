"""An utterance's way into a slot, in parts that keep running streams waiting for moments only.

Its text is encoded at once, which takes milliseconds. Its voice prompt, unless known, is encoded beside the
steps, and then prefilled piece by piece, one between two polls.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

import torch
from torch import Tensor

from dia_server.engine.dia.delay import UNKNOWN, delayed
from dia_server.engine.dia.encoder import text_keys_values
from dia_server.engine.dia.memory import named_shortage
from dia_server.engine.dia.prefill import prefill
from dia_server.engine.dia.prompts import NOTHING, Prompts
from dia_server.engine.dia.run import Run
from dia_server.engine.dia.sampling import TOP_K_LIMIT
from dia_server.engine.dia.state import State
from dia_server.engine.dia.text import text_bytes
from dia_server.engine.dia.weights import Weights
from dia_server.engine.types import Utterance
from dia_server.errors import GpuOutOfMemory, Invalid

log = logging.getLogger(__name__)

PIECE, SMALLEST_PIECE = 256, 16
"""Columns of a prompt that are prefilled between two polls; fewer once memory has run out."""
NO_ROOM = "Too little memory is left to begin this request"


@dataclass(frozen=True, slots=True, eq=False)
class Joining:
    """An utterance whose text is in its slot, and whose voice prompt is being encoded."""

    utterance: Utterance
    letters: int
    """Bytes of the text."""
    codes: Future[Tensor]


class Admission:
    """`admit` an utterance, then `advance` until its run is running."""

    def __init__(self, weights: Weights, state: State, prompts: Prompts) -> None:
        self._weights, self._state, self._prompts = weights, state, prompts
        self._joining: dict[int, Joining] = {}
        self._piece = PIECE

    def admit(self, slot: int, utterance: Utterance) -> Run | None:
        """None while the prompt is being encoded; raises TextTooLong, Invalid or GpuOutOfMemory."""
        text = text_bytes(utterance, self._weights.shape.text.positions)
        if not 1 <= utterance.top_k <= TOP_K_LIMIT:
            raise Invalid(f"top_k must be between 1 and {TOP_K_LIMIT}", param="top_k")
        with named_shortage(NO_ROOM, self._prompts.clear):
            letters = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
            self._state.set_text(slot, text_keys_values(self._weights, self._state.upload(letters)))
            if utterance.prompt is None:
                return self._begin(slot, utterance, len(text), NOTHING)
            self._joining[slot] = Joining(utterance, len(text), self._prompts.codes(utterance.prompt))
            return None

    def leave(self, slot: int) -> None:
        self._joining.pop(slot, None)

    def advance(self, runs: dict[int, Run]) -> Mapping[int, Exception]:
        """Add to `runs` what can begin now, and prefill a piece of one; returns what each failure ends.

        Waits for a prompt to be encoded where nothing runs meanwhile.
        """
        failures: dict[int, Exception] = {}
        if self._joining and not runs:
            wait([joining.codes for joining in self._joining.values()], return_when=FIRST_COMPLETED)
        for slot, joining in list(self._joining.items()):
            if not joining.codes.done():
                continue
            del self._joining[slot]
            try:
                with named_shortage(NO_ROOM, self._prompts.clear):
                    runs[slot] = self._begin(slot, joining.utterance, joining.letters, joining.codes.result())
            except Exception as error:  # noqa: BLE001 - it is this request's; the batch goes on
                failures[slot] = error
        waiting = ((slot, run) for slot, run in runs.items() if run.prefilled < run.prompt)
        if found := next(waiting, None):
            slot, run = found
            try:
                with named_shortage(NO_ROOM, self._prompts.clear):
                    self._prefill(slot, run)
            except GpuOutOfMemory as error:
                if self._piece > SMALLEST_PIECE:
                    self._piece //= 2
                    log.warning("out of memory in a prefill", extra={"piece": self._piece})
                else:
                    failures[slot] = error
        return failures

    def _begin(self, slot: int, utterance: Utterance, letters: int, frames: Tensor) -> Run:
        """Set a slot up whose text is in its arena, behind its recording's `frames`; raises Invalid."""
        if utterance.prompt is not None and utterance.prompt.made is not None:
            frames = torch.cat([frames, torch.from_numpy(utterance.prompt.made).long()])
        shape, prompt = self._weights.shape, len(frames)
        limit = self._limit(utterance, prompt)
        columns = delayed(frames, shape.delay, shape.bos)
        self._state.begin(slot, utterance, columns, prompt, prompt + limit - shape.tail)
        silent = None if utterance.prompt is None else self._prompts.silent_cache(utterance.prompt)
        if silent is not None:
            self._state.set_silent_cache(slot, silent)
        known = torch.full((prompt + limit + 1, shape.channels), UNKNOWN)
        known[: len(columns)] = columns[: len(known)]
        run = Run(
            utterance=utterance,
            letters=letters,
            spoken=len(utterance.text.encode()),
            prompt=prompt,
            limit=limit,
            delay=shape.delay,
            columns=known,
            both=silent is None,
        )
        if run.running:
            self._state.live[slot].fill_(True)
        return run

    def _limit(self, utterance: Utterance, prompt: int) -> int:
        """Decoder steps at most; enough for one frame must be left."""
        shape = self._weights.shape
        room = shape.audio.positions - prompt
        if room < shape.tail + 2:
            raise Invalid(
                f"The voice prompt is too long: {prompt} frames of {shape.audio.positions} in all",
                param="voice",
            )
        wanted = room if utterance.max_tokens is None else utterance.max_tokens
        return max(shape.tail + 2, min(room, wanted))

    def _prefill(self, slot: int, run: Run) -> None:
        prompt = run.utterance.prompt
        assert prompt is not None
        stop = min(run.prefilled + self._piece, run.prompt)
        prefill(self._weights, self._state, slot, run.prefilled, stop, run.letters, both=run.both)
        run.prefilled = stop
        if run.running:
            self._state.live[slot].fill_(True)
        if run.both and run.running:
            self._prompts.keep_silent_cache(prompt, self._state.silent_cache(slot, run.prompt))
