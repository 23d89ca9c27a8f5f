"""Whisper: what is said in a recording, by faster-whisper on a thread of its own."""

import asyncio
import gc
import importlib.util
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import structlog

from dia_server.errors import WhisperNotAvailable
from dia_server.services.own_thread import OwnThread

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

log = structlog.get_logger()

T = TypeVar("T")

SIZES = (
    *("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en"),
    *("large-v1", "large-v2", "large-v3", "large", "large-v3-turbo", "turbo"),
    *("distil-small.en", "distil-medium.en", "distil-large-v2", "distil-large-v3", "distil-large-v3.5"),
)
"""Names of models that are downloaded when they are first loaded."""
DEVICES: Final = (("cuda", "float16"), ("cuda", "float32"), ("cpu", "int8"))
"""What is tried, in this order: a GPU may be there and its libraries not, or be too old for float16."""
RETRY_S = 60.0
"""Before a model that could not be loaded is tried again without being asked for."""
CLOSE_S = 10.0


class Whisper:
    """Loads its model when it is first needed and gives it back after `idle_s` without work (0: never)."""

    def __init__(
        self, model_size: str, *, idle_s: float, devices: Sequence[tuple[str, str]] = DEVICES
    ) -> None:
        self.model_size = model_size
        """Name or folder of the model that is loaded next; may be set at any time."""
        self.device: str | None = None
        """Where the loaded model is; None while there is none."""
        self._idle_s = idle_s
        self._devices = devices
        self._installed = importlib.util.find_spec("faster_whisper") is not None
        self._thread = OwnThread("whisper")
        self._calls: set[asyncio.Future[Any]] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._closing = False
        self._error: str | None = None
        self._failed: str | None = None
        self._failed_at = 0.0
        self._model: WhisperModel | None = None
        self._loaded_size: str | None = None

    @property
    def available(self) -> bool:
        """Whether Whisper works as far as is known: what has not been tried counts as working."""
        return self._installed and self.error is None

    @property
    def error(self) -> str | None:
        """Why the model that `model_size` names could not be loaded, last time."""
        return self._error if self._failed == self.model_size else None

    @property
    def loaded(self) -> bool:
        """Whether the model that `model_size` names is the one that is loaded."""
        return self.device is not None and self._loaded_size == self.model_size

    async def load(self) -> tuple[str, str]:
        """Load the model, anew where there is one; returns its name and device.

        Raises WhisperNotAvailable with the cause.
        """
        return await self._work(self._reload)

    async def transcribe(self, recording: bytes) -> str:
        """Return what is said in an audio file, "" for nothing; raises WhisperNotAvailable."""
        return await self._work(lambda: self._transcribe(recording))

    async def close(self) -> None:
        """Give up what is being done, which raises WhisperNotAvailable, and end the thread."""
        self._closing = True
        if self._idle is not None:
            self._idle.cancel()
        for call in self._calls:
            call.cancel()
        if not await self._thread.end(CLOSE_S):
            log.warning("Whisper was still busy when the server ended")

    async def _work(self, function: Callable[[], T]) -> T:
        if self._closing:
            raise WhisperNotAvailable("The server is shutting down")
        if self._idle is not None:
            self._idle.cancel()
        call = asyncio.ensure_future(self._thread.call(function))
        self._calls.add(call)
        try:
            return await call
        except asyncio.CancelledError:
            if self._closing:
                raise WhisperNotAvailable("The server is shutting down") from None
            raise
        finally:
            self._calls.discard(call)
            if self._idle_s and not self._calls and not self._closing:
                self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._give_back)

    def _give_back(self) -> None:
        self._unloading = asyncio.ensure_future(self._thread.call(self._unload))

    # Everything below runs on Whisper's thread.

    def _reload(self) -> tuple[str, str]:
        self._load()
        assert self._loaded_size is not None
        assert self.device is not None
        return self._loaded_size, self.device

    def _transcribe(self, recording: bytes) -> str:
        model = self._model
        if model is None or self._loaded_size != self.model_size:
            if self._failed == self.model_size and time.monotonic() - self._failed_at < RETRY_S:
                raise WhisperNotAvailable(f"{self.error} (POST /whisper/load tries again)")
            model = self._load()
        try:
            segments, _ = model.transcribe(io.BytesIO(recording), condition_on_previous_text=False)
            texts = []
            for segment in segments:
                if self._closing:
                    raise WhisperNotAvailable("The server is shutting down")
                texts.append(segment.text.strip())
        except (RuntimeError, ValueError) as error:  # CTranslate2's, out of memory among them
            raise WhisperNotAvailable(f"Whisper failed: {error}") from error
        return " ".join(filter(None, texts))

    def _load(self) -> "WhisperModel":
        self._unload()
        size = self.model_size
        try:
            self._model, self.device = self._open(size)
        except Exception as error:
            cause = str(error).strip().partition("\n")[0] or type(error).__name__
            self._error = f"Whisper model {size!r} cannot be loaded: {cause}"
            self._failed, self._failed_at = size, time.monotonic()
            raise WhisperNotAvailable(self._error) from error
        self._error, self._failed, self._loaded_size = None, None, size
        log.info("Whisper loaded", model=size, device=self.device)
        return self._model

    def _open(self, size: str) -> tuple["WhisperModel", str]:
        is_folder = Path(size).is_dir()
        if not is_folder and size not in SIZES:
            raise ValueError(f"it is neither a folder nor one of {', '.join(SIZES)}")
        # imported here: it takes a second, and speech must work without it
        from ctranslate2 import get_cuda_device_count
        from faster_whisper import WhisperModel, download_model

        folder = size if is_folder else download_model(size)
        failure: Exception = RuntimeError("there is no device for it")
        for device, number_format in self._devices:
            if device == "cuda" and not get_cuda_device_count():
                continue
            try:
                model = WhisperModel(folder, device=device, compute_type=number_format)
                if device == "cuda":  # that its libraries are missing shows only now
                    list(model.transcribe(np.zeros(16_000, np.float32), language="en", temperature=0)[0])
            except (RuntimeError, ValueError) as error:
                log.warning(
                    "Whisper cannot use a device", device=device, format=number_format, cause=str(error)
                )
                failure = error
            else:
                return model, device
        raise failure

    def _unload(self) -> None:
        if self._model is not None:
            self._model = self.device = None
            gc.collect()
            log.info("Whisper unloaded")
