"""The last audio over a WebSocket does not wait until the result is stored."""

import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.settings import Settings
from tests.tones import Gate, ToneModel, loader

WISH = {"text": "Hello, world!", "response_format": "mp3", "stream": True}


@pytest.mark.sqlite
def test_the_last_audio_is_sent_before_the_result_can_be_stored(settings: Settings) -> None:
    gate = Gate()
    app = create_app(settings, Engine("preview", loader(ToneModel(before_step=gate)), max_waiting=8))
    with TestClient[Litestar](app) as client, client.websocket_connect("/ws/generate") as socket:
        while not client.get("/health").json()["model_loaded"]:
            time.sleep(0.01)
        socket.send_json({"type": "generate", "data": WISH})
        assert gate.entered.wait(5)
        with closing(sqlite3.connect(settings.data_dir + "/dia.sqlite3")) as database:
            database.execute("BEGIN IMMEDIATE")
            gate.open()
            whole = client.post("/generate", json=WISH).content
            received = b""
            while len(received) < len(whole):
                message: dict[str, Any] = socket.receive_json(timeout=5)
                if message["type"] == "audio":
                    received += socket.receive_bytes(timeout=5)
            database.rollback()

        assert received == whole
        while message["type"] != "complete":
            message = socket.receive_json(timeout=20)
        assert client.get(message["audio_url"]).status_code == 200
