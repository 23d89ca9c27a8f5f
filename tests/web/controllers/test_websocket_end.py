"""The end of what is heard over a socket does not wait for what happens to it afterwards."""

import sqlite3
import time
from contextlib import closing
from typing import Any

from litestar import Litestar
from litestar.testing import TestClient

from dia_server.app import create_app
from dia_server.engine.engine import Engine
from dia_server.settings import Settings
from tests.tones import Gate, ToneModel, loader

WISH = {"text": "Hello, world!", "response_format": "mp3", "stream": True}


def test_the_last_audio_is_sent_though_the_result_cannot_be_noted_yet(settings: Settings) -> None:
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
            heard = b""
            while len(heard) < len(whole):
                message: dict[str, Any] = socket.receive_json(timeout=5)
                if message["type"] == "audio":
                    heard += socket.receive_bytes(timeout=5)
            database.rollback()

        assert heard == whole
        while message["type"] != "complete":
            message = socket.receive_json(timeout=20)
        assert client.get(message["audio_url"]).status_code == 200
