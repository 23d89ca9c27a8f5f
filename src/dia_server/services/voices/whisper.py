"""Transcribes recordings with Whisper (faster-whisper) in a child process."""

import asyncio
import importlib.util
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import structlog

from dia_server.errors import ServerError, UnusableAudio, WhisperNotAvailable
from dia_server.native import NativeFailure, NativeWorker
from dia_server.services.voices.daemon_thread import DaemonThread
from dia_server.services.voices.transcriber import Transcriber
from dia_server.services.voices.transcription import Transcription
from dia_server.services.voices.whisper_models import SIZES as SIZES
from dia_server.services.voices.whisper_models import locate

log = structlog.get_logger()

T = TypeVar("T")
P = ParamSpec("P")

DEVICES: Final = (("cuda", "float16"), ("cuda", "float32"), ("cpu", "int8"))
"""Devices and number formats, in the order of trial: a GPU may lack its libraries or float16."""
RETRY_S = 60.0
"""Seconds after a failed load during which transcriptions fail at once instead of loading the model again."""
CLOSE_S = 10.0
"""Maximum seconds that the shutdown waits for Whisper's thread to end."""
REMEDY = "send a transcript, or set DIA_WHISPER_MODEL"
"""What a client and an operator can do without Whisper."""
DEADLINE_S = 600.0
"""Maximum seconds per recording. With the largest model, a slow CPU takes 2 s per second of audio."""


class Whisper:
    """Loads the model at the first use and unloads it after `idle_s` seconds without work (0: never)."""

    def __init__(
        self, model_size: str, *, idle_s: float, devices: Sequence[tuple[str, str]] = DEVICES
    ) -> None:
        self.model_size = model_size
        """Name or folder of the model that the next call uses; may be set at any time."""
        self.device: str | None = None
        """Device of the loaded model; None if none is loaded."""
        self._idle_s = idle_s
        self._devices = devices
        self._installed = importlib.util.find_spec("faster_whisper") is not None
        self._thread = DaemonThread("whisper")
        self._calls: set[asyncio.Future[Any]] = set()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._closing = False
        self._error: str | None = None
        self._failed: str | None = None
        self._failed_at = 0.0
        self._model: NativeWorker[Transcriber] | None = None
        self._loaded_size: str | None = None

    @property
    def error(self) -> str | None:
        """Why the last load of the model `model_size` failed; None if it did not."""
        return self._error if self._failed == self.model_size else None

    @property
    def loaded(self) -> bool:
        """Whether the model `model_size` is loaded."""
        return self.device is not None and self._loaded_size == self.model_size

    async def problem(self) -> str | None:
        """Say why Whisper cannot transcribe now, and the remedy; None if it can, without a download."""
        if self.error is not None or self.loaded:
            return self.error
        size = self.model_size
        if not self._installed:
            return _unavailable(size, "faster-whisper is not installed")
        found = await asyncio.to_thread(locate, size)
        if found.folder is not None:
            return None
        download = "; the first transcription, or POST /whisper/load, tries to download it"
        return _unavailable(size, f"{found.problem}{download if found.can_download else ''}")

    async def load(self) -> tuple[str, str]:
        """Load the model `model_size`, even if it is loaded already; return its name and device.

        Raises WhisperNotAvailable with the cause.
        """
        return await self._call(self._reload)

    async def transcribe(self, recording: bytes) -> Transcription:
        """Transcribe an audio file.

        Raises WhisperNotAvailable, or UnusableAudio if the file is the cause.
        """
        return await self._call(lambda: self._run(Transcriber.transcribe, recording))

    async def align(self, recording: bytes, words: list[str]) -> list[float | None]:
        """Return the second at which each of `words`, which an audio file says, begins; None if unknown.

        Raises WhisperNotAvailable, or UnusableAudio if the file is the cause.
        """
        return await self._call(lambda: self._run(Transcriber.align, recording, words))

    async def close(self) -> None:
        """Cancel the calls in progress, which raise WhisperNotAvailable, and end the thread."""
        self._closing = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for call in self._calls:
            call.cancel()
        if self._model is not None:
            await asyncio.to_thread(self._model.close)
        if not await self._thread.end(CLOSE_S):
            log.warning("Whisper still busy at shutdown", waited_s=CLOSE_S)

    async def _call(self, function: Callable[[], T]) -> T:
        if self._closing:
            raise WhisperNotAvailable("The server is shutting down")
        if self._idle_timer is not None:
            self._idle_timer.cancel()
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
                self._idle_timer = asyncio.get_running_loop().call_later(self._idle_s, self._unload_idle)

    def _unload_idle(self) -> None:
        self._unloading = asyncio.ensure_future(self._thread.call(self._unload))

    # Everything below runs on Whisper's thread.

    def _reload(self) -> tuple[str, str]:
        self._load()
        assert self._loaded_size is not None
        assert self.device is not None
        return self._loaded_size, self.device

    def _run(
        self,
        method: Callable[Concatenate[Transcriber, bytes, P], T],
        recording: bytes,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call `method` in the child process; load the model before, if it is not loaded."""
        model = self._model
        if model is None or self._loaded_size != self.model_size:
            if self._failed == self.model_size and time.monotonic() - self._failed_at < RETRY_S:
                raise WhisperNotAvailable(f"{self.error} (POST /whisper/load tries again)")
            model = self._load()
        try:
            return model.call(method, recording, *args, **kwargs)
        except NativeFailure as failure:
            raise UnusableAudio(f"Whisper cannot transcribe the recording: {failure}") from None

    def _load(self) -> NativeWorker[Transcriber]:
        self._unload()
        size = self.model_size
        model = self._model = NativeWorker(
            "whisper",
            partial(Transcriber, size, self._devices),
            deadline_s=DEADLINE_S,
            memory=None,  # the child sets its limit once it knows the device
            start_s=None,  # no deadline: the model may have to be downloaded
        )
        if self._closing:
            model.close()
        try:
            opened = model.call(Transcriber.opened)
        except ServerError as error:
            model.close()
            self._model = None
            self._error = _unavailable(size, str(error).rstrip("."))
            self._failed, self._failed_at = size, time.monotonic()
            raise WhisperNotAvailable(self._error) from error
        for refusal in opened.refusals:
            log.warning(
                "Whisper device not usable",
                device=refusal.device,
                format=refusal.number_format,
                cause=refusal.cause,
            )
        self._error, self._failed, self._loaded_size, self.device = None, None, size, opened.device
        log.info("Whisper loaded", model=size, device=self.device)
        return model

    def _unload(self) -> None:
        if self._model is not None:
            self._model.close()
            self._model = self.device = None
            log.info("Whisper unloaded")


def _unavailable(model_size: str, cause: str) -> str:
    return f"Whisper model {model_size!r} cannot be loaded: {cause}; {REMEDY}"
