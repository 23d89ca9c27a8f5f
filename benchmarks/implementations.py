"""This engine and its peers behind one interface: a workload in, frames [T, 9] per text out."""

import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import LongTensor, Tensor
from transformers import DiaForConditionalGeneration

from benchmarks.models import CFG_SCALE, EOS, TEMPERATURE, TOP_K, TOP_P, Workload
from dia_server.engine.dia import large_pages
from dia_server.engine.dia.assemble import assemble
from dia_server.engine.dia.delay import UNKNOWN, delayed, undelayed
from dia_server.engine.dia.loader import pick_dtype
from dia_server.engine.dia.model import DiaModel, ModelOptions
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.windows import Window
from dia_server.engine.types import Chunk, Recording, Samples, Utterance, VoicePrompt

BOS, PAD = 1026, 1025
DELAY = (0, 8, 9, 10, 11, 12, 13, 14, 15)


class Implementation(Protocol):
    name: str
    dtype: torch.dtype
    format: str
    """Number format of the weights."""

    def generate(self, work: Workload) -> list[Tensor]: ...


class CodesAsAudio:
    """Replaces the codec where only the decoder is measured: its audio is the codes themselves."""

    def encode(self, samples: Samples) -> LongTensor:
        return torch.from_numpy(samples).view(-1, 9).long()  # type: ignore[return-value]

    def decode(self, windows: Sequence[Window]) -> list[Samples]:
        return [w.frames[w.left : w.left + w.n].flatten().float().numpy() for w in windows]

    def warm_up(self, most: int) -> None:
        pass


class Ours:
    name = "dia-server"

    def __init__(
        self, dia: DiaForConditionalGeneration, slots: int, format: str, *, compiled: bool = False
    ) -> None:
        """`format` is a value of the setting `dtype`."""
        weights, self.format = dia.state_dict(), format
        self.dtype = pick_dtype(format, dia.device, slots)
        self.model = DiaModel(
            assemble(
                ModelConfig.of(dia.config),
                weights.__getitem__,
                device=dia.device,
                dtype=self.dtype,
                int8=format == "int8",
            ),
            CodesAsAudio(),
            slots,
            ModelOptions(compiled=compiled),
        )
        if dia.device.type == "cpu":
            large_pages.collapse()
        self._voices = 0

    def generate(self, work: Workload, *, polls_between: int = 0) -> list[Tensor]:
        """Submit all texts at once, or one more after each `polls_between` polls."""
        waiting = deque(enumerate(self._utterances(work)))
        frames: dict[int, list[Samples]] = {}
        running: dict[int, bool] = {}
        polls = 0
        while waiting or running:
            while waiting and (not polls_between or len(frames) * polls_between <= polls):
                slot, utterance = waiting.popleft()
                self.model.admit(slot, utterance)
                frames[slot], running[slot] = [], True
            for slot, outcome in self.model.step().items():
                if not isinstance(outcome, Chunk):
                    raise outcome
                frames[slot].append(outcome.samples)
                if outcome.done:
                    self.model.release(slot)
                    del running[slot]
            polls += 1
        return [
            torch.from_numpy(np.concatenate(frames[i])).view(-1, 9).long() for i in range(len(work.texts))
        ]

    def _utterances(self, work: Workload) -> list[Utterance]:
        """Return one utterance per text; prompts get new digests, so that none is cached."""
        self._voices += len(work.texts)
        return [
            Utterance(
                text,
                voice="",
                seed=i,
                temperature=TEMPERATURE if work.sampled else 0.0,
                cfg_scale=CFG_SCALE,
                top_p=TOP_P,
                top_k=TOP_K,
                max_tokens=work.steps,
                prompt=VoicePrompt((Recording(prompt.flatten().float().numpy(), str(self._voices + i)),), "")
                if len(prompt)
                else None,
            )
            for i, (text, prompt) in enumerate(zip(work.texts, work.prompts, strict=True))
        ]


class Transformers:
    """`generate` with its dynamic cache, or its static one (which it compiles, on CUDA only)."""

    def __init__(self, dia: DiaForConditionalGeneration, cache: str) -> None:
        self.name = f"transformers, {cache} cache"
        self.dtype = dia.dtype
        self.format = str(dia.dtype).removeprefix("torch.")
        self._dia, self._cache = dia, cache

    def generate(self, work: Workload) -> list[Tensor]:
        device = self._dia.device
        ids = torch.tensor(
            [list(text.encode().replace(b"[S1]", b"\x01")) for text in work.texts], device=device
        )
        columns = torch.stack([delayed(prompt, DELAY, BOS) for prompt in work.prompts]).to(device)
        columns[columns == UNKNOWN] = PAD
        options: dict[str, Any] = {"do_sample": False}
        if work.sampled:
            options = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P}
        generated = self._dia.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            decoder_input_ids=columns,
            decoder_attention_mask=torch.ones(columns.shape[:2], dtype=torch.long, device=device),
            max_new_tokens=work.steps,
            guidance_scale=CFG_SCALE,
            top_k=TOP_K,
            cache_implementation=self._cache,
            **options,
        )
        assert isinstance(generated, Tensor)
        start = work.prompt_frames
        stop = start + work.steps - max(DELAY) - 1
        return [undelayed(row.cpu(), start, stop, DELAY) for row in generated]


class Original:
    """nari-labs' own package, from a folder with its source."""

    def __init__(self, folder: str, dia: DiaForConditionalGeneration, *, compiled: bool) -> None:
        """Random weights of its own, of the same sizes: only its speed is asked for."""
        sys.path.insert(0, folder)
        from dia.config import DiaConfig  # type: ignore[import-not-found]
        from dia.model import Dia  # type: ignore[import-not-found]

        self.name = f"original, {'compiled' if compiled else 'eager'}"
        self.dtype = dia.dtype
        self._compiled = compiled
        sizes = {name: dia.config.to_dict()[name] for name in ("encoder_config", "decoder_config")}
        config = DiaConfig.model_validate(sizes)
        self.format = str(dia.dtype).removeprefix("torch.")
        self._dia = Dia(config, compute_dtype=self.format, device=dia.device, load_dac=False)
        self._dia.model.to(dia.device, dia.dtype)
        for weight in self._dia.model.parameters():
            weight.data.normal_(0.0, 0.02)
        self._dia.model.decoder.logits_dense.weight.data[:, :, EOS] = 0.0

    def generate(self, work: Workload) -> list[Tensor]:
        prompts = [prompt if len(prompt) else None for prompt in work.prompts]
        generated = self._dia.generate(
            list(work.texts),
            max_tokens=work.prompt_frames + work.steps,
            cfg_scale=CFG_SCALE,
            temperature=TEMPERATURE if work.sampled else 0.0,
            top_p=TOP_P,
            cfg_filter_top_k=TOP_K,
            use_torch_compile=self._compiled,
            audio_prompt=prompts,
        )
        return [torch.as_tensor(frames) for frames in generated]
