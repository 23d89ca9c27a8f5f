"""Decodes texts in batches, step by step, and shows the logits of each step.

The steps are those of the server, uncompiled: the same attention, KV caches and sampling.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import LongTensor, Tensor

from dia_server.engine.dia.admission import NO_FRAMES
from dia_server.engine.dia.decoder import step
from dia_server.engine.dia.delay import delayed, undelayed
from dia_server.engine.dia.encoder import text_keys_values
from dia_server.engine.dia.state import new_state
from dia_server.engine.dia.step_ops import MakeOps, StepOps
from dia_server.engine.dia.text import text_bytes
from dia_server.engine.dia.weights import Weights
from dia_server.engine.types import Utterance
from dia_server.errors import GenerationFailed

Watch = Callable[[Sequence[int], Tensor], None]
"""Function (utterances [B], logits [2B, ...]) that is called in each step, before the column is written.

The first argument has the index of each utterance of the batch; the logits are fp32, conditional rows first.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """One decoded utterance."""

    columns: LongTensor
    """[1 + steps, channels]: delayed tokens on the CPU, from the column of BOS to the run's end."""
    end: int
    """Index of the column of channel 0's EOS."""
    reached_limit: bool
    """Whether EOS was forced."""

    def frames(self, delay: Sequence[int]) -> LongTensor:
        """Return the codes [n, channels]; possibly none."""
        return undelayed(self.columns, 0, self.end - 1, delay)


@dataclass(slots=True)
class _Running:
    number: int
    end: int
    """Index of the column in which EOS is forced."""
    position: int = 0
    """Index of the last complete column."""


class _WatchedOps(StepOps):
    """Operations of a step whose logits are shown to `watch`."""

    def __init__(self, ops: StepOps, watch: Callable[[Tensor], None]) -> None:
        self._ops, self._watch = ops, watch

    def self_attention(self, layer: int, qkv: Tensor) -> Tensor:
        return self._ops.self_attention(layer, qkv)

    def cross_attention(self, layer: int, q: Tensor) -> Tensor:
        return self._ops.cross_attention(layer, q)

    def commit(self, tokens: Tensor, logits: Tensor) -> None:
        self._watch(logits)
        self._ops.commit(tokens, logits)


class Decoding:
    """Decodes utterances without voice prompts."""

    def __init__(self, weights: Weights, slots: int, make_ops: MakeOps) -> None:
        """`slots` utterances are decoded at the same time."""
        self._weights, self._make_ops = weights, make_ops
        self._state = new_state(weights.config, slots, weights.device, weights.dtype)

    @torch.inference_mode()
    def run(
        self,
        utterances: Sequence[Utterance],
        report: Callable[[int], None],
        *,
        watch: Watch = lambda numbers, logits: None,
        forced: Sequence[Decoded] = (),
    ) -> list[Decoded]:
        """Decode all `utterances`, whose `max_tokens` the model's columns must hold.

        `report` receives the number of utterances that are done. With `forced`, the tokens of each utterance
        are given, and only the logits are computed. Raises GenerationFailed if logits are not finite.
        """
        waiting = deque(range(len(utterances)))
        running: dict[int, _Running] = {}
        done: dict[int, Decoded] = {}
        while waiting or running:
            for slot in range(self._state.slots):
                if waiting and slot not in running:
                    number = waiting.popleft()
                    columns = forced[number].columns if forced else None
                    running[slot] = self._begin(slot, number, utterances[number], columns)
            for slot in self._step(running, watch):
                one = running.pop(slot)
                done[one.number] = self._decoded(slot, one)
                report(len(done))
        return [done[number] for number in range(len(utterances))]

    def _begin(self, slot: int, number: int, utterance: Utterance, columns: LongTensor | None) -> _Running:
        config, state = self._weights.config, self._state
        text = text_bytes(utterance, config.encoder.positions)
        byte_ids = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
        state.set_text(slot, text_keys_values(self._weights, state.upload(byte_ids)))
        assert utterance.max_tokens is not None
        end = utterance.max_tokens - config.tail
        if columns is None:
            columns = delayed(NO_FRAMES, config.delay, config.bos)
        state.begin(slot, utterance, columns, 0, end)
        state.live[slot].fill_(True)
        return _Running(number, end)

    def _step(self, running: dict[int, _Running], watch: Watch) -> list[int]:
        """Decode one column of each running slot; return the slots that have ended."""
        state, slots, runs = self._state, list(running), list(running.values())
        numbers = [run.number for run in runs]
        index = state.upload(torch.tensor(slots))
        step(
            self._weights,
            state,
            index,
            lambda *parts: _WatchedOps(self._make_ops(*parts), partial(watch, numbers)),
        )
        for run in runs:
            run.position += 1
        live, broken = torch.stack([state.live[index], state.broken[index]]).tolist()
        if any(broken):
            text = numbers[broken.index(True)] + 1
            raise GenerationFailed(f"The model produced numbers that are not finite (text {text})")
        return [slot for slot, alive in zip(slots, live, strict=True) if not alive]

    def _decoded(self, slot: int, run: _Running) -> Decoded:
        columns = (
            self._state.grid[slot, : run.position + 1].clone().cpu()
        )  # a later utterance has the slot next
        end = int(self._state.eos_at[slot])
        self._state.retire(slot)
        return Decoded(columns, end, end >= run.end)  # type: ignore[arg-type]
