import threading
from concurrent.futures import Future

import pytest
import torch

from dia_server.engine.dia.background_stream import BackgroundStream


def where(device: str) -> Future[int]:
    background = BackgroundStream(torch.device(device), "test")
    done = background.submit(threading.get_ident)
    background.close()
    return done


def test_work_is_done_on_another_thread_and_asks_nothing_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cuda, "stream")  # on Macs it always fails

    assert where("cpu").result() != threading.get_ident()


def test_metal_is_used_from_one_thread_only() -> None:
    assert where("mps").result() == threading.get_ident()

    failed = BackgroundStream(torch.device("mps"), "test").submit(int, "no number")
    assert isinstance(failed.exception(), ValueError)
