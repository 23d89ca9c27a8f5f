import asyncio
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from dia_server.errors import WhisperNotAvailable
from dia_server.services.voices.daemon_thread import DaemonThread
from dia_server.services.voices.whisper import Whisper
from tests.recordings import wav_file


async def test_the_model_is_loaded_at_the_first_use_and_unloaded_when_idle(whisper_folder: Path) -> None:
    whisper = Whisper(str(whisper_folder), idle_s=0.2)
    assert (await whisper.problem(), whisper.loaded, whisper.device) == (None, False, None)

    heard = await whisper.transcribe(wav_file(2.0))

    assert heard.text.isalpha()
    assert (await whisper.problem(), whisper.loaded, whisper.device) == (None, True, "cpu")
    assert await whisper.transcribe(wav_file(2.0)) == heard
    await asyncio.sleep(0.5)
    assert not whisper.loaded
    assert await whisper.transcribe(wav_file(2.0)) == heard
    await whisper.close()


async def test_an_unusable_device_falls_back_to_the_next(whisper_folder: Path) -> None:
    devices = [("cuda", "float16"), ("cpu", "no such format"), ("cpu", "int8")]
    whisper = Whisper(str(whisper_folder), idle_s=0, devices=devices)

    assert await whisper.load() == (str(whisper_folder), "cpu")
    await whisper.close()


async def test_a_failed_load_reports_its_cause_and_is_not_retried_at_once(tmp_path: Path) -> None:
    whisper = Whisper("enormous", idle_s=0)
    with pytest.raises(WhisperNotAvailable, match="neither a folder nor one of tiny") as refused:
        await whisper.transcribe(wav_file(1.0))
    assert "send a transcript, or set DIA_WHISPER_MODEL" in str(refused.value)
    assert await whisper.problem() == str(refused.value)

    whisper.model_size = str(tmp_path)
    with pytest.raises(WhisperNotAvailable, match="cannot be loaded"):
        await whisper.transcribe(wav_file(1.0))
    with pytest.raises(WhisperNotAvailable, match="/whisper/load tries again"):
        await whisper.transcribe(wav_file(1.0))
    await whisper.close()


@pytest.mark.parametrize("size", ["base", "enormous"])
async def test_a_model_that_is_not_on_this_machine_is_a_problem(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    whisper = Whisper(size, idle_s=0)

    problem = await whisper.problem()

    assert problem is not None
    assert f"{size!r} cannot be loaded" in problem
    assert "send a transcript, or set DIA_WHISPER_MODEL" in problem
    assert ("POST /whisper/load" in problem) == (size == "base")


async def test_another_model_is_loaded_for_the_next_recording(whisper_folder: Path) -> None:
    whisper = Whisper("enormous", idle_s=0)
    with pytest.raises(WhisperNotAvailable):
        await whisper.load()

    whisper.model_size = str(whisper_folder)

    assert (await whisper.transcribe(wav_file(2.0))).text
    assert await whisper.problem() is None
    await whisper.close()


async def test_closing_cancels_running_calls(whisper_folder: Path) -> None:
    whisper = Whisper(str(whisper_folder), idle_s=0)
    calls = [asyncio.ensure_future(whisper.transcribe(wav_file(30.0))) for _ in range(3)]
    await asyncio.sleep(0.01)

    await whisper.close()

    for call in [*calls, whisper.transcribe(wav_file(1.0))]:
        with pytest.raises(WhisperNotAvailable, match="shutting down"):
            await call


async def test_calls_run_one_after_the_other_on_one_thread() -> None:
    thread = DaemonThread("test")
    running: list[int] = []

    def work() -> int:
        running.append(1)
        time.sleep(0.01)
        assert len(running) == 1
        running.pop()
        return threading.get_ident()

    assert len(set(await asyncio.gather(*(thread.call(work) for _ in range(5))))) == 1
    assert await thread.end(1.0)


async def test_ending_a_thread_times_out() -> None:
    thread = DaemonThread("test")
    gate = threading.Event()
    call = asyncio.ensure_future(thread.call(gate.wait))
    await asyncio.sleep(0)

    assert not await thread.end(0.05)

    gate.set()
    assert await call
