from contextlib import ExitStack

import pytest
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import TestClient

from dia_server.app import create_app
from dia_server.errors import Overloaded
from dia_server.settings import Settings
from dia_server.web.controllers import websocket
from dia_server.web.requests.concurrency_limit import ConcurrencyLimit


def test_holders_are_limited_per_address_and_in_total() -> None:
    limit = ConcurrencyLimit("sockets", total=3, each=2)
    with ExitStack() as stack:
        for address in ("a", "a", "b"):
            stack.enter_context(limit.hold(address))
        with pytest.raises(Overloaded, match="sockets from this address: the limit is 2"), limit.hold("a"):
            pass
        with pytest.raises(Overloaded, match="concurrent sockets: the limit is 3"), limit.hold("c"):
            pass
    for address in ("a", "a", "c"):
        stack.enter_context(limit.hold(address))


def test_a_socket_above_the_limit_is_closed_until_another_ends(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client, ExitStack() as stack:
        sockets = [
            client.websocket_connect("/ws/generate") for _ in range(websocket.MAX_SOCKETS_PER_ADDRESS + 1)
        ]
        for socket in sockets[1:]:
            stack.enter_context(socket)
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/ws/generate"):
            pass
        assert refused.value.code == websocket.TRY_LATER
