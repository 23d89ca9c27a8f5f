"""Dia as the engine's `Model`: admits utterances, steps them as one batch and returns their audio.

A call of `step` is one poll: one chunk of a pending prompt's prefill, then `STEPS_PER_POLL` decode steps of
every running slot, then one copy of the results to the host. On CUDA the copy is read one poll later, while
the device runs the next steps: limits and ends are tensors on the device, so no step waits for the host.
Frames that are complete on the host are then decoded to audio.
"""

import gc
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from dia_server.engine.dia.admission import Admission
from dia_server.engine.dia.audio_decoder import AudioDecoder, CodecDecoder, Emitted
from dia_server.engine.dia.memory import PROMPT_BYTES, is_out_of_memory, release_cached, translate_oom
from dia_server.engine.dia.poll import Poll
from dia_server.engine.dia.probe import cause_of
from dia_server.engine.dia.prompt_cache import CodecEncoder, PromptCache
from dia_server.engine.dia.run import Run
from dia_server.engine.dia.state import new_state
from dia_server.engine.dia.step_ops import fastest_ops
from dia_server.engine.dia.step_runners import CudaGraphRunner, EagerRunner, StepRunner, capturable_steps
from dia_server.engine.dia.weights import Weights
from dia_server.engine.types import Chunk, Recording, Utterance, VoicePrompt
from dia_server.errors import GpuOutOfMemory, ServerError
from dia_server.units import SAMPLE_RATE

log = logging.getLogger(__name__)

STEPS_PER_POLL = 4
"""Decode steps per poll. A cancellation takes effect between two polls."""
WARM_UP_STEPS = 100
"""Decode steps of the warm-up utterance, enough for chunks of several lengths."""
NO_KERNELS = (
    "Triton cannot build or run its kernels, so Dia uses plain PyTorch operations, which are slower: "
    "install a C compiler (gcc) and Python's headers (python3-dev), and restart"
)
CODEC_NOT_CAPTURED = "the codec cannot be captured as CUDA graphs, so it runs eagerly, which is slower"


class AudioCodec(CodecEncoder, CodecDecoder, Protocol):
    """A codec that encodes voice prompts and decodes windows of codes."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Options of a `DiaModel`: compilation, Triton, steps per poll, and the size of the prompt cache."""

    compiled: bool = False
    """Whether to compile the steps that are captured as CUDA graphs; ignored on other devices."""
    kernel_fault: str | None = None
    """Reason why Triton does not work, so that plain PyTorch operations are used; None if it works."""
    steps_per_poll: int = STEPS_PER_POLL
    """Decode steps per poll."""
    prompt_bytes: int = PROMPT_BYTES
    """Maximum bytes of the prompt cache."""


class DiaModel:
    """The batched Dia model, with a fixed number of slots; see `engine.types.Model` for its methods."""

    def __init__(
        self,
        weights: Weights,
        codec: AudioCodec,
        slots: int,
        options: ModelOptions = ModelOptions(),
        *,
        report: Callable[[float], None] = lambda share: None,
    ) -> None:
        """Allocate the state and, on CUDA, capture the steps as CUDA graphs.

        `report` receives the share of graphs captured, 0 to 1.
        """
        self.slots = slots
        self.notes: tuple[str, ...] = ()
        self._weights, self._codec, self._steps_per_poll = weights, codec, options.steps_per_poll
        on_cuda = weights.device.type == "cuda"
        if options.kernel_fault:
            self._note(NO_KERNELS, options.kernel_fault)
        self._make_ops = fastest_ops(weights, kernels=not options.kernel_fault)
        fused = options.compiled and not options.kernel_fault
        self._to_capture = capturable_steps(self._make_ops, weights.device, fused=fused)
        self._depth = 1 if on_cuda else 0
        self._prompt_cache = PromptCache(codec, weights.device, options.prompt_bytes)
        # no clock elsewhere: the same windows each time make the same samples
        self._audio_decoder = AudioDecoder(codec, weights.device, time.monotonic if on_cuda else None)
        self._poll_thread = ThreadPoolExecutor(1, "polls")
        self._runs: dict[int, Run] = {}
        self._polls: deque[Poll] = deque()
        self._prepare(report)

    def _prepare(self, report: Callable[[float], None]) -> None:
        weights = self._weights
        self._state = new_state(weights.config, self.slots, weights.device, weights.dtype)
        self._admission = Admission(weights, self._state, self._prompt_cache)
        self._runner = self._capture(report)

    def _capture(self, report: Callable[[float], None]) -> StepRunner:
        """Return a runner of CUDA graphs for the fastest step that can be captured, else an eager runner."""
        while self._to_capture:
            step, failure = self._to_capture[0]
            try:
                return CudaGraphRunner(self._weights, self._state, step, report, self._steps_per_poll)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self._note(failure, cause_of(error))
                self._to_capture.popleft()
        return EagerRunner(self._weights, self._state, self._make_ops)

    def _note(self, text: str, cause: str) -> None:
        log.warning(text, extra={"cause": cause})
        self.notes += (f"{text} ({cause})",)

    # Methods of the `Model` protocol.

    @torch.inference_mode()
    def admit(self, slot: int, utterance: Utterance) -> None:
        """Encode the text and start encoding the voice prompt, if there is one.

        Raises TextTooLong, Invalid or GpuOutOfMemory.
        """
        run = self._admission.admit(slot, utterance)
        if run is not None:
            self._runs[slot] = run

    @torch.inference_mode()
    def step(self) -> Mapping[int, Chunk | Exception]:
        with translate_oom("Memory ran out in the middle of the batch", self._prompt_cache.clear):
            return self._poll()

    @torch.inference_mode()
    def release(self, slot: int) -> None:
        self._state.retire(slot)
        self._admission.cancel(slot)
        run = self._runs.pop(slot, None)
        if run is not None and run.broken:
            self._state.scrub(slot)

    def reset(self) -> None:
        """End all runs, clear the prompt cache, and replace the state and the CUDA graphs.

        A failed step may have left the state's tensors in any condition.
        """
        self._runs.clear()
        self._polls.clear()
        self._audio_decoder.abandon()
        self._prompt_cache.clear()
        self._free_arenas()
        self._prepare(lambda share: None)

    def close(self) -> None:
        self._audio_decoder.close()
        self._prompt_cache.close()
        self._poll_thread.shutdown()
        self._free_arenas()
        del self._weights, self._codec
        release_cached()

    def warm_up(self) -> None:
        """Warm up the codec and generate one utterance.

        So kernels, cuDNN plans, the codec's CUDA graphs and memory pools exist before any request.
        """
        try:
            self._audio_decoder.warm_up(self.slots)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self._note(CODEC_NOT_CAPTURED, cause_of(error))
        noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
        prompt = VoicePrompt((Recording(noise, "warm-up"),), "[S1] This is it.")
        self.admit(0, Utterance("[S1] Hello.", "", seed=0, max_tokens=WARM_UP_STEPS, prompt=prompt))
        while not isinstance(outcome := self.step().get(0), Exception) and not (outcome and outcome.done):
            pass
        self.release(0)
        self._prompt_cache.clear()
        if isinstance(outcome, Exception):
            raise outcome

    @torch.inference_mode()
    def warm_up_step(self) -> None:
        """Compute a step without an utterance, for which Numba compiles its loops; CUDA needs `warm_up`."""
        self._runner.run([0], 1)

    # Memory, and the parts of a poll.

    def _free_arenas(self) -> None:
        """Free the state and graphs; collect garbage, as an exception's traceback may refer to them."""
        for name in ("_runner", "_admission", "_state"):
            vars(self).pop(name, None)
        gc.collect()
        release_cached()

    def _poll(self) -> dict[int, Chunk | Exception]:
        outcomes: dict[int, Chunk | Exception] = {}
        queued = len(self._polls) > self._depth  # the last call returned before its poll had arrived
        if not queued:
            outcomes |= self._admission.advance(self._runs)
            queued = self._queue_poll()
        is_due = len(self._polls) > (self._depth if queued else 0)
        if is_due and self._polls[0].arrives(self._audio_decoder.running):
            for slot, run, outcome in self._polls.popleft().outcomes():
                if self._runs.get(slot) is run:  # the slot may have been released since the poll was queued
                    run.apply(outcome)
        for slot, run in self._runs.items():
            if run.broken:
                outcomes[slot] = ServerError("The model produced numbers that are not finite")
        self._emit(self._audio_decoder.advance(self._runs, wait=not queued), outcomes)
        return outcomes

    def _queue_poll(self) -> bool:
        """Queue the next steps and the copy of their results; returns False if no slot is running."""
        running = {slot: run for slot, run in self._runs.items() if run.running}
        if not running:
            return False
        slots, runs, steps = list(running), list(running.values()), self._steps_per_poll
        values = self._runner.run(slots, steps)
        poll = Poll(values, slots, runs, steps, self._weights.device)
        poll.watch(self._poll_thread)
        self._polls.append(poll)
        return True

    def _emit(self, chunks: list[Emitted], outcomes: dict[int, Chunk | Exception]) -> None:
        if any(isinstance(outcome, GpuOutOfMemory) for _, _, outcome in chunks):
            self._prompt_cache.clear()
        for slot, run, outcome in chunks:
            if self._runs.get(slot) is run:  # the slot may have been released while it was decoded
                outcomes.setdefault(slot, outcome)
