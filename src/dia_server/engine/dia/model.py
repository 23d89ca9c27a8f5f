"""Dia behind the engine's `Model` protocol: admits utterances, steps them as one batch, hands out audio.

A call of `step` is one poll: a piece of a waiting prompt's prefill, then `POLL` decoder steps of everything
that runs, then one copy of what came of them. On CUDA the copy is read a poll later, while the device works
on the next one; limits and ends are on the device, so the steps in between do no harm.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import structlog
import torch
from torch import Tensor

from dia_server.engine.dia.decoding import Decoder, Decoding, Piece
from dia_server.engine.dia.delay import UNKNOWN, delayed
from dia_server.engine.dia.encoder import text_keys_values
from dia_server.engine.dia.graphs import Eager, Graphs, Launcher
from dia_server.engine.dia.memory import is_out_of_memory, release_cached
from dia_server.engine.dia.prefill import prefill
from dia_server.engine.dia.prompts import Encoder, Prompts
from dia_server.engine.dia.run import Run
from dia_server.engine.dia.sampling import TOP_K_LIMIT
from dia_server.engine.dia.state import new_state
from dia_server.engine.dia.text import text_bytes
from dia_server.engine.dia.weights import Weights
from dia_server.engine.types import Chunk, Utterance
from dia_server.errors import GpuOutOfMemory, Invalid, ServerError

log = structlog.get_logger()

POLL = 4
"""Steps between two looks of the host: what a cancellation waits for."""
PIECE, SMALLEST_PIECE = 256, 16
"""Columns of a prompt that are prefilled between two polls; fewer once memory has run out."""
PROMPT_BYTES = 512 << 20
"""Kept of voice prompts: about 16 of ten seconds."""
RETRY_S = 5
NO_ROOM = "Too little memory is left to begin this request"


class AudioCodec(Encoder, Decoder, Protocol):
    """What the model asks of a codec."""


@dataclass(frozen=True, slots=True, eq=False)
class _Poll:
    """The outcome of one poll on its way to the host."""

    slots: list[int]
    runs: list[Run]
    values: Tensor
    """[B, 4 + steps * channels]: position, EOS column, live, broken, the new columns."""
    arrived: torch.cuda.Event | None


class DiaModel:
    def __init__(
        self,
        weights: Weights,
        codec: AudioCodec,
        slots: int,
        *,
        compiled: bool = False,
        poll: int = POLL,
        prompt_bytes: int = PROMPT_BYTES,
        report: Callable[[float], None] = lambda share: None,
    ) -> None:
        """`compiled` asks for fused steps in CUDA graphs, where there is CUDA; `report` follows that."""
        self.slots = slots
        self._weights, self._codec, self._steps = weights, codec, poll
        on_cuda = weights.device.type == "cuda"
        self.compiled = compiled and on_cuda
        self._depth = 1 if on_cuda else 0
        self._prompts = Prompts(codec, prompt_bytes)
        self._decoding = Decoding(codec, weights.device)
        self._piece = PIECE
        self._runs: dict[int, Run] = {}
        self._polls: deque[_Poll] = deque()
        self._prepare(report)

    def _prepare(self, report: Callable[[float], None]) -> None:
        weights = self._weights
        self._state = new_state(weights.shape, self.slots, weights.device, weights.dtype)
        self._eager: Launcher = Eager(weights, self._state)
        self._fused: Launcher | None = Graphs(weights, self._state, report) if self.compiled else None

    # What follows is the `Model` protocol.

    @torch.inference_mode()
    def admit(self, slot: int, utterance: Utterance) -> None:
        """Encode text and prompt; raises TextTooLong, Invalid or GpuOutOfMemory."""
        shape = self._weights.shape
        text = text_bytes(utterance, shape.text.positions)
        if not 1 <= utterance.top_k <= TOP_K_LIMIT:
            raise Invalid(f"top_k must be between 1 and {TOP_K_LIMIT}", param="top_k")
        with self._in_memory(NO_ROOM):
            frames = self._frames(utterance)
            limit = self._limit(utterance, len(frames))
            columns = delayed(frames, shape.delay, shape.bos)
            self._state.begin(slot, utterance, columns, len(frames), len(frames) + limit - shape.tail)
            letters = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
            self._state.set_text(slot, text_keys_values(self._weights, self._state.upload(letters)))
            silent = self._silent_cache(utterance)
            if silent is not None:
                self._state.silent_cache(slot, len(frames)).copy_(silent)
        known = torch.full((len(frames) + limit + 1, shape.channels), UNKNOWN)
        known[: len(columns)] = columns[: len(known)]
        run = Run(
            utterance=utterance,
            letters=len(text),
            spoken=len(utterance.text.encode()),
            prompt=len(frames),
            limit=limit,
            delay=shape.delay,
            columns=known,
            both=silent is None,
        )
        self._runs[slot] = run
        if run.running:
            self._state.live[slot] = True

    @torch.inference_mode()
    def step(self) -> Mapping[int, Chunk | Exception]:
        with self._in_memory("Memory ran out in the middle of the batch"):
            return self._poll()

    @torch.inference_mode()
    def release(self, slot: int) -> None:
        self._state.live[slot] = False
        run = self._runs.pop(slot, None)
        if run is not None and run.broken:
            self._state.scrub(slot)

    def reset(self) -> None:
        """Begin anew with empty arenas: nobody knows what a failed step has left in the old ones."""
        self._runs.clear()
        self._polls.clear()
        self._decoding.abandon()
        self._prompts.clear()
        del self._fused, self._eager, self._state
        release_cached()
        self._prepare(lambda share: None)

    def close(self) -> None:
        self._decoding.close()
        self._prompts.clear()
        del self._fused, self._eager, self._state, self._weights, self._codec
        release_cached()

    # What follows is how.

    def _poll(self) -> dict[int, Chunk | Exception]:
        outcomes: dict[int, Chunk | Exception] = {}
        self._prefill_piece(outcomes)
        queued = self._queue_poll()
        if len(self._polls) > (self._depth if queued else 0):
            self._take(self._polls.popleft())
        for slot, run in self._runs.items():
            if run.broken:
                outcomes[slot] = ServerError("The model produced numbers that are not finite")
        if not self._decoding.busy:
            self._decode(outcomes)
        for piece, chunk in self._decoding.finished(wait=not queued):
            if self._runs.get(piece.slot) is piece.run:
                outcomes.setdefault(piece.slot, chunk)
        return outcomes

    def _frames(self, utterance: Utterance) -> Tensor:
        if utterance.prompt is None:
            return torch.empty(0, self._weights.shape.channels, dtype=torch.long)
        return self._prompts.codes(utterance.prompt)

    def _silent_cache(self, utterance: Utterance) -> Tensor | None:
        return None if utterance.prompt is None else self._prompts.silent_cache(utterance.prompt.digest)

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

    @contextmanager
    def _in_memory(self, failure: str) -> Iterator[None]:
        """Name a lack of memory as such, and give back what can be spared."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._prompts.clear()
            release_cached()
            raise GpuOutOfMemory(f"{failure}; try again later", retry_after=RETRY_S) from error

    def _prefill_piece(self, outcomes: dict[int, Chunk | Exception]) -> None:
        """One piece of one prompt, so that streams which run wait no longer than for that."""
        waiting = ((slot, run) for slot, run in self._runs.items() if run.prefilled < run.prompt)
        slot, run = next(waiting, (-1, None))
        if run is None:
            return
        try:
            with self._in_memory(NO_ROOM):
                self._prefill(slot, run)
        except GpuOutOfMemory as error:
            if self._piece > SMALLEST_PIECE:
                self._piece //= 2
                log.warning("out of memory in a prefill", piece=self._piece)
            else:
                outcomes[slot] = error
        if run.running:
            self._state.live[slot] = True

    def _prefill(self, slot: int, run: Run) -> None:
        prompt = run.utterance.prompt
        assert prompt is not None
        stop = min(run.prefilled + self._piece, run.prompt)
        prefill(self._weights, self._state, slot, run.prefilled, stop, run.letters, both=run.both)
        run.prefilled = stop
        if run.both and run.running:
            self._prompts.keep_silent_cache(prompt.digest, self._state.silent_cache(slot, run.prompt))

    def _queue_poll(self) -> bool:
        """Queue the next steps and the copy of their outcome; False where nothing runs."""
        running = [(slot, run) for slot, run in self._runs.items() if run.running]
        if not running:
            return False
        slots, runs = [slot for slot, _ in running], [run for _, run in running]
        state, count = self._state, self._steps
        index = state.upload(torch.tensor(slots))
        before = state.position[index]
        fused = self._fused is not None and all(run.utterance.compile for run in runs)
        launcher = self._fused if self._fused is not None and fused else self._eager
        launcher.run(slots, runs, count)
        after = before[:, None] + torch.arange(1, count + 1, device=before.device)
        new = state.grid[index[:, None], after.clamp_max(state.columns)].flatten(1)
        facts = [state.position, state.eos_at, state.live.long(), state.broken.long()]
        values, arrived = torch.cat([torch.stack([fact[index] for fact in facts], 1), new], 1), None
        if values.is_cuda:
            pinned = torch.empty_like(values, device="cpu", pin_memory=True)
            values = pinned.copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._polls.append(_Poll(slots, runs, values, arrived))
        return True

    def _take(self, poll: _Poll) -> None:
        """Bring the host's side up to date with a poll's outcome, but for utterances that have left."""
        if poll.arrived is not None:
            poll.arrived.synchronize()
        facts = poll.values[:, :4].tolist()
        columns = poll.values[:, 4:].view(len(poll.slots), self._steps, -1)
        for slot, run, (position, eos_at, live, broken), new in zip(
            poll.slots, poll.runs, facts, columns, strict=True
        ):
            if self._runs.get(slot) is run:
                run.take(position, eos_at, bool(live), bool(broken), new)

    def _decode(self, outcomes: dict[int, Chunk | Exception]) -> None:
        """Give the codec the next window of each utterance that has one; end those that have no more."""
        pieces = []
        for slot, run in self._runs.items():
            window = None if run.broken else run.next_window()
            if window is not None:
                pieces.append(Piece(slot, run, window, run.count_tokens(), run.progress, run.finished))
            elif run.finished and not run.broken:
                outcomes[slot] = Chunk(np.empty(0, np.float32), run.count_tokens(), 1.0, done=True)
        if pieces:
            self._decoding.start(pieces)
